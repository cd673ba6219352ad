from mnistq.exercises import quantization_aware_training

from .suite import Suite

WRONG = {
    "my_straight_through": [
        ("torch.where(inside, grad, 0)", "inside.float()", "passes as it is"),
        ("torch.where(inside, grad, 0)", "grad", "the gradient is 0"),
        (">= 0", "> 0", "are codes too"),
        ("<= 2**bits - 1", "< 2**bits - 1", "are codes too"),
        ("<= 2**bits - 1", "<= 2**bits", "the gradient is 0"),
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
        ("(b - mean)", "b", "taken away from the bias"),
        ("(b - mean)", "b - mean", "before it is multiplied"),
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
    ],
    "my_sign_weights": [
        (".mean(1)", ".amax(1)", "not the largest"),
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
        (".mean(1)", ".square().mean(1).sqrt()", "the root of a mean"),
    ],
}

RIGHT = [
    ("my_straight_through", "torch.where(inside, grad, 0)", "grad * inside"),
    (
        "my_fold",
        "return w * factor.reshape(-1, 1, 1, 1), factor * (b - mean) + beta",
        "return [w * factor.reshape(-1, 1, 1, 1), factor * (b - mean) + beta]",
    ),
]


class TestQuantizationAwareTraining(Suite):
    module, wrong, right = quantization_aware_training, WRONG, RIGHT
