"""The steps of an integer network: integers in, integers out. Notebook 06.

Activations are int8, code - 128, and have the batch last: so all that is copied is
contiguous. Each step names the tensors that it reads (inputs) and makes (output);
keeps_grid says whether these are on one grid.
"""

import math
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
import torch.nn.functional as F

from mnistq.arithmetic import (
    int_matmul,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from mnistq.quantizers import code_range


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """What one layer needs at run time, all of it known before the first image.

    weight: int8 [out, in] or [out, in, height, width]; weight_scale: float32 [out];
    bias: int32 [out], in units of in_scale * weight_scale; in_scale * weight_scale /
    out_scale as int32 m0 and shift [out] ("fixed"), or as float32 multiplier [out]
    ("float"), the other being None; low..high: the codes that may leave the layer, of
    out_bits; pool: None, or (kernel, stride) of max pooling. stride, padding (rows,
    columns; of the input's zero point), groups: of a convolution.
    Taught in notebook 06.
    """

    name: str
    inputs: tuple
    output: str
    weight: torch.Tensor
    weight_bits: int
    weight_scale: torch.Tensor
    bias: torch.Tensor
    in_scale: float
    in_zero_point: int
    multiplier: torch.Tensor | None
    m0: torch.Tensor | None
    shift: torch.Tensor | None
    out_scale: float
    out_zero_point: int
    low: int
    high: int
    pool: tuple | None
    out_bits: int
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    groups: int = 1
    keeps_grid = False

    def __call__(self, a, product=int_matmul):
        return self.requantize(self.accumulate(a, product))

    @cached_property
    def folded_bias(self):
        """bias - (in_zero_point - 128) * sum(weight), int32: the rest of equation 7."""
        sums = self.weight.flatten(1).sum(1, dtype=torch.int32)
        return self.bias - (self.in_zero_point - 128) * sums

    def accumulate(self, a, product=int_matmul):
        """Return acc = sum(weight * (q - in_zero_point)) + bias in int32.

        a: int8 q - 128, [in, H, W, N] or [in, N]. acc: [out, ..., N], after pooling,
        which commutes with requantization because that is monotone. product: of int8
        [out, k] and [k, n], in int32; another one shows what a processor would make.
        Source: Jacob et al. 2017, equation 7. Taught in notebook 06.
        """
        size = a.shape[-1:]
        if self.weight.dim() == 4:
            a = self._windows(a)
            size = a.shape[3:]
        matrix = self.weight.flatten(1)  # (out, in * height * width)
        if self.groups == 1:
            acc = product(matrix, a.reshape(matrix.shape[1], -1))
        else:
            rows = matrix.chunk(self.groups)
            parts = a.reshape(self.groups, matrix.shape[1], -1)
            acc = torch.cat([product(*pair) for pair in zip(rows, parts, strict=True)])
        acc = acc.reshape(len(matrix), *size)
        if self.pool is not None:
            acc = max_pool(acc, *self.pool)
        return acc.add_(_first_axis(self.folded_bias, acc))

    def _windows(self, a):
        """Return what each place of the kernel sees: a view [in, h, w, H, W, N]."""
        if any(self.padding):
            rows, columns = self.padding
            sides = (0, 0, columns, columns, rows, rows)  # from the last axis on
            a = F.pad(a, sides, value=self.in_zero_point - 128)
        height, width = self.weight.shape[2:]
        down, right = self.stride
        windows = a.unfold(1, height, down).unfold(2, width, right)
        return windows.permute(0, 4, 5, 1, 2, 3)  # it was (in, H, W, N, h, w)

    def requantize(self, acc):
        """Return int8 clamp(round(acc * M) + out_zero_point, low, high) - 128.

        "fixed": multiply_by_quantized_multiplier, as in LiteRT's reference kernels.
        "float": multiplies in float32 and rounds half to even, as ONNX Runtime does.
        Source: Jacob et al. 2017, equation 5. Taught in notebook 06.
        """
        factors = self.multiplier, self.m0, self.shift
        factors = [f if f is None else _first_axis(f, acc) for f in factors]
        return codes(rescale(acc, *factors), self)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        out = len(self.weight)
        if self.weight.dim() == 2:
            return (out,)
        size = self.convolved(shape)[1:]
        return (out, *(size if self.pool is None else pooled(size, self.pool)))

    def convolved(self, shape):
        """Return the shape of one image after the convolution, before pooling."""
        sizes = zip(shape[1:], self.padding, strict=True)
        padded = [n + 2 * p for n, p in sizes]
        return (
            len(self.weight),
            *pooled(padded, (self.weight.shape[2:], self.stride)),
        )

    @property
    def nbytes(self):
        """Bytes to store it: packed weights, int32 biases, multipliers, its grid.

        Each output channel has a multiplier: int32 m0 and a shift of one byte, or a
        float32. The grid of what leaves is a float32 scale and a zero point of a byte.
        """
        multiplier = 4 if self.m0 is None else 4 + 1
        packed = math.ceil(self.weight.numel() * self.weight_bits / 8)
        return packed + len(self.bias) * (4 + multiplier) + 4 + 1


@dataclass(frozen=True)
class QuantizedMaxPool:
    """The largest code of each window; codes have the order of what they stand for."""

    inputs: tuple
    output: str
    pool: tuple
    nbytes = 0
    keeps_grid = True

    def __call__(self, a):
        return max_pool(a, *self.pool)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        return (shape[0], *pooled(shape[1:], self.pool))


@dataclass(frozen=True)
class QuantizedFlatten:
    """From [channels, height, width, N] to [channels * height * width, N]."""

    inputs: tuple
    output: str
    nbytes = 0
    keeps_grid = True

    def __call__(self, a):
        return a.flatten(0, -2)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        return (math.prod(shape),)


def max_pool(a, kernel, stride):
    """Return the maximum of each window of a [channels, H, W, N]; of any integer type.

    kernel, stride: (rows, columns). What does not fill a window is left out.
    """
    return over_windows(torch.maximum, a, kernel, stride)


def over_windows(join, a, kernel, stride):
    """Return join of all that lies in each window of a [channels, H, W, N]."""
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=1):
        last = (a.shape[axis] - k) // s * s  # where the last window begins
        views = [
            a[(slice(None),) * axis + (slice(i, i + last + 1, s),)] for i in range(k)
        ]
        a = reduce(join, views)
    return a


def rescale(acc, multiplier, m0, shift):
    """Return acc * M, rounded: by m0 and shift, or in float32 if there is a multiplier.

    Taught in notebook 06, as QuantizedLayer.requantize.
    """
    if multiplier is None:
        return multiply_by_quantized_multiplier(acc, m0, shift)
    return (acc * multiplier).round_()


def codes(q, step):
    """Return int8 clamp(q + zero_point, low, high) - 128, on the grid that leaves."""
    zero = step.out_zero_point  # added after the clamp, where nothing can overflow
    q = q.clamp_(step.low - zero, step.high - zero).add_(zero - 128)
    return q.to(torch.int8)


def limits(grid, bits, relu, top=math.inf):
    """Return the (lowest, highest) code that may leave a step; top: of a ReLU6, 6."""
    (scale, zero), (_, high) = grid, code_range(bits)
    if not math.isinf(top):
        high = min(high, zero + round(top / scale))
    return (zero if relu else 0), high  # ReLU: x >= 0 is q >= zero_point


def pooled(size, pool):
    sizes = zip(size, *pool, strict=True)
    return tuple((n - k) // s + 1 for n, k, s in sizes)


def _first_axis(values, acc):
    return values.reshape(-1, *[1] * (acc.dim() - 1))


def quantized_layer(
    name,
    weight,
    weight_bits,
    bias,
    in_grid,
    out_grid,
    requantize,
    **others,
):
    """Return the QuantizedLayer of weight, a QTensor with one scale for each output.

    bias: whole numbers; grids: (scale, zero_point); others: fields as they are.
    Raises ValueError where an accumulator could leave int32. Taught in notebook 06.
    """
    (in_scale, in_zero), (out_scale, out_zero) = in_grid, out_grid
    sums = weight.tensor.flatten(1).long().abs().sum(1)  # int8 has no 128
    largest = float((bias.double().abs() + sums * 256).max())
    if not largest < 2**31:
        raise ValueError(
            f"{name}'s accumulators could reach {largest:.3g}, beyond int32: widen the "
            f"range of {name}, whose scale is {in_scale:.3g}, or give its weights a "
            f"larger one than {float(weight.scale.min()):.3g}."
        )
    factors = multipliers(name, in_scale, weight.scale, out_scale, requantize)
    multiplier, m0, shift = factors
    return QuantizedLayer(
        name=name,
        weight=weight.tensor,
        weight_bits=weight_bits,
        weight_scale=weight.scale,
        bias=bias.to(torch.int32),
        in_scale=in_scale,
        in_zero_point=in_zero,
        multiplier=multiplier,
        m0=m0,
        shift=shift,
        out_scale=out_scale,
        out_zero_point=out_zero,
        **others,
    )


def multipliers(name, in_scale, weight_scale, out_scale, requantize):
    """Return (multiplier, None, None) in float32, or (None, m0, shift) in integers.

    in_scale * weight_scale / out_scale; weight_scale: float32 [n]; name: of the step,
    or of the tensor that it makes.
    Raises ValueError for multipliers that cannot be quantized, or another requantize.
    """
    check_mode(requantize)
    # float32, in this order, because that is what ONNX Runtime computes.
    scale = torch.tensor(in_scale, dtype=torch.float32)
    out = torch.tensor(out_scale, dtype=torch.float32)
    if requantize == "float":
        return scale * weight_scale / out, None, None
    # float64, because that is what LiteRT computes.
    real = scale.double() * weight_scale.double() / out.double()
    return None, *integer_multipliers(name, real.tolist())


def integer_multipliers(name, real):
    """Return int32 (m0, shift) of real multipliers; below 2**-32 all is 0."""
    try:
        pairs = [quantize_multiplier(max(m, 2**-32)) for m in real]
    except ValueError as error:
        raise ValueError(
            f"{name}: {error} Widen the range of what leaves it."
        ) from error
    return torch.tensor(pairs, dtype=torch.int32).T


def check_mode(requantize):
    if requantize not in ("fixed", "float"):
        raise ValueError(f'requantize is {requantize!r}: use "fixed" or "float".')
