from mnistq.exercises import playground

from .suite import Suite

WRONG = {
    "my_box": [
        ("int(rows[-1]) + 1", "int(rows[-1])", "one more than the last"),
        ("ink.sum(1) > 255", "ink.sum(1) > 0", "speck of 40"),
        ("ink.sum(1) > 255", "ink.sum(1) >= 255", "not more than 255"),
        ("top, bottom, left, right\n", "left, right, top, bottom\n", "Rows come first"),
        ("int(rows[0]), ", "0, ", "whole field's corner"),
        ("ink.sum(1) > 255", "(ink > 127).sum(1) >= 2", "do not count pixels"),
        ("ink.sum(1) > 255", "sum(ink.T) > 255", "in uint8 a sum may wrap"),
        ("int(rows[-1]) + 1", "int(rows[0]) + len(rows)", "A gap inside"),
        (
            "(ink.sum(1) > 255)",
            "(ink[:, ink.sum(0) > 255].sum(1) > 255)",
            "All the ink of a row",
        ),
    ],
    "my_middle": [
        ("float(y), float(x)", "float(x), float(y)", "Rows come first"),
        ("ink = ink.double()", "ink = (ink > 0).double()", "pull more"),
        (
            "(ink.sum(0) * torch.arange(n_columns)).sum() / ink.sum()",
            "(n_columns - 1) / 2",
            "Empty columns",
        ),
        (".arange(n_rows)", ".arange(1, n_rows + 1)", "first row"),
        (
            "/ ink.sum()\n    x =",
            "/ sum(ink.flatten().byte())\n    x =",
            "too much for uint8",
        ),
        ("float(y), float(x)", "round(float(y)), round(float(x))", "between two"),
        ("float(y), float(x)", "int(y), int(x)", "between two"),
        ("ink.double()", "ink.double().clamp(max=1)", "pull more"),
    ],
    "my_disagreements": [
        ("a.argmax(1) != b.argmax(1)", "(a != b).any(1)", "Other scores"),
        ("a.argmax(1) != b.argmax(1)", "a.argmax(0) != b.argmax(0)", "axis 1"),
        (".flatten()", "", "1-d tensor"),
        ("different.nonzero().flatten()", "different", "of no numbers"),
        (".flatten()", ".flatten() + 1", "give its number"),
        (".flatten()", ".flatten()[:1]", "not the first alone"),
        ("a.argmax(1) != b.argmax(1)", "a.argmax(1) < b.argmax(1)", "All pictures"),
        (".flatten()", ".squeeze()", "in a 1-d tensor"),
    ],
}

RIGHT = [
    ("my_box", "int(rows[0]), int(rows[-1]) + 1", "rows[0], rows[-1] + 1"),
    (
        "my_box",
        "int(rows[-1]) + 1",
        "len(ink) - int((ink.sum(1) > 255).flip(0).int().argmax())",
    ),
    ("my_box", "ink.sum(1) > 255", "ink.double().sum(1) >= 256"),
    ("my_box", "return top, bottom, left, right", "return [top, bottom, left, right]"),
    ("my_middle", "float(y), float(x)", "[y, x]"),
    ("my_middle", "ink.double()", "ink.float()"),
    ("my_middle", "float(y), float(x)", "np.float64(y), np.float64(x)"),
    ("my_middle", "ink.double()", "ink.long()"),
    ("my_disagreements", "different.nonzero().flatten()", "torch.where(different)[0]"),
    (
        "my_disagreements",
        "different.nonzero().flatten()",
        "torch.arange(len(a))[different]",
    ),
    (
        "my_disagreements",
        "a.argmax(1) != b.argmax(1)",
        "a.max(1).indices.ne(b.max(1).indices)",
    ),
    (
        "my_disagreements",
        "different.nonzero().flatten()",
        "torch.tensor([n for n, d in enumerate(different) if d])",
    ),
]


class TestPlayground(Suite):
    module, wrong, right = playground, WRONG, RIGHT
