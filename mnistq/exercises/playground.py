"""Notebook 13: the playground."""

import torch

from mnistq.exercises.judge import judge


def my_box(answer):
    """Exercise 13.1: the rows and columns with more ink than one pixel's."""

    def reference(ink):
        ends = []
        for lines in (ink.tolist(), ink.T.tolist()):
            full = [number for number, line in enumerate(lines) if sum(line) > 255]
            ends += [min(full), max(full) + 1]
        return tuple(ends)

    def case(*rows):
        return (torch.tensor(rows, dtype=torch.uint8),)

    cases = [
        (
            case([200, 200], [200, 200]),
            "Give top, bottom, left, right, from the sums of the rows and of "
            "the columns (in uint8 a sum may wrap); bottom and right are one "
            "more than the last that counts.",
        ),
        (
            case([0, 0, 0], [0, 200, 200], [0, 200, 200]),
            "Numbers are counted from the whole field's corner.",
        ),
        (
            case([0, 200, 200], [0, 200, 200], [0, 200, 200], [0, 0, 0]),
            "Rows come first: top and bottom, then left and right.",
        ),
        (
            case([200, 200, 0], [200, 200, 0], [0, 0, 40]),
            "A speck of 40 in a row and a column of its own does not count.",
        ),
        (
            case([200, 200, 0], [200, 200, 0], [0, 0, 255]),
            "Exactly 255 is not more than 255.",
        ),
        (
            case([90, 90, 90], [90, 90, 90], [90, 90, 90], [40, 40, 40]),
            "Add up the ink, do not count pixels.",
        ),
        (
            case([200, 0, 60], [100, 0, 0]),
            "All the ink of a row counts, also where a column does not.",
        ),
        (
            case([200, 0, 200, 40], [0, 0, 0, 0], [200, 0, 200, 0]),
            "A gap inside belongs to the box, a speck beside it does not.",
        ),
    ]
    praise = (
        "The speck is gone, and with it every faint edge: what is cleaned "
        "before the network is lost for the network."
    )
    judge(answer, reference, cases, praise)


def my_middle(answer):
    """Exercise 13.2: the centre of mass (y, x)."""

    def reference(ink):
        places = [
            (y, x, amount)
            for y, row in enumerate(ink.tolist())
            for x, amount in enumerate(row)
        ]
        mass = sum(amount for _, _, amount in places)
        y = sum(y * amount for y, _, amount in places) / mass
        return float(y), float(sum(x * amount for _, x, amount in places) / mass)

    def case(*rows):
        return (torch.tensor(rows, dtype=torch.uint8),)

    cases = [
        (case([1]), "The first row and the first column are 0."),
        (case([0], [1]), "Rows come first: (y, x). Divide by all the ink."),
        (
            case([1, 1, 0, 0]),
            "Empty columns do not pull: divide by the ink. The middle may lie "
            "between two pixels.",
        ),
        (case([3, 0, 1]), "Dark pixels pull more than faint ones."),
        (
            case([200, 0], [200, 200]),
            "Ink adds up to more than 255: too much for uint8.",
        ),
        (case([0, 9, 0, 7], [1, 2, 3, 4], [250, 0, 0, 250]), "All together."),
    ]
    praise = (
        "So MNIST placed its pictures, and a network that never saw others "
        "needs yours placed the same way."
    )
    judge(answer, reference, cases, praise)


def my_disagreements(answer):
    """Exercise 13.3: the pictures that two networks read differently."""

    def reference(a, b):
        pairs = enumerate(zip(a.tolist(), b.tolist(), strict=True))
        found = [n for n, (x, y) in pairs if x.index(max(x)) != y.index(max(y))]
        return torch.tensor(found, dtype=torch.int64)

    def case(a, b):
        return torch.tensor(a), torch.tensor(b)

    cases = [
        (
            case([[0.0, 1.0]], [[0.0, 0.9]]),
            "Other scores, the same digit: a 1-d tensor of no numbers.",
        ),
        (
            case([[5.0, 6.0], [1.0, 0.0]], [[5.0, 6.0], [7.0, 0.0]]),
            "A row is a picture: compare along axis 1.",
        ),
        (
            case([[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]),
            "Picture 1 is read differently: give its number, in a 1-d tensor.",
        ),
        (
            case(
                [[1.0, 0.0, 0.5], [1.0, 0.0, 0.5], [0.0, 0.5, 1.0]],
                [[0.0, 1.0, 0.5], [2.0, 1.0, 0.0], [1.0, 0.0, 0.5]],
            ),
            "All pictures that differ, not the first alone.",
        ),
    ]
    praise = (
        "Two networks can have the same accuracy and still part on some "
        "pictures: compare answers, not scores and not accuracies."
    )
    judge(answer, reference, cases, praise)
