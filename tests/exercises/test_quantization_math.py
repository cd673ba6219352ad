from mnistq.exercises import quantization_math

from .suite import Suite

WRONG = {
    "my_quantize": [
        ("round(-low / scale)", "int(-low / scale)", "zero point must be rounded"),
        ("min(*x, 0.0), max(*x, 0.0)", "min(x), max(x)", "until it holds 0"),
        ("min(*x, 0.0)", "min(x)", "until it holds 0"),
        ("max(*x, 0.0)", "max(x)", "until it holds 0"),
        ("round(-low / scale)", "0", "code that stands for 0"),
        (" or 1.0", "", "must not divide by zero"),
        ("round(v / scale) + ", "math.floor(v / scale + 0.5) + ", "Ties go to the"),
        ("round(v / scale) + ", "int(v / scale) + ", "to the nearest, not down"),
        ("min(max(q, 0), qmax)", "q", "must be clamped"),
        ("min(max(q, 0), qmax)", "q % (qmax + 1)", "must be clamped"),
        ("2**bits - 1", "2**bits", "from 0 to 2**bits - 1"),
        (
            "round(v / scale) + zero_point",
            "round(v / scale + zero_point)",
            "Round before",
        ),
        (" or 1.0", " + 1e-8", "Add nothing to the scale"),
        ("round(-low / scale)", "math.floor(0.5 - low / scale)", "zero point's ties"),
        (
            "qmax = 2**bits - 1\n",
            "qmax = 2**bits - 1\n"
            "    if len(set(x)) == 1:\n        return [0] * len(x)\n",
            "no special case",
        ),
    ],
    "my_dequantize": [
        ("- zero_point", "+ zero_point", "taken away, not added"),
        ("q.int()", "q", "wraps"),
        ("q.int()", "q.to(torch.int8)", "in int8 those above 127"),
        ("shape = [-1] + [1] * (q.dim() - 1)", "shape = [-1]", "belongs to a row"),
        ("scale.reshape(shape)", "scale", "scale belongs to a row"),
        ("zero_point.reshape(shape)", "zero_point", "zero point belongs to a row"),
        ("[1] * (q.dim() - 1)", "[1]", "four axes, not two"),
        ("[-1] + [1] * (q.dim() - 1)", "[-1, 1, 1, 1]", "of q's shape"),
        ("scale.reshape(shape) * ", "", "in floats"),
    ],
    "my_scales": [
        ("2 ** (bits - 1) - 1", "2 ** (bits - 1)", "end at 127"),
        ("2 ** (bits - 1) - 1", "2**bits - 1", "end at 127"),
        (".abs()", "", "whatever its sign"),
        ("(2 ** (bits - 1) - 1)", "127", "here at 1"),
        (".amax(1)", ".amax()", "one scale for each row"),
        (".amax(1)", ".amax(0)", "one scale for each row"),
        (".amax(1)", ".amax().expand(len(w))", "its own largest weight"),
        (".flatten(1)", "", "four axes"),
        ("torch.where(scale > 0, scale, 1.0)", "scale", "A row of zeros"),
        ("scale, 1.0)", "scale, 1e-8)", "A row of zeros"),
        (
            "w.abs().flatten(1).amax(1)",
            "w.flatten(1).amax(1).abs()",
            "whatever its sign",
        ),
    ],
}

RIGHT = [
    ("my_quantize", "for q in codes]", "for q in np.array(codes)]"),
    ("my_quantize", "round(v / scale)", "int(np.rint(v / scale))"),
    ("my_quantize", "min(*x, 0.0), max(*x, 0.0)", "min([0.0, *x]), max([0.0, *x])"),
    ("my_quantize", "min(max(q, 0), qmax)", "sorted((0, q, qmax))[1]"),
    ("my_dequantize", "q.int()", "q.float()"),
    ("my_dequantize", "q.int()", "q.short()"),
    ("my_dequantize", "[-1] + [1] * (q.dim() - 1)", "(len(q), *[1] * (q.dim() - 1))"),
    (
        "my_dequantize",
        "scale.reshape(shape) * steps",
        "steps.mul(scale.reshape(shape))",
    ),
    ("my_scales", "w.abs().flatten(1).amax(1)", "w.flatten(1).norm(torch.inf, dim=1)"),
    ("my_scales", ".flatten(1).amax(1)", ".amax(tuple(range(1, w.dim())))"),
    ("my_scales", "torch.where(scale > 0, scale, 1.0)", "scale + (scale == 0)"),
    ("my_scales", "2 ** (bits - 1) - 1", "(1 << bits - 1) - 1"),
]


class TestQuantizationMath(Suite):
    module, wrong, right = quantization_math, WRONG, RIGHT
