from mnistq.exercises import your_own

from .suite import Suite

WRONG = {
    "my_pooled": [
        ("gamma < 0", "gamma < -9", "turned the order around"),
        ("gamma < 0", "gamma < 1", "below 1 turns nothing"),
        ("gamma < 0", "gamma < -0.5", "even for a small gamma"),
        ("gamma < 0", "gamma[0] < 0", "gamma of its own"),
        ("folded.amax(1)", "folded.abs().amax(1)", "not the largest absolute"),
        ("folded.amin(1)", "folded[:, 0]", "wherever it stands"),
        ("folded.amin(1)", "folded.abs().amin(1)", "not the smallest absolute"),
        ("folded.amax(1)", "folded.amax()", "One number for each channel"),
        (
            "folded.amin(1), folded.amax(1)",
            "folded.amax(1), folded.amin(1)",
            "the largest",
        ),
        (
            "folded.amin(1), folded.amax(1)",
            "folded.argmin(1), folded.argmax(1)",
            "not the place",
        ),
        (
            "gamma < 0, folded.amin(1), folded.amax(1)",
            "gamma[:, None] < 0, folded.amin(1, True), folded.amax(1, True)",
            "in another shape",
        ),
        (
            "folded.amin(1), folded.amax(1)",
            "folded.amin(0), folded.amax(0)",
            "along the second axis",
        ),
        (
            "torch.where(gamma < 0, folded.amin(1), folded.amax(1))",
            "(folded * gamma.sign()[:, None]).amax(1)",
            "the sign of gamma on it",
        ),
        ("folded.amax(1))", "folded.amax(1)) * gamma", "already"),
        ("folded.amax(1))", "folded.amax(1)) / gamma", "already"),
    ],
    "my_add": [
        ("a = sa * (qa.int() - za)", "a = qa.int() - za", "a has a scale"),
        ("b = sb * (qb.int() - zb)", "b = qb.int() - zb", "b has a scale"),
        ("(qa.int() - za)", "qa.int()", "a has a zero point"),
        ("(qb.int() - zb)", "qb.int()", "b has a zero point"),
        ("(a + b) / s", "(a + b)", "The sum has a scale"),
        (") + z\n", ")\n", "The sum has a zero point"),
        ("torch.round((a + b) / s)", "torch.floor((a + b) / s)", "do not cut off"),
        (
            "torch.round((a + b) / s)",
            "torch.round(a / s) + torch.round(b / s)",
            "Round once",
        ),
        ("q.clamp(0, 255)", "q.clamp(min=0).int()", "becomes 255"),
        ("q.clamp(0, 255)", "q.clamp(max=255).int()", "becomes 0"),
        ("q.clamp(0, 255).to(torch.uint8)", "q.clamp(-128, 127)", "above 127 is like"),
        (
            "a = sa * (qa.int() - za)\n    b = sb * (qb.int() - zb)",
            "a = sa * (qa - za)\n    b = sb * (qb - zb)",
            "wraps around",
        ),
        ("b = sb *", "b = sa *", "b has a scale"),
        ("a = sa *", "a = sb *", "a has a scale"),
        ("qb.int() - zb", "qb.int() - za", "b has a zero point of"),
        ("qa.int() - za", "qa.int() - zb", "a has a zero point of"),
        ("sb * (qb.int() - zb)", "sa * (qb.int() - za)", "b has a grid"),
        ("torch.round((a + b) / s)", "((a + b) / s + 0.5).floor()", "to the even"),
        ("torch.round((a + b) / s) + z", "torch.round((a + b) / s + z)", "before the"),
    ],
    "my_culprit": [
        ("return name", "return ratio", "Give the name"),
        ("return name", "return list(own).index(name)", "Give the name"),
        ("ratio < limit", "True", "first tensor that is below"),
        ("ratio < limit", "ratio > limit", "first tensor that is below"),
        ("in own.items()", "in reversed(own.items())", "not the worst"),
        ("in own.items()", "in sorted(own.items())", "not of the names"),
        (
            "in own.items()",
            "in sorted(own.items(), key=lambda x: x[1])",
            "not the worst",
        ),
        ("ratio < limit", "ratio <= limit", "is not below it"),
        ("ratio < limit", "abs(ratio) < limit", "below 0 dB"),
        ("ratio < limit", "ratio < 9", "limit that is given"),
        ("return None", "return name", "Nothing breaks"),
        ("ratio < limit", "ratio < limit < max(own.values())", "The very first may"),
        ("return None", 'return ""', "Nothing breaks"),
    ],
}

RIGHT = [
    ("my_pooled", "gamma < 0", "torch.signbit(gamma)"),
    ("my_pooled", "folded.amin(1)", "-(-folded).amax(1)"),
    ("my_pooled", "folded.amax(1)", "folded.max(1).values"),
    ("my_pooled", "folded.amax(1)", "folded.sort(1).values[:, -1]"),
    ("my_add", "qa.int()", "qa.double()"),
    ("my_add", "q.clamp(0, 255)", "q.clamp(min=0).clamp(max=255)"),
    ("my_add", "torch.round((a + b) / s)", "((a + b) / s).round()"),
    ("my_add", "(a + b) / s", "(b + a) / s"),
    ("my_culprit", "ratio < limit", "not ratio >= limit"),
    ("my_culprit", "    return None", "    pass"),
    ("my_culprit", "ratio < limit", "limit - ratio > 0"),
    ("my_culprit", "name, ratio in own.items()", "name, ratio in list(own.items())"),
]


class TestYourOwn(Suite):
    module, wrong, right = your_own, WRONG, RIGHT
