"""Notebook 02: scale, zero point, and back."""

import torch

from mnistq.exercises.judge import judge
from mnistq.quantizers import QTensor, dequantize_tensor, quantize_tensor
from mnistq.weights import quantize_weight


def my_quantize(answer):
    """Exercise 02.1: the codes of a list of floats on its own grid."""

    def reference(x, bits):
        return quantize_tensor(torch.tensor(x), bits).tensor.tolist()

    cases = [
        (([0.0, 1.0], 1), "The codes go from 0 to 2**bits - 1."),
        (
            ([0.0, 4.0, 6.0], 2),
            "Divide by the scale, (max - min) / (2**bits - 1).",
        ),
        (([0.0, 0.6, 1.0], 1), "Codes are rounded to the nearest, not down."),
        (([0.0, 0.5, 1.0], 1), "Ties go to the even code, as in torch."),
        (([0.0, 1.5, 3.0], 2), "Add nothing to the scale: it moves ties."),
        (([0.0], 8), "A range of width 0 must not divide by zero."),
        (
            ([-1.0, 0.0], 2),
            "The zero point is the code that stands for 0; add it before you clamp.",
        ),
        (([-1.0, -0.5, 0.0], 1), "Round before the zero point is added."),
        (([5.0, 6.0], 8), "The range must be widened until it holds 0."),
        (([-6.0, -4.0], 8), "The range must be widened until it holds 0."),
        (
            ([2.0, 2.0], 2),
            "Equal numbers are no special case: widened, their range has a width.",
        ),
        (([-0.6, 0.0, 0.4], 2), "The zero point must be rounded, not cut."),
        (([-0.5, 2.5], 2), "The zero point's ties go to the even code, too."),
        (([-1.5, 1.5], 2), "Codes must be clamped to 0 and 2**bits - 1."),
        (([-1.0, -0.3, 0.0, 0.2, 0.9], 4), "All of it together."),
        (([-1.0, -0.3, 0.0, 0.2, 0.9], 8), "All of it together."),
    ]
    praise = (
        "You have written a quantizer: it widens, rounds its zero point, and "
        "clamps last. What it cannot do is undo a badly chosen range."
    )
    judge(answer, reference, cases, praise)


def my_dequantize(answer):
    """Exercise 02.2: what uint8 codes with a grid for each row stand for."""

    def reference(q, scale, zero_point):
        return dequantize_tensor(QTensor(q, scale, zero_point, 0))

    def case(q, scale, zero_point):
        q = torch.tensor(q, dtype=torch.uint8)
        zero_point = torch.tensor(zero_point, dtype=torch.uint8)
        return q, torch.tensor(scale), zero_point

    cases = [
        (
            case([[3]], [0.5], [0]),
            "x = scale * (q - zero_point), in floats, of q's shape.",
        ),
        (case([[3]], [0.5], [1]), "The zero point is taken away, not added."),
        (case([[1]], [0.5], [3]), "uint8 minus uint8 wraps: widen first."),
        (
            case([[4, 4], [4, 4]], [1.0, 10.0], [0, 0]),
            "Each scale belongs to a row, along axis 0.",
        ),
        (
            case([[4, 4], [4, 4]], [1.0, 1.0], [0, 3]),
            "Each zero point belongs to a row, along axis 0.",
        ),
        (
            case([[255, 0]], [0.5], [200]),
            "Codes and zero points go to 255: in int8 those above 127 wrap.",
        ),
        (
            case([[[[2, 2]]], [[[6, 6]]]], [0.1, 1.0], [3, 3]),
            "A kernel has four axes, not two; its grids go along axis 0.",
        ),
        (case([[4, 5, 6], [7, 8, 9]], [1.0, 0.5], [5, 8]), "All together."),
    ]
    praise = (
        "Widen, take the zero point away, multiply; the grids go along axis 0 "
        "whatever the shape. Published code gets the sign and the axis wrong."
    )
    judge(answer, reference, cases, praise)


def my_scales(answer):
    """Exercise 02.3: the symmetric scale of each output channel of a kernel."""

    def reference(w, bits):
        return quantize_weight(w, bits).scale

    cases = [
        (
            (torch.tensor([[5.0], [5.0]]), 8),
            "Give one scale for each row; signed codes of 8 bits end at 127.",
        ),
        ((torch.tensor([[6.0]]), 2), "The codes end at 2**(bits - 1) - 1, here at 1."),
        (
            (torch.tensor([[6.0, 1.0], [1.0, -6.0]]), 2),
            "The largest weight counts, whatever its sign.",
        ),
        (
            (torch.tensor([[1.0, 2.0], [3.0, 30.0]]), 8),
            "A row's scale comes from its own largest weight.",
        ),
        (
            (torch.arange(24.0).reshape(3, 2, 2, 2), 8),
            "A kernel has four axes: take the maximum over all but the first.",
        ),
        (
            (torch.tensor([[0.0, 0.0], [7.0, 0.0]]), 4),
            "A row of zeros gets the scale 1: by a scale of 0 nothing can be divided.",
        ),
    ]
    praise = (
        "One outlier now spoils the scale of its own channel and no other: "
        "the reason why weights are quantized per channel."
    )
    judge(answer, reference, cases, praise)
