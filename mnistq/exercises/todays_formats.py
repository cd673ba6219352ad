"""Notebook 12: today's formats."""

import math
from fractions import Fraction
from statistics import NormalDist

import torch

from mnistq.exercises.judge import judge
from mnistq.formats import int_groups
from mnistq.quantizers import snr_db


def my_normal_float(answer):
    """Exercise 12.1: the numbers of NF4, and of its kin with other bits."""

    def reference(bits):
        n, normal = 2**bits, NormalDist()
        p = 1 - (1 / (2 * n) + 1 / (2 * n - 2)) / 2
        up = [0.5 + (p - 0.5) * (i + 1) / (n // 2) for i in range(n // 2)]
        down = [0.5 + (p - 0.5) * i / (n // 2 - 1) for i in range(1, n // 2)]
        above = list(map(normal.inv_cdf, up))
        below = [-normal.inv_cdf(q) for q in reversed(down)]
        return [x / above[-1] for x in (*below, 0.0, *above)]

    def listed(bits):
        given = answer(bits)
        return given.tolist() if isinstance(given, torch.Tensor) else given

    if not callable(answer):
        judge(answer, reference, [], "")
        return
    listed.__name__ = getattr(answer, "__name__", "my_normal_float")
    cases = [
        (
            (2,),
            "Four numbers in rising order: one negative, 0 and two positive, the "
            "largest 1. One fewer are negative, in wider steps to the same p, and p "
            "is computed from n.",
        ),
        (
            (4,),
            "The steps are equal in probability, from 1/2 to p; rising from -1 to 1.",
        ),
        ((3,), "So it is for every number of bits."),
    ]
    praise = (
        "No number was typed: sixteen quantiles of the normal distribution, with a 0 "
        "that is exact. Weights that are distributed otherwise have other best tables."
    )
    judge(listed, reference, cases, praise)


def my_mxfp4(answer):
    """Exercise 12.2: a block as MXFP4 stores it."""
    numbers = [Fraction(k, 2) for k in (0, 1, 2, 3, 4, 6, 8, 12)]

    def reference(x):
        values = [Fraction(v) for v in x.tolist()]
        most = max(map(abs, values))
        power = max(math.frexp(float(most))[1] - 3, -127)
        codes = []
        for value in values:
            size = abs(value) / Fraction(2) ** power
            code = min(range(8), key=lambda c: (abs(size - numbers[c]), c % 2))
            codes.append(code + 8 * (value < 0))
        return power + 127, torch.tensor(codes)

    cases = [
        (
            [4.0],
            "Give a pair: the byte, the exponent plus 127, and the codes. The power "
            "of 4 is 2, and so is that of 6, the largest number of E2M1.",
        ),
        (
            [6.0, 1.0],
            "The power of 6 is 2, rounded down, and the code is the place among the "
            "eight numbers, from 0 on.",
        ),
        ([6.0, -3.0], "A negative value has 8 more: the sign is the highest bit."),
        ([4.0, 0.0], "0 has the code 0: it is not negative."),
        (
            [1.0],
            "The scale follows the block, a power of two up or down, and each value is "
            "divided by it.",
        ),
        ([5.9, 3.4], "Take the nearest number: neither down nor up as a rule."),
        (
            [7.5, 3.0],
            "The power of the largest value is rounded down, so what is above 6 "
            "saturates: the scale does not grow for it.",
        ),
        ([4.0, 2.5], "A tie goes to the even code: 2.5 to 2, which is code 4."),
        ([4.0, 0.25, 1.75], "A tie goes to the even code: 0.25 to 0, 1.75 to 2."),
        ([-7.0, 1.0], "The largest magnitude sets the scale, a negative one as well."),
        ([0.3, -0.11, 0.02, 0.26], "Small blocks have a small scale."),
        ([2.0**-126, 2.0**-127], "The byte does not go below 0, the power -127."),
        ([37.0, -3.5, 0.7, 12.0, -24.0, 5.0], "All of it together."),
    ]
    praise = (
        "Five lines, and the format that a language model's weights are shipped in: "
        "32 codes and a byte are 17 bytes."
    )
    judge(answer, reference, [((torch.tensor(x),), why) for x, why in cases], praise)


def my_paying_groups(answer):
    """Exercise 12.3: the group sizes that gain more than their scales cost."""

    def reference(w, bits, groups):
        row = int_groups(bits, None)
        base, paid = snr_db(w, row.round(w)), row.bits(w)
        kept = []
        for group in groups:
            f = int_groups(bits, group)
            gain, more = snr_db(w, f.round(w)) - base, f.bits(w) - paid
            if gain > 6.02 * more:
                kept.append(group)
        return kept

    g = torch.Generator().manual_seed(3)
    even = torch.rand(8, 128, generator=g) - 0.5
    normal = torch.randn(8, 128, generator=g)
    wide = normal.clone()
    wide[:, 7] = 30.0
    half = normal[:, :64].clone()
    half[:, :32] /= 2
    long = torch.randn(4, 1024, generator=g)
    mixed = torch.randn(8, 256, generator=g)
    mixed[:, ::64] *= 5
    cases = [
        (
            (even, 4, [8]),
            "For weights that are spread evenly small groups do not pay: a gain "
            "must exceed what the scales cost, 6.02 dB for each bit more. Give a list.",
        ),
        (
            (wide, 4, [32]),
            "With an outlier in each row groups of 32 pay: give the group's size.",
        ),
        (
            (half, 4, [32]),
            "A row has a scale of its own, too: what groups cost is their bits(w) less "
            "the row's.",
        ),
        (
            (wide, 4, [64, 8, 16]),
            "All that pay, in the order given, not only the best.",
        ),
        (
            (mixed, 4, [8, 16, 32, 64, 128]),
            "A bit is worth 6.02 dB, and each size is judged by its own gain and its "
            "own bits.",
        ),
        (
            (long, 3, [16, 32, 64, 128, 256]),
            "A bit is worth 6.02 dB, and the bits are those of bits(w), scales "
            "included, less the row's own.",
        ),
        ((long, 2, [32]), "With the bits that are given: at 2, groups gain less."),
        ((normal, 8, [8, 16, 32, 64]), "At 8 bits it is the same."),
    ]
    praise = (
        "The border lies where gain and cost cross; outliers move it to smaller "
        "groups. Nothing of it is a property of the format alone."
    )
    judge(answer, reference, cases, praise)
