"""Notebook 11: your own network."""

import torch

from mnistq.exercises.judge import judge


def my_pooled(answer):
    """Exercise 11.1: max pooling, then a batch norm whose gamma may be negative."""

    def reference(folded, gamma):
        """The number of the window that was the largest before it was folded."""
        pooled = []
        for row, g in zip(folded.tolist(), gamma.tolist(), strict=True):
            pooled.append(max(row, key=lambda x, g=g: x * (-1 if g < 0 else 1)))
        return torch.tensor(pooled)

    def case(folded, gamma):
        return torch.tensor(folded), torch.tensor(gamma)

    cases = [
        (case([[1.0, 3.0]], [2.0]), "With a positive gamma: the largest."),
        (
            case([[1.0, 3.0], [4.0, 2.0]], [1.0, 1.0]),
            "One number for each channel, [channels].",
        ),
        (
            case([[1.0, 3.0]], [-2.0]),
            "A negative gamma turned the order around: what was the largest is now "
            "the smallest.",
        ),
        (case([[3.0, 1.0]], [-2.0]), "The smallest, wherever it stands."),
        (
            case([[1.0, 3.0], [1.0, 3.0]], [-1.0, 1.0]),
            "Each channel has a gamma of its own.",
        ),
        (
            case([[1.0, -3.0]], [2.0]),
            "It is the largest, not the largest absolute value.",
        ),
        (
            case([[-1.0, -3.0]], [-2.0]),
            "It is the smallest, not the smallest absolute value.",
        ),
        (case([[-1.0, -3.0]], [0.5]), "A gamma below 1 turns nothing around."),
        (
            case([[1.0, 2.0, 3.0]], [-0.1]),
            "The smallest of all, even for a small gamma.",
        ),
        (case([[1.0, 7.0], [5.0, -2.0]], [-2.0, 3.0]), "All of it together."),
    ]

    def chosen(folded, gamma, axis=1, **options):
        low, high = (f(folded, axis, **options) for f in (torch.amin, torch.amax))
        shape = [len(gamma), *[1] * (low.dim() - 1)]
        return torch.where(gamma.reshape(shape) < 0, low, high)

    def place(folded, gamma):
        return torch.where(gamma < 0, folded.argmin(1), folded.argmax(1))

    each = "One number for each channel, [channels], not one for all."
    again = "folded is gamma * x + beta already: give its number as it is."
    mistakes = [
        (place, "Give the number, not the place where it stands."),
        (
            lambda folded, gamma: chosen(folded, gamma, keepdim=True),
            "The right numbers in another shape: give [channels], not [channels, 1].",
        ),
        (
            lambda folded, gamma: chosen(folded, gamma, axis=0),
            "A window is a row: look for the largest along the second axis.",
        ),
        (lambda folded, gamma: folded.max(), each),
        (lambda folded, gamma: folded.max() if gamma[0] > 0 else folded.min(), each),
        (
            lambda folded, gamma: (folded * gamma.sign()[:, None]).amax(1),
            "The right one, with the sign of gamma on it: give it as it was.",
        ),
        (lambda folded, gamma: chosen(folded, gamma) * gamma, again),
        (lambda folded, gamma: chosen(folded, gamma) / gamma, again),
    ]
    praise = (
        "A batch norm behind the pooling cannot simply be folded into the layer "
        "before it: where gamma is negative, the pooling would take another pixel."
    )
    judge(answer, reference, cases, praise, mistakes)


def my_add(answer):
    """Exercise 11.2: the codes of a sum of two tensors with different scales."""

    def reference(qa, grid_a, qb, grid_b, grid_out):
        (sa, za), (sb, zb), (s, z) = grid_a, grid_b, grid_out
        codes = []
        for a, b in zip(qa.tolist(), qb.tolist(), strict=True):
            q = round((sa * (a - za) + sb * (b - zb)) / s) + z
            codes.append(min(max(q, 0), 255))
        return torch.tensor(codes, dtype=torch.uint8)

    def case(qa, grid_a, qb, grid_b, grid_out):
        qa, qb = (torch.tensor(q, dtype=torch.uint8) for q in (qa, qb))
        return qa, grid_a, qb, grid_b, grid_out

    one = (1.0, 0)
    cases = [
        (case([10], one, [20], one, one), "The sum of the two."),
        (case([10], (2.0, 0), [20], one, one), "a has a scale of its own."),
        (case([10], one, [20], (0.5, 0), one), "b has a scale of its own."),
        (case([10], one, [20], one, (2.0, 0)), "The sum has a scale of its own."),
        (case([10], (1.0, 4), [20], one, one), "a has a zero point to take away."),
        (case([10], one, [20], (1.0, 4), one), "b has a zero point to take away."),
        (case([10], one, [20], one, (1.0, 7)), "The sum has a zero point to add."),
        (
            case([200], one, [100], one, (2.0, 0)),
            "A code above 127 is like any other: uint8 ends at 255.",
        ),
        (case([12], one, [19], one, (4.0, 0)), "Round to the nearest, do not cut off."),
        (
            case([1], (0.3, 0), [1], (0.3, 0), one),
            "Round once, after both are added: rounding each of them errs twice.",
        ),
        (
            case([1], one, [0], one, (2.0, 1)),
            "A half goes to the even number, and before the zero point is added.",
        ),
        (case([200], one, [100], one, one), "What lies above 255 becomes 255."),
        (
            case([3], (1.0, 9), [1], (1.0, 8), (1.0, 2)),
            "What lies below 0 becomes 0, after the zero point is added.",
        ),
        (
            case([10, 0, 255], (0.5, 3), [20, 9, 255], (0.25, 8), (0.75, 5)),
            "All of it together.",
        ),
    ]

    def narrow(qa, grid_a, qb, grid_b, grid_out):
        (sa, za), (sb, zb), (s, z) = grid_a, grid_b, grid_out
        q = torch.round((sa * (qa - za) + sb * (qb - zb)) / s) + z
        return q.clamp(0, 255).to(torch.uint8)

    def exchanged(a_from, b_from):
        """An answer that takes (scale, zero point) of a and b from those numbers."""

        def wrong(qa, grid_a, qb, grid_b, grid_out):
            grids = grid_a, grid_b
            a, b = (
                (grids[scale][0], grids[zero][1]) for scale, zero in (a_from, b_from)
            )
            return reference(qa, a, qb, b, grid_out)

        return wrong

    mistakes = [
        (
            narrow,
            "uint8 minus the zero point wraps around, 3 - 9 is 250: widen codes first.",
        ),
        (exchanged((0, 0), (0, 1)), "b has a scale of its own."),
        (exchanged((1, 0), (1, 1)), "a has a scale of its own."),
        (exchanged((0, 0), (1, 0)), "b has a zero point of its own."),
        (exchanged((0, 1), (1, 1)), "a has a zero point of its own."),
        (exchanged((0, 0), (0, 0)), "b has a grid of its own."),
    ]
    praise = (
        "That is a residual addition in real numbers; an engine takes two integer "
        "multipliers in place of the two quotients of scales."
    )
    judge(answer, reference, cases, praise, mistakes)


def my_culprit(answer):
    """Exercise 11.3: the first tensor whose own step breaks."""

    def reference(own, limit):
        return next((n for n, ratio in own.items() if not ratio >= limit), None)

    cases = [
        (
            ({"conv1": 30.0, "fc1": 3.0}, 9),
            "Give the name of the first tensor that is below the limit.",
        ),
        (({"conv1": 3.0}, 9), "The very first may be below the limit: give its name."),
        (
            ({"conv1": 30.0, "fc1": 3.0, "fc2": 30.0}, 9),
            "What comes later may be sound again.",
        ),
        (
            ({"conv1": 30.0, "fc1": 5.0, "fc2": 2.0}, 9),
            "The first one, not the worst: the later one may suffer from it.",
        ),
        (
            ({"stem": 5.0, "fc": 4.0}, 9),
            "In the order of computation, not of the names.",
        ),
        (({"conv1": 9.0, "fc1": 5.0}, 9), "At the limit is not below it."),
        (({"conv1": -3.0, "fc1": 5.0}, 2), "A ratio below 0 dB is as bad as it looks."),
        (({"conv1": 8.0, "fc1": 5.0}, 6), "Take the limit that is given."),
        (({"conv1": 30.0, "fc1": 12.0}, 9), "Nothing breaks: None."),
    ]
    praise = (
        "The doctor does this first. If no step is below the limit by itself, it takes "
        "the worst one up to where the errors of all of them together are."
    )
    judge(answer, reference, cases, praise)
