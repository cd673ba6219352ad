"""Scale and zero point, quantize and dequantize. Notebook 02."""

import math
from collections import namedtuple
from numbers import Integral

import torch

from mnistq.data import IMAGE_SHAPE, warn_of_raw_pixels

QTensor = namedtuple("QTensor", "tensor scale zero_point axis", defaults=[None])


def code_range(bits, signed=False):
    """Return (qmin, qmax) = (0, 2**bits - 1), minus 2**(bits-1) if signed.

    Raises ValueError unless bits is a whole number from 1 to 16. Taught in notebook 02.
    """
    whole = isinstance(bits, Integral) and not isinstance(bits, bool)  # numpy's, too
    if not (whole and 1 <= bits <= 16):
        raise ValueError(f"bits is {bits!r}: give a whole number from 1 to 16.")
    bits = int(bits)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def calc_scale_zero_point(min_val, max_val, bits=8, signed=False, symmetric=False):
    """Return (scale: float, zero_point: int) of the grid x = scale * (q - zero_point).

    The range is first widened to contain 0, which must be exact.
    affine:    scale = (max - min) / (qmax - qmin)
               zero_point = round(qmin - min / scale)
    symmetric: scale = max(|min|, |max|) / (qmax - zero_point)
               zero_point = 0 if signed, else 2**(bits-1)
               At 1 bit no code lies above zero_point, and 1/2 takes the 0's place.
    A range of only 0 has scale 1. Raises ValueError for NaN, infinity, or min > max.
    Source: Jacob et al. 2017, equations 1 and 12. Taught in notebook 02.
    """
    qmin, qmax = code_range(bits, signed)
    low, high = float(min_val), float(max_val)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"the range [{low}, {high}] is not finite: remove NaN and inf."
        )
    if low > high:
        raise ValueError(f"min {low} is above max {high}: swap them.")
    low, high = min(low, 0.0), max(high, 0.0)
    middle = (qmin + qmax + 1) // 2
    if symmetric:
        scale = max(-low, high) / max(qmax - middle, 0.5)
    else:
        scale = (high - low) / (qmax - qmin)
    if scale == 0:
        return 1.0, middle if symmetric else qmin
    scale = max(scale, torch.finfo(torch.float32).tiny)  # below it float32 loses digits
    zero_point = middle if symmetric else round(qmin - low / scale)
    return scale, min(max(zero_point, qmin), qmax)


def quantize_tensor(
    x, bits=8, scale=None, zero_point=None, signed=False, symmetric=False, axis=None
):
    """Return QTensor with codes q = clamp(round(x / scale) + zero_point, qmin, qmax).

    Rounds half to even. x: float tensor, not empty, finite. scale and zero_point: two
    numbers, or with axis (per channel) two 1-d tensors; without them, own_grid(x).
    Codes: uint8, or int8 if signed, up to 8 bits; int32 above.
    Raises ValueError for NaN, infinity, an empty tensor, or a grid that does not fit x.
    Source: Jacob et al. 2017, equation 1. Taught in notebook 02.
    """
    qmin, qmax = code_range(bits, signed)
    check_tensor(x, axis)
    if scale is None and zero_point is None:
        scale, zero_point = own_grid(x, bits, signed, symmetric, axis)
    s, z = along_axis(scale, x, axis), along_axis(zero_point, x, axis)
    check_grid(s, z, qmin, qmax)
    q = (torch.round(x / s) + z).clamp(qmin, qmax)
    code_type = torch.int32 if bits > 8 else torch.int8 if signed else torch.uint8
    return QTensor(q.to(code_type), scale, zero_point, axis)  # clamped first, cast last


def own_grid(x, bits=8, signed=False, symmetric=False, axis=None):
    """Return scale and zero_point from x's own minimum and maximum.

    Two numbers; with axis (per channel) two 1-d tensors, float32 and int32, with one
    entry for each slice of x along axis.
    Source: Krishnamoorthi 2018 (arXiv 1806.08342), section 2. Taught in notebook 02.
    """
    if axis is None:
        return calc_scale_zero_point(x.min(), x.max(), bits, signed, symmetric)
    rows = x.movedim(axis, 0).flatten(1)  # (channels, everything else)
    grids = [
        calc_scale_zero_point(row.min(), row.max(), bits, signed, symmetric)
        for row in rows
    ]
    scales, zero_points = zip(*grids, strict=True)
    zero_points = torch.tensor(zero_points, dtype=torch.int32)
    return torch.tensor(scales, dtype=torch.float32), zero_points


def dequantize_tensor(q):
    """Return the float32 tensor x_hat = scale * (q - zero_point) of a QTensor.

    Source: Jacob et al. 2017, equation 1. Taught in notebook 02.
    """
    s = along_axis(q.scale, q.tensor, q.axis)
    return s * (q.tensor - along_axis(q.zero_point, q.tensor, q.axis))


def snr_db(x, x_hat):
    """Return the signal-to-noise ratio 10 * log10(sum x**2 / sum (x - x_hat)**2) in dB.

    Infinite where x_hat equals x. Taught in notebook 02.
    """
    noise = (x - x_hat).double().square().sum()
    return float(10 * torch.log10(x.double().square().sum() / noise))


def check_tensor(x, axis=None):
    if x.numel() == 0:
        raise ValueError(f"the tensor of shape {tuple(x.shape)} is empty.")
    if not x.is_floating_point():
        raise ValueError(f"the tensor is {x.dtype}: give floats.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the tensor contains NaN or infinity: remove them first.")
    if axis is not None and not 0 <= axis < x.dim():
        raise ValueError(f"shape {tuple(x.shape)} has no axis {axis}.")


def check_grid(scale, zero_point, qmin, qmax):
    usable = torch.isfinite(scale) & (scale > 0)
    if not bool(usable.all()):
        bad = float(scale[~usable][0])
        raise ValueError(f"the scale {bad} must be positive and finite.")
    fits = (zero_point >= qmin) & (zero_point <= qmax)
    fits = fits & (zero_point == zero_point.round())
    if not bool(fits.all()):
        bad = float(zero_point[~fits][0])
        raise ValueError(f"zero_point {bad:g} must be an integer, {qmin} to {qmax}.")


def along_axis(value, x, axis):
    """Return value as float32 on x's device, shaped to go with x along axis."""
    if value is None:
        raise ValueError("give scale and zero_point both, or neither.")
    value = torch.as_tensor(value, dtype=torch.float32, device=x.device)
    expected = () if axis is None else (x.shape[axis],)
    if value.shape != expected:
        raise ValueError(
            f"scale or zero_point of shape {tuple(value.shape)} with axis {axis} does "
            f"not fit a tensor of shape {tuple(x.shape)}: {expected} is needed."
        )
    return value.reshape([-1 if i == axis else 1 for i in range(x.dim())])


def check_images(images, shape=IMAGE_SHAPE):
    """Raise ValueError unless images are floats [N, *shape], not empty and finite."""
    if tuple(images.shape[1:]) != tuple(shape):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"images of shape {tuple(images.shape)}: use [N, {wanted}].")
    check_tensor(images)
    warn_of_raw_pixels(images)


def bits_by_name(bits, names, last=None):
    """Return {name: bits}: one int for all but last, which keeps 8 unless named.

    Raises ValueError for other names, or bits that are not 1 to 8.
    """
    if not isinstance(bits, dict):
        bits = {name: 8 if name == last else bits for name in names}
    elif set(bits) - set(names) or set(names) - set(bits) - {last}:
        raise ValueError(f"bits are for {sorted(bits)}: name {', '.join(names)}.")
    for name, value in bits.items():
        code_range(value)
        if value > 8:
            raise ValueError(
                f"{name} has {value} bits: the network's codes hold 1 to 8."
            )
    return {name: int(bits.get(name, 8)) for name in names}
