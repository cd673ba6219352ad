"""Where ONNX Runtime's operators on codes round as the steps here do. Notebook 09.

Its concatenations, additions and averages compute in float32 in an order of their own.
A step takes few codes or sums, so all of them are tried, for the scales at hand.
"""

import math

import torch

ULP = 2.0**-24  # half of the last place of a float32 between 1 and 2
MOST = 2**12  # numbers of a window whose sums are all tried


def check_concat(step):
    """Raise ValueError unless all codes come to a QuantizedConcat's grid as there.

    There q becomes round((q - zero) * scale / out_scale), two roundings in float32,
    where the step multiplies by scale / out_scale.
    """
    q, out = torch.arange(256), torch.tensor(step.out_scale)
    floats = [(q - zero).float() * torch.tensor(scale) for scale, zero in step.in_grids]
    theirs = torch.cat([(x / out).round() + step.out_zero_point for x in floats])
    ours = step(*[_stored(q)] * len(step.inputs))
    _check(ours, theirs, "codes")


def check_add(step, signed):
    """Raise ValueError unless all pairs of codes have the sum of a QuantizedAdd there.

    There it is round(q1 * m1 + (q2 * m2 + rest)), m being scale / out_scale and rest
    out_zero - (m1 * zero1 + m2 * zero2), each product and sum in one rounding, as x86
    with FMA has it. signed: whether the file's codes are int8, code - 128.
    """
    first, second = (
        pair.flatten()
        for pair in torch.meshgrid(*[torch.arange(256)] * 2, indexing="ij")
    )
    moved = 128 if signed else 0
    (m1, m2), out = step.multiplier.double(), step.out_zero_point - moved
    (zero1, zero2) = (zero - moved for _, zero in step.in_grids)
    rest = (m1 * zero1 + (m2 * zero2).float()).float()  # the products are exact
    inner = ((second - moved) * m2 + (out - rest)).float()
    theirs = ((first - moved) * m1 + inner).float().round() + moved
    _check(step(_stored(first), _stored(second)), theirs, "pairs of codes")


def check_mean(step):
    """Raise ValueError unless all sums over an image have a QuantizedAverage's mean.

    There the sum is multiplied by scale / (out_scale * numbers).
    """
    sums, count = _sums(step)
    scale, out = torch.tensor(step.in_grids[0][0]), torch.tensor(step.out_scale)
    theirs = (sums.float() * (scale / (out * count))).round() + step.out_zero_point
    ours = (sums.float() * step.multiplier).round() + step.out_zero_point
    _check(ours.clamp(0, 255) - 128, theirs, "sums")


def check_windows(step):
    """Raise ValueError where a window's mean is too near the middle of two codes.

    There a window's numbers are added in float32, divided, and rounded with the zero
    point: as far from the middle as these errors, nothing depends on their order.
    """
    sums, count = _sums(step)
    (scale, zero), zero_point = step.in_grids[0], step.out_zero_point
    mean = sums.double() * scale / (count * step.out_scale)
    largest = mean.abs()  # of one sign, or of both
    if 0 < zero < 255:
        largest = torch.full_like(mean, max(zero, 255 - zero) * scale / step.out_scale)
    error = (count + 3) * ULP * largest + 512 * ULP
    low, high = ((x + 0.5).floor() + zero_point for x in (mean - error, mean + error))
    _check(low.clamp(0, 255) - 128, high, "sums")


def _sums(step):
    """Return all sums of q - zero_point over a window, int64, and how many it adds."""
    count, (_, zero) = math.prod(step.window[0]), step.in_grids[0]
    if count > MOST:
        raise ValueError(f"it averages {count} numbers: {MOST} at most are read.")
    return torch.arange(-count * zero, count * (255 - zero) + 1), count


def _stored(q):
    return (q - 128).to(torch.int8)


def _check(ours, theirs, what):
    """Raise ValueError unless ours, codes - 128, are theirs, before the clamp."""
    wrong = int((ours.long() + 128 != theirs.clamp(0, 255).long()).sum())
    if wrong:
        raise ValueError(
            f"for {wrong} of {theirs.numel()} {what} ONNX Runtime may round otherwise "
            "than a step here, at these scales: other images to calibrate with give "
            "others."
        )
