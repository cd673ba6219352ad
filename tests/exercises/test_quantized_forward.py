import pytest

import mnistq_helpers as mq
from mnistq.exercises import quantized_forward

from .suite import Suite

WRONG = {
    "my_bias": [
        ("torch.round(", "torch.trunc(", "not cut"),
        (
            "torch.round(b / (in_scale * w_scale))",
            "torch.floor(b / (in_scale * w_scale) + 0.5)",
            "Ties go to the even",
        ),
        ("(in_scale * w_scale)", "w_scale", "divide by both"),
        ("(in_scale * w_scale)", "in_scale * w_scale", "divide by both"),
        (".to(torch.int32)", "", "give int32"),
        (".to(torch.int32)", ".clamp(-128, 127).to(torch.int32)", "no clamp"),
        (".to(torch.int32)", ".long().to(torch.int8)", "no type so narrow"),
        (".to(torch.int32)", ".long().to(torch.int16)", "into 16 bits"),
        ("* w_scale", "* w_scale.max()", "scale of its own"),
        (".to(torch.int32)", ".clamp(min=0).to(torch.int32)", "A bias has a sign"),
    ],
    "my_layer": [
        ("(x.int() - x_zero)", "(x - x_zero).int()", "wraps in uint8"),
        ("x.int() - x_zero", "x.int()", "must be taken away"),
        ("x.int() - x_zero", "x.int() + x_zero", "must be taken away"),
        ("x.int()", "x.to(torch.int8).int()", "those above 127 wrap"),
        (" + bias", "", "plus the bias"),
        ("w.int().T", "w.int()", "row of w belongs"),
        ("torch.round(acc * m)", "torch.trunc(acc * m)", "not cut"),
        ("torch.round(acc * m)", "torch.floor(acc * m + 0.5)", "Ties go to the even"),
        (
            "torch.round(acc * m) + y_zero",
            "torch.round((acc + y_zero) * m)",
            "result of the multiplication",
        ),
        ("acc * m) + y_zero", "acc * m + y_zero)", "after the rounding"),
        ("acc * m) + y_zero", "acc * m) - y_zero", "y_zero is added"),
        ("clamp(y_zero, 255)", "clamp(y_zero, 127)", "Codes end at 255"),
        (".clamp(y_zero, 255).to(torch.uint8)", ".clamp(y_zero, 255)", "give uint8"),
        ("clamp(y_zero, ", "clamp(0, ", "cuts at y_zero"),
        ("clamp(y_zero, 255)", "clamp(y_zero).int()", "clamp there, before the cast"),
        ("acc * m)", "acc * torch.as_tensor(m).reshape(-1, 1))", "the last axis"),
        ("acc * m) + y_zero", "(acc - bias) * m) + bias + y_zero", "bias included"),
        (
            "+ y_zero\n    return q.clamp(y_zero, 255)",
            "\n    return (q.clamp(0, 255) + y_zero)",
            "Clamp last",
        ),
        (
            "(x.int() - x_zero) @ w.int().T",
            "(x.short() - x_zero) @ w.short().T",
            "int16",
        ),
        (
            "(x.int() - x_zero) @ w.int().T + bias",
            "((x.int() - x_zero).half() @ w.half().T + bias).float()",
            "floats of 16 bits",
        ),
    ],
    "mixed": [
        ('"fc1": 2', '"fc1": 3', "fc1 holds most"),
        ('"conv2": 4', '"conv2": 2', "digits too few"),
        (', "fc2": 4', "", "fc2 has no bits"),
        ('"fc2": 4', '"fc2": 9', "fc2 has 9 bits"),
        ('"fc2": 4', '"fc2": 4, "output": 8', "no layer 'output'"),
        ('{"conv1": 4, "conv2": 4, "fc1": 2, "fc2": 4}', "4", "Give a dictionary"),
        ('"fc2": 4', '"fc2": 4.0', "give an int from 1 to 8"),
        ('"fc2": 4', '"fc2": 0', "fc2 has 0 bits"),
    ],
}

RIGHT = [
    (
        "my_bias",
        "torch.round(b / (in_scale * w_scale))",
        "(b / in_scale / w_scale).round()",
    ),
    ("my_bias", "(in_scale * w_scale)", "torch.tensor(in_scale).mul(w_scale)"),
    ("my_bias", ".to(torch.int32)", ".int()"),
    (
        "my_bias",
        "b / (in_scale * w_scale)",
        "b.double() / (in_scale * w_scale.double())",
    ),
    (
        "my_layer",
        "(x.int() - x_zero) @ w.int().T",
        "F.linear(x.float() - x_zero, w.float())",
    ),
    ("my_layer", "x.int() - x_zero) @ w.int().T", "x.long() - x_zero) @ w.long().T"),
    ("my_layer", "clamp(y_zero, 255)", "clamp(0, 255).clamp(min=y_zero)"),
    (
        "my_layer",
        "(x.int() - x_zero) @ w.int().T + bias",
        "x.int() @ w.int().T + (bias - x_zero * w.int().sum(1))",
    ),
    ("mixed", '"conv1": 4', '"conv1": 8'),
    ("mixed", '"conv1": 4', '"conv1": torch.tensor(4)'),
    ("mixed", '"fc2": 4', '"fc2": 5'),
    ("mixed", '"fc2": 4', '"fc2": np.int64(4)'),
]


class TestQuantizedForward(Suite):
    module, wrong, right = quantized_forward, WRONG, RIGHT


@pytest.mark.parametrize("path", [mq.COMMITTED, mq.SHIFTED])
def test_which_layers_bear_few_bits_alone(path, calibration_images, test_set):
    """As the note below the solution of "mixed" says."""
    net = mq.load_net(path)
    found = mq.calibrate(net, calibration_images).items()
    ranges = {k: (round(a, 2), round(b, 2)) for k, (a, b) in found}
    eight = dict.fromkeys(mq.read_layers(net), 8)
    for name, bits, bears in (
        ("fc1", 2, True),
        ("conv2", 2, False),
        ("fc2", 2, False),
        ("conv2", 1, True),
        ("fc2", 1, True),
    ):
        qnet = mq.quantize_net(net, ranges, eight | {name: bits}, requantize="float")
        assert (mq.evaluate(qnet, *test_set) >= 0.985) == bears, (name, bits)
