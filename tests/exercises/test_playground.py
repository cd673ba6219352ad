from mnistq.exercises import playground

from .suite import Suite

WRONG = {
    "my_fewest_bits": [
        ("fewest = 32", "fewest = 8", "that is 32"),
        ("fewest = 32", "fewest = 0", "that is 32"),
        ("            break", "            continue", "is luck"),
        ("sorted(answers, reverse=True)", "sorted(answers)", "8 are the fewest"),
        ("sorted(answers, reverse=True)", "answers", "in any order"),
        ("sorted(answers, reverse=True)", "range(8, 0, -1)", "no fewer"),
        ("answers[bits] != label", "answers[bits] == label", "8 are the fewest"),
        ("    return fewest", "    return fewest - 1", "8 are the fewest"),
        ("            break", "            return bits", "8 are the fewest"),
        ("answers[bits] != label", "not answers[bits]", "8 are the fewest"),
        ("        fewest = bits", "        fewest = min(8, fewest - 1)", "one of the"),
        (
            "            break\n        fewest = bits\n    return fewest",
            "            return fewest\n        fewest = bits",
            "and there are no fewer",
        ),
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
        (
            "a.argmax(1) != b.argmax(1)",
            "(a.argsort(1) != b.argsort(1)).any(1)",
            "what comes after the highest",
        ),
    ],
}

RIGHT = [
    ("my_fewest_bits", "sorted(answers, reverse=True)", "sorted(answers)[::-1]"),
    (
        "my_fewest_bits",
        "sorted(answers, reverse=True)",
        "sorted(answers.keys(), key=lambda bits: -bits)",
    ),
    (
        "my_fewest_bits",
        "            break",
        "            return fewest",
    ),
    ("my_fewest_bits", "    return fewest", "    return np.int64(fewest)"),
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
