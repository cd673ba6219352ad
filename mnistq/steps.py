"""The steps of an integer network: integers in, integers out. Notebook 06.

Activations are int8, code - 128, and have the batch last: so all that is copied is
contiguous. Each step names the tensors that it reads (inputs) and makes (output).
"""

import math
from dataclasses import dataclass
from functools import cached_property, reduce

import torch

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
    ("float"), the other being None; low..high: the codes that may leave the layer;
    pool: None, or (kernel, stride) of max pooling. Taught in notebook 06.
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
            height, width = self.weight.shape[2:]
            windows = a.unfold(1, height, 1).unfold(2, width, 1)  # a view
            size = windows.shape[1:4]  # of (in, H, W, N, height, width)
            a = windows.permute(0, 4, 5, 1, 2, 3)
        matrix = self.weight.flatten(1)  # (out, in * height * width)
        acc = product(matrix, a.reshape(matrix.shape[1], -1))
        acc = acc.reshape(len(matrix), *size)
        if self.pool is not None:
            acc = max_pool(acc, *self.pool)
        return acc.add_(_first_axis(self.folded_bias, acc))

    def requantize(self, acc):
        """Return int8 clamp(round(acc * M) + out_zero_point, low, high) - 128.

        "fixed": multiply_by_quantized_multiplier, as in LiteRT's reference kernels.
        "float": multiplies in float32 and rounds half to even, as ONNX Runtime does.
        Source: Jacob et al. 2017, equation 5. Taught in notebook 06.
        """
        if self.multiplier is None:
            m0, shift = _first_axis(self.m0, acc), _first_axis(self.shift, acc)
            q = multiply_by_quantized_multiplier(acc, m0, shift)
        else:
            q = (acc * _first_axis(self.multiplier, acc)).round_()
        zero = self.out_zero_point  # added after the clamp, where nothing can overflow
        q = q.clamp_(self.low - zero, self.high - zero).add_(zero - 128)
        return q.to(torch.int8)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        out = len(self.weight)
        if self.weight.dim() == 2:
            return (out,)
        size = self.convolved(shape)[1:]
        return (out, *(size if self.pool is None else _pooled(size, self.pool)))

    def convolved(self, shape):
        """Return the shape of one image after the convolution, before pooling."""
        size = (
            n - k + 1 for n, k in zip(shape[1:], self.weight.shape[2:], strict=True)
        )
        return (len(self.weight), *size)

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

    def __call__(self, a):
        return max_pool(a, *self.pool)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        return (shape[0], *_pooled(shape[1:], self.pool))


@dataclass(frozen=True)
class QuantizedFlatten:
    """From [channels, height, width, N] to [channels * height * width, N]."""

    inputs: tuple
    output: str
    nbytes = 0

    def __call__(self, a):
        return a.flatten(0, -2)

    def shape(self, shape):
        """Return the shape of one image after this step; shape: before it."""
        return (math.prod(shape),)


def max_pool(a, kernel, stride):
    """Return the maximum of each window of a [channels, H, W, N]; of any integer type.

    kernel, stride: (rows, columns). What does not fill a window is left out.
    """
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=1):
        last = (a.shape[axis] - k) // s * s  # where the last window begins
        views = [
            a[(slice(None),) * axis + (slice(i, i + last + 1, s),)] for i in range(k)
        ]
        a = reduce(torch.maximum, views)
    return a


def _pooled(size, pool):
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
    out_bits,
    requantize,
    relu,
    pool,
    inputs,
    output,
):
    """Return the QuantizedLayer of weight, a QTensor with one scale for each output.

    bias: whole numbers; grids: (scale, zero_point). Raises ValueError where an
    accumulator could leave int32. Taught in notebook 06.
    """
    if requantize not in ("fixed", "float"):
        raise ValueError(f'requantize is {requantize!r}: use "fixed" or "float".')
    (in_scale, in_zero), (out_scale, out_zero) = in_grid, out_grid
    sums = weight.tensor.flatten(1).abs().sum(1, dtype=torch.int64)
    largest = float((bias.double().abs() + sums * 256).max())
    if not largest < 2**31:
        raise ValueError(
            f"{name}'s accumulators could reach {largest:.3g}, beyond int32: widen the "
            f"range of {name}, whose scale is {in_scale:.3g}, or give its weights a "
            f"larger one than {float(weight.scale.min()):.3g}."
        )
    # float32, in this order, because that is what ONNX Runtime computes.
    single = torch.float32
    scales = [
        torch.tensor(in_scale, dtype=single),
        weight.scale,
        torch.tensor(out_scale, dtype=single),
    ]
    multiplier, m0, shift = scales[0] * scales[1] / scales[2], None, None
    if requantize == "fixed":
        # float64, because that is what LiteRT computes; below 2**-32 all is 0.
        real = scales[0].double() * scales[1].double() / scales[2].double()
        try:
            pairs = [quantize_multiplier(max(m, 2**-32)) for m in real.tolist()]
        except ValueError as error:
            raise ValueError(
                f"{name}: {error} Widen the range of what leaves {name}."
            ) from error
        m0, shift = torch.tensor(pairs, dtype=torch.int32).T
        multiplier = None
    return QuantizedLayer(
        name=name,
        inputs=inputs,
        output=output,
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
        low=out_zero if relu else 0,  # ReLU: x >= 0 is q >= zero_point
        high=code_range(out_bits)[1],
        pool=pool,
    )


def file_plan(qnet):
    """Yield (step, (name, shape) of its input, (name, shape) of its output).

    As both exporters need them: every shape is (channels, height, width), a fully
    connected layer being a convolution whose kernel covers its whole input; so nothing
    is flattened, and a flattened tensor gives its name to the one before.
    """
    names = {}
    for step in reversed(qnet.steps):
        output = names.get(step.output, step.output)
        names[step.output] = output
        if isinstance(step, QuantizedFlatten):
            names[step.inputs[0]] = output
    first = qnet.steps[0].inputs[0]
    shapes = {first: tuple(qnet.in_shape)}
    for step in qnet.steps:
        (x,) = step.inputs
        shapes[step.output] = shapes[x]
        if not isinstance(step, QuantizedFlatten):
            shapes[step.output] = (*step.shape(shapes[x]), 1, 1)[:3]
            made = names[step.output], shapes[step.output]
            yield step, (names.get(x, x), shapes[x]), made


def check_requantize(qnet, mode, engine):
    """Raise ValueError unless the engine rounds as qnet does."""
    if qnet.requantize != mode:
        raise ValueError(
            f"{engine} cannot round as requantize={qnet.requantize!r} does: use "
            f"quantize_net(..., requantize={mode!r})."
        )
