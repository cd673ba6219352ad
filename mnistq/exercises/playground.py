"""Notebook 13: the playground."""

import torch

from mnistq.exercises.judge import judge


def my_fewest_bits(answer):
    """Exercise 13.1: the fewest bits that read a drawing, with all more bits."""

    def reference(answers, label):
        safe = [
            bits
            for bits in answers
            if all(answers[more] == label for more in answers if more >= bits)
        ]
        return min(safe, default=32)

    cases = [
        (({8: 7, 7: 1}, 7), "8 bits read it and 7 misread it: 8 are the fewest."),
        (({8: 7}, 7), "8 bits read it, and there are no fewer."),
        (({8: 7, 7: 7}, 7), "7 bits read it as well: they are fewer."),
        (({8: 1, 7: 1}, 7), "Nobody reads it: that is 32, float's."),
        (({8: 1, 7: 7}, 7), "8 bits misread it: that 7 bits do not is luck."),
        (
            ({8: 9, 6: 9, 3: 9, 1: 4}, 9),
            "The answer is one of the bits that were tried.",
        ),
        (({8: 3, 4: 3, 2: 8, 1: 3}, 3), "1 bit reads it after 2 bits did not: luck."),
        (({1: 0, 2: 5, 8: 5, 4: 5}, 5), "The bits may come in any order."),
        (({8: 0, 4: 0, 2: 0, 1: 0}, 0), "A 0 is a digit like any other."),
    ]
    praise = (
        "So every digit has its own cliff. Those of a test set together make the "
        "curve of accuracy against bits."
    )
    judge(answer, reference, cases, praise)


def my_disagreements(answer):
    """Exercise 13.2: the pictures that two networks read differently."""

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
            case([[3.0, 2.0, 1.0]], [[3.0, 1.0, 2.0]]),
            "Both read 0: what comes after the highest score does not matter.",
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
