"""Steps of integer networks with branches: averages, additions, concatenations.

As in steps.py, activations are int8, code - 128, with the batch last. Each step has a
grid of its own for what leaves it.
"""

import math
import operator
from dataclasses import dataclass

import torch

from mnistq.steps import (
    QuantizedLayer,
    check_mode,
    codes,
    integer_multipliers,
    multipliers,
    over_windows,
    pooled,
    rescale,
)

HEADROOM = 20  # bits by which LiteRT's additions shift codes to the left


@dataclass(frozen=True, eq=False)
class Rescaled:
    """What the steps of this room have in common: they take codes to another grid.

    in_grids: (scale, zero_point) of each input; multiplier (float32) or m0 and shift
    (int32), as QuantizedLayer's; low..high: the codes that may leave, of out_bits.
    """

    inputs: tuple
    output: str
    in_grids: tuple
    out_scale: float
    out_zero_point: int
    out_bits: int
    low: int
    high: int
    multiplier: torch.Tensor | None
    m0: torch.Tensor | None
    shift: torch.Tensor | None
    keeps_grid = False

    def factors(self, number):
        """Return (multiplier, m0, shift) of that number, all but one or two None."""
        every = self.multiplier, self.m0, self.shift
        return [f if f is None else f[number] for f in every]

    def paired(self, tensors):
        """Return [(tensor, its zero point)] of the inputs."""
        return [(a, zero) for a, (_, zero) in zip(tensors, self.in_grids, strict=True)]

    @property
    def nbytes(self):
        """Bytes to store it: multipliers of 5 or 4 bytes, and its grid (4 + 1)."""
        if self.m0 is None:
            return 4 * len(self.multiplier) + 4 + 1
        return 5 * len(self.m0) + 4 + 1


@dataclass(frozen=True, eq=False)
class QuantizedAverage(Rescaled):
    """The mean of each window: a layer whose weights are all 1, of scale 1 / numbers.

    window: (kernel, stride). "fixed" and "float" round the sum as a layer's.
    """

    window: tuple

    def __call__(self, a):
        kernel, _ = self.window
        _, zero = self.in_grids[0]
        acc = a.to(torch.int32)
        if math.prod(kernel) > 1:
            acc = over_windows(operator.add, acc, *self.window)
        acc = acc - math.prod(kernel) * (zero - 128)
        return codes(rescale(acc, *self.factors(0)), self)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        if math.prod(self.window[0]) == 1:
            return shape
        return (shape[0], *pooled(shape[1:], self.window))

    def as_layer(self, channels):
        """Return the QuantizedLayer that does the same, a group for each channel."""
        kernel, stride = self.window
        (scale, zero), count = self.in_grids[0], math.prod(kernel)
        factors = [f if f is None else f.expand(channels) for f in self.factors(0)]
        return QuantizedLayer(
            f"{self.output}.average",
            self.inputs,
            self.output,
            torch.ones((channels, 1, *kernel), dtype=torch.int8),
            8,
            _share(count).expand(channels),
            torch.zeros(channels, dtype=torch.int32),
            scale,
            zero,
            *factors,
            self.out_scale,
            self.out_zero_point,
            self.low,
            self.high,
            None,
            self.out_bits,
            stride,
            groups=channels,
        )


@dataclass(frozen=True, eq=False)
class QuantizedAdd(Rescaled):
    """The sum of two tensors, each brought to a common scale first.

    "fixed": q1' = round((q1 - zero1) * 2**20 * scale1 / twice), the same for q2, then
    round((q1' + q2') * twice / (2**20 * out_scale)), twice being 2 * max(scale1,
    scale2): as LiteRT's reference kernels. "float": (q1 - zero1) * (scale1 / out_scale)
    + (q2 - zero2) * (scale2 / out_scale), each of the four in float32.
    """

    def __call__(self, *tensors):
        numbers = [a.to(torch.int32) - (zero - 128) for a, zero in self.paired(tensors)]
        if self.m0 is None:
            one, other = (x * m for x, m in zip(numbers, self.multiplier, strict=True))
            return codes((one + other).round_(), self)
        one, other = (
            rescale(x << HEADROOM, *self.factors(n)) for n, x in enumerate(numbers)
        )
        return codes(rescale(one + other, *self.factors(2)), self)

    def shape(self, one, other):
        """Return the shape of one image after this step; before it: two equal ones."""
        if one != other:
            raise ValueError(f"it adds tensors of shapes {one} and {other}.")
        return one


@dataclass(frozen=True, eq=False)
class QuantizedConcat(Rescaled):
    """Tensors one after the other along the channels, each requantized first."""

    def __call__(self, *tensors):
        parts = [
            rescale(a.to(torch.int32) - (zero - 128), *self.factors(n))
            for n, (a, zero) in enumerate(self.paired(tensors))
        ]
        return codes(torch.cat(parts), self)

    def shape(self, *shapes):
        """Return the shape of one image after this step; shapes: before it."""
        first, *rest = shapes
        if any(shape[1:] != first[1:] for shape in rest):
            raise ValueError(f"it joins tensors of shapes {shapes}.")
        return (sum(shape[0] for shape in shapes), *first[1:])


def quantized_average(requantize, window, **fields):
    """Return the QuantizedAverage of a window; fields: the others of Rescaled."""
    ((scale, _),), out = fields["in_grids"], fields["out_scale"]
    count = _share(math.prod(window[0]))
    factors = multipliers(fields["output"], scale, count, out, requantize)
    return QuantizedAverage(**_named(factors), **fields, window=window)


def quantized_concat(requantize, **fields):
    """Return the QuantizedConcat of fields, the others of Rescaled."""
    name, out = fields["output"], fields["out_scale"]
    each = [
        multipliers(name, scale, torch.ones(1), out, requantize)
        for scale, _ in fields["in_grids"]
    ]
    factors = [None if f[0] is None else torch.cat(f) for f in zip(*each, strict=True)]
    return QuantizedConcat(**_named(factors), **fields)


def quantized_add(requantize, **fields):
    """Return the QuantizedAdd of fields, the others of Rescaled.

    Raises ValueError for a sum on a far finer grid than what is added.
    """
    check_mode(requantize)
    name, out = fields["output"], torch.tensor(fields["out_scale"])
    scales = torch.tensor([scale for scale, _ in fields["in_grids"]])
    if requantize == "float":
        return QuantizedAdd(**_named((scales / out, None, None)), **fields)
    twice = 2 * scales.max().double()
    real = [*(scales.double() / twice), twice / (out.double() * 2**HEADROOM)]
    if real[-1] >= 1:
        raise ValueError(
            f"{name}: the scale {float(out):.3g} of the sum is too fine for its terms'."
            f" Widen the range of {name}."
        )
    return QuantizedAdd(**_named((None, *integer_multipliers(name, real))), **fields)


def _share(count):
    """Return 1 / count in float32 [1]."""
    return 1 / torch.tensor([count], dtype=torch.float32)


def _named(factors):
    return dict(zip(("multiplier", "m0", "shift"), factors, strict=True))
