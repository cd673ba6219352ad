from mnistq.exercises import quantization_aware_training

from .suite import Suite

WRONG = {
    "my_straight_through": [
        ("torch.where(inside, grad, 0)", "inside.float()", "passes as it is"),
        ("torch.where(inside, grad, 0)", "grad", "the gradient is 0"),
        ("torch.where(inside, grad, 0)", "torch.where(inside, 0, grad)", "as it is"),
        ("torch.where(inside, grad, 0)", "grad / scale * inside", "as it is"),
        (">= 0", "> 0", "are codes too"),
        ("<= 2**bits - 1", "< 2**bits - 1", "are codes too"),
        ("<= 2**bits - 1", "<= 2**bits", "the gradient is 0"),
        ("2**bits - 1", "2 * bits - 1", "here 7"),
        ("torch.round(x / scale)", "x / scale", "rounded code decides"),
        (" + zero_point", "", "count from the zero point"),
        (" + zero_point", " - zero_point", "count from the zero point"),
        ("(x / scale) + zero_point", "(x / scale + zero_point)", "Round first"),
        (
            "torch.round(x / scale) + zero_point",
            "(x / scale).int() + zero_point",
            "do not cut off",
        ),
        ("torch.round(x / scale)", "torch.floor(x / scale + 0.5)", "Round first"),
        (
            "torch.round(x / scale) + zero_point\n"
            "    inside = (q >= 0) & (q <= 2**bits - 1)",
            "x / scale + zero_point\n    inside = (q >= -0.5) & (q <= 2**bits - 0.5)",
            "to the even number",
        ),
    ],
    "my_fold": [
        ("return w * factor.reshape(-1, 1, 1, 1)", "return w", "as it does the kernel"),
        ("factor * (b - mean)", "(b - mean)", "as it does the kernel"),
        (" + beta", "", "added at the end"),
        ("gamma / torch", "gamma.abs() / torch", "keeps its sign"),
        ("(b - mean)", "b", "taken away from the bias"),
        ("(b - mean)", "b - mean", "before gamma multiplies it"),
        ("torch.sqrt(var + eps)", "(var + eps)", "the root of var"),
        (" + eps", "", "under the root"),
        ("torch.sqrt(var + eps)", "(torch.sqrt(var) + eps)", "under the root"),
        (".reshape(-1, 1, 1, 1)", ".reshape(-1, 1, 1)", "axis 0 of the kernel"),
        (".reshape(-1, 1, 1, 1)", "", "axis 0 of the kernel"),
        (
            "factor * (b - mean) + beta",
            "(gamma * (b - mean) + beta) / torch.sqrt(var + eps)",
            "not to beta",
        ),
        ("factor * (b - mean)", "factor * b - gamma * mean", "and to the mean"),
        (
            "return w * factor.reshape(-1, 1, 1, 1), factor * (b - mean) + beta",
            "return factor * (b - mean) + beta, w * factor.reshape(-1, 1, 1, 1)",
            "the kernel first",
        ),
        ("return w * factor.reshape(-1, 1, 1, 1), ", "return ", "give a tuple"),
        ("(b - mean)", "(b + mean)", "taken away from the bias"),
        (" + beta", " - beta", "added at the end"),
        ("gamma / torch.sqrt(var + eps)", "1 / torch.sqrt(var + eps)", "gamma multi"),
        ("gamma / torch.sqrt(var + eps)", "gamma", "the root of var"),
        ("(b - mean) + beta", "(b - mean + beta)", "added at the end"),
    ],
    "my_sign_weights": [
        (".mean(1)", ".amax(1)", "6 would be the largest"),
        (".mean(1)", ".amin(1)", "1 the smallest"),
        (".mean(1)", ".median(1).values", "2 the median"),
        (".mean(1)", ".std(1, correction=0)", "a standard deviation"),
        (".mean(1)", ".norm(dim=1)", "not a sum or a norm"),
        (".mean(1)", ".sum(1)", "not a sum or a norm"),
        ("torch.where(w < 0, -scale, scale)", "torch.sign(w)", "Signs alone"),
        (".abs()", "", "The mean of |w|"),
        ("torch.where(w < 0, -scale, scale)", "scale.expand_as(w)", "signs kept"),
        (".mean(1)", ".mean()", "mean of its own"),
        ("torch.where(w < 0, -scale, scale)", "torch.sign(w) * scale", "no code for 0"),
        ("w < 0", "w <= 0", "counts as positive"),
        (".flatten(1)", "", "four axes"),
        (
            "torch.where(w < 0, -scale, scale)",
            "torch.where(w < 0, -scale, scale).tolist()",
            "give a torch tensor",
        ),
        (".mean(1)", ".square().mean(1).sqrt()", "the root of the mean"),
    ],
}

KEPT = "torch.where(inside, grad, 0)"
INSIDE = "(q >= 0) & (q <= 2**bits - 1)"
PAIR = "return w * factor.reshape(-1, 1, 1, 1), factor * (b - mean) + beta"
SIGNS = "torch.where(w < 0, -scale, scale)"
RIGHT = [
    ("my_straight_through", KEPT, "grad * inside"),
    ("my_straight_through", KEPT, "grad.masked_fill(~inside, 0.0)"),
    ("my_straight_through", KEPT, "(inside * grad)"),
    ("my_straight_through", INSIDE, "q == q.clamp(0, 2**bits - 1)"),
    ("my_straight_through", "torch.round(x / scale)", "(x / scale).round().int()"),
    ("my_fold", PAIR, PAIR.replace("return ", "return [") + "]"),
    ("my_fold", ".reshape(-1, 1, 1, 1)", "[:, None, None, None]"),
    ("my_fold", "gamma / torch.sqrt(var + eps)", "gamma * (var + eps) ** -0.5"),
    ("my_fold", "factor * (b - mean) + beta", "beta + b * factor - mean * factor"),
    (
        "my_fold",
        "w * factor.reshape(-1, 1, 1, 1)",
        "torch.einsum('oikl,o->oikl', w, factor)",
    ),
    ("my_sign_weights", SIGNS, "torch.where(w >= 0, scale, -scale)"),
    ("my_sign_weights", SIGNS, "scale * (1 - 2 * (w < 0).float())"),
    ("my_sign_weights", SIGNS, "scale * ((w >= 0).int() * 2 - 1)"),
    ("my_sign_weights", ".mean(1)", ".sum(1) / w[0].numel()"),
    ("my_sign_weights", SIGNS, "torch.copysign(scale, torch.sign(w) + 0.5)"),
]


class TestQuantizationAwareTraining(Suite):
    module, wrong, right = quantization_aware_training, WRONG, RIGHT
