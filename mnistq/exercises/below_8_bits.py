"""Notebook 07: fewer than 8 bits."""

import math
from fractions import Fraction

import torch

from mnistq.exercises.judge import judge
from mnistq.low_bits import mse_weight_scale
from mnistq.quantizers import code_range


def my_ternary_scale(answer):
    """Exercise 07.1: each row's best scale for the codes -1, 0 and 1, exactly."""

    def reference(w):
        scales = []
        for row in w.tolist():
            sizes = sorted(map(abs, row))
            tries = []
            for k in range(len(sizes)):  # the k smallest get the code 0
                s = math.fsum(sizes[k:]) / len(sizes[k:])
                error = sum((x - s) ** 2 for x in sizes[k:])
                tries.append((error + sum(x * x for x in sizes[:k]), s))
            scales.append(min(tries)[1])
        return torch.tensor(scales)

    cases = [
        (
            [[2.0], [3.0]],
            "Give a vector with one scale for each row. A single weight is its own "
            "scale (argmax counts from 0).",
        ),
        ([[-2.0]], "Take magnitudes: a negative weight has the code -1."),
        (
            [[3.0, 3.0]],
            "For k codes the best scale is the mean of their k magnitudes, not the "
            "sum, and what they explain is the sum squared, by k.",
        ),
        (
            [[4.0, 0.5]],
            "A weight that is better rounded to 0 has no say in the scale.",
        ),
        (
            [[4.0, 3.0]],
            "The largest weight alone is not the best: try every k.",
        ),
        ([[0.5, 4.0]], "Sort: the codes 1 and -1 go to the k largest, wherever."),
        ([[3.0, 2.0]], "The exact mean is asked for, not the nearest of some tries."),
        (
            [[4.0, 3.0], [4.0, 0.5]],
            "How many weights of a row get a code is that row's own matter.",
        ),
        (
            [[8.0, 6.0, 10.0, 4.0]],
            "No fixed threshold: compare the errors of all k.",
        ),
        (
            [[7.0, 3.0, 2.0]],
            "A scale that is improved step by step may stop too early, at 7 or at 4: "
            "compare the errors of all k.",
        ),
        ([[0.3, -0.2, 0.05, -0.31], [1.5, 0.0, -1.0, 0.9]], "All of it together."),
    ]
    praise = (
        "The scale and the threshold belong together: what is at least half the "
        "scale gets a code, and no other pair is consistent and better."
    )
    judge(answer, reference, [((torch.tensor(w),), why) for w, why in cases], praise)


def my_best_scale(answer):
    """Exercise 07.2: the scale of least squares for each row's codes."""

    def reference(w, q):
        scales = []
        for row, codes in zip(w.tolist(), q.tolist(), strict=True):
            above = sum(Fraction(x) * k for x, k in zip(row, codes, strict=True))
            scales.append(float(above / sum(k * k for k in codes)))
        return torch.tensor(scales)

    def case(w, q):
        return torch.tensor(w), torch.tensor(q, dtype=torch.int8)

    cases = [
        (case([[1.0], [1.0]], [[1], [1]]), "Give a vector, one scale a row."),
        (
            case([[3.0]], [[2]]),
            "The scale is a weight per code: sum(q * q) stands below.",
        ),
        (
            case([[0.5, 4.0]], [[0, 2]]),
            "A code of 0 says nothing about the scale: its weight has no say, "
            "and nothing is divided by 0.",
        ),
        (
            case([[5.0, 1.0]], [[2, 1]]),
            "A large code has more say than a small one, since errors count "
            "squared: this is no mean of w / q.",
        ),
        (
            case([[3.0, -0.5]], [[1, 1]]),
            "A code may have another sign than its weight: keep the signs.",
        ),
        (case([[-3.0, 1.0]], [[1, 0]]), "So may the scale: take no magnitude of it."),
        (
            case([[4.0, 2.0], [8.0, 9.0]], [[2, 1], [1, 1]]),
            "A row's scale comes from its own weights and codes.",
        ),
        (
            case([[100.0, 200.0]], [[50, 100]]),
            "int8 times int8 wraps: widen the codes first.",
        ),
        (
            case([[0.3, -0.2, 0.05], [1.5, 0.0, -1.0]], [[2, -1, 0], [1, 0, -1]]),
            "All of it together.",
        ),
    ]
    praise = (
        "Once the codes are fixed the scale is no search but a fraction. With "
        "the inputs' covariance between w and q it is equation 7.5."
    )
    judge(answer, reference, cases, praise)


def my_act_order(answer):
    """Exercise 07.3: GPTQ's codes, the columns of large h[i, i] first."""

    def reference(w, h, bits):
        """Equation 7.7 as it stands, with a new inverse for each column."""
        low, high = code_range(bits, signed=True)
        scale = mse_weight_scale(w, bits).double()
        h, rest, codes = h.double(), w.double(), torch.zeros_like(w).char()
        h = h + 0.01 * h.diagonal().mean() * torch.eye(len(h))
        left = list(range(len(h)))
        while left:
            i = max(left, key=lambda j: float(h[j, j]))
            g = torch.linalg.inv(h[left][:, left])[left.index(i)]
            q = (rest[:, i] / scale).round().clamp(low, high)
            error = (rest[:, i] - scale * q) / g[left.index(i)]
            rest[:, left] -= error.outer(g)
            codes[:, i] = q.long()
            left.remove(i)
        return codes

    def case(w, h, bits):
        return torch.tensor(w), torch.tensor(h), bits

    cases = [
        (
            case([[0.9, -0.3]], [[2.0, 0.0], [0.0, 1.0]], 3),
            "Give the codes, as whole numbers: not weights, and not floats.",
        ),
        (
            case([[-0.4, 0.8]], [[27.0, 18.0], [18.0, 18.0]], 2),
            "The column with the largest h[i, i] is rounded first.",
        ),
        (
            case(
                [[-0.4, 0.5, 0.1]],
                [[20.0, 10.0, 4.0], [10.0, 11.0, 4.0], [4.0, 4.0, 3.0]],
                3,
            ),
            "Leave gptq's damping as it is, 0.01.",
        ),
        (
            case([[-0.9, -0.3]], [[2.0, 6.0], [6.0, 27.0]], 2),
            "Sort the columns of w, and both the rows and the columns of h.",
        ),
        (
            case([[0.9, -0.3]], [[1.0, 0.0], [0.0, 2.0]], 3),
            "The codes must go back to their columns' places.",
        ),
        (
            case(
                [[0.9, 0.3, -0.6]],
                [[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]],
                3,
            ),
            "Sort back with the inverse of the order, not with the order.",
        ),
        (
            case(
                [[0.8, -0.7, -0.1]],
                [[14.0, 7.0, 10.0], [7.0, 5.0, 1.0], [10.0, 1.0, 19.0]],
                3,
            ),
            "The diagonal decides, and argsort gives the order, not the ranks.",
        ),
        (
            case(
                [[0.8, -0.9, -0.4]],
                [[13.0, 2.0, -2.0], [2.0, 12.0, 10.0], [-2.0, 10.0, 17.0]],
                3,
            ),
            "The diagonal of h decides, not how large its rows are.",
        ),
        (
            case(
                [[-0.7, -0.7, 0.8]],
                [[10.0, 5.0, 13.0], [5.0, 11.0, 6.0], [13.0, 6.0, 23.0]],
                3,
            ),
            "The diagonal of h decides, not how large its rows are.",
        ),
        (
            case(
                [[-0.3, 0.7, -0.2]],
                [[15.0, -1.0, -4.0], [-1.0, 3.0, 2.0], [-4.0, 2.0, 4.0]],
                3,
            ),
            "Leave gptq's damping as it is, 0.01.",
        ),
        (
            case(
                [[0.9, -0.2, 0.2]],
                [[6.0, 3.0, 6.0], [3.0, 15.0, -7.0], [6.0, -7.0, 18.0]],
                3,
            ),
            "Leave gptq's damping as it is, 0.01.",
        ),
        (
            case(
                [[0.9, -0.2, 1.8]],
                [[10.0, 12.0, 8.0], [12.0, 23.0, 16.0], [8.0, 16.0, 13.0]],
                3,
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "What matters most is now rounded while all others can still make up "
        "for it. The codes are as many and as large as before: it is free."
    )
    judge(answer, reference, cases, praise)
