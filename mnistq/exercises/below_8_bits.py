"""Notebook 07: fewer than 8 bits."""

from fractions import Fraction

import torch

from mnistq.exercises.judge import judge
from mnistq.files import pack_codes, unpack_codes
from mnistq.low_bits import mse_weight_scale
from mnistq.quantizers import code_range


def my_unpack(answer):
    """Exercise 07.1: the codes that lie packed in bytes."""

    def reference(packed, bits, count):
        return unpack_codes(packed, bits, count).tolist()

    def case(codes, bits):
        return pack_codes(torch.tensor(codes), bits), bits, len(codes)

    cases = [
        (
            case([0, 3, 3, 0], 2),
            "A code is bits wide: mask away the others that share its byte.",
        ),
        (case([1, 0, 3, 2], 2), "The first code lies in the lowest bits."),
        (
            case([1, 2, 2, 1, 2, 1, 1, 2], 2),
            "The first byte holds the first codes.",
        ),
        (
            case([3, 0, 2], 2),
            "A last byte may end in padding: only count codes are codes.",
        ),
        (
            case([1, 2, 5], 3),
            "A code may begin in one byte and end in the next.",
        ),
        (case([1, 0, 1, 1, 0, 0, 1, 0, 1], 1), "All of it together."),
        (case([31, 0, 17, 5, 9, 30, 2], 5), "All of it together."),
        (case([200, 7], 8), "All of it together."),
        (
            case([1, 2, 3, 4, 5, 6, 7, 8, 9], 8),
            "Nine bytes do not fit into an int64.",
        ),
    ]
    praise = (
        "The bytes are one long binary number, and where a byte ends means "
        "nothing to a code. So 3 bits pack as tightly as 4."
    )
    judge(answer, reference, cases, praise)


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
        "the inputs' covariance between w and q it is equation 7.4."
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
            case([[-0.4, 0.8]], [[27.0, 18.0], [18.0, 18.0]], 2),
            "The column with the largest h[i, i] is rounded first. Give codes.",
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
