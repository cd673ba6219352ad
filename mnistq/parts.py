"""The parts of a float network: what it computes, in floats. Notebook 03.

Each part names the tensors that it reads (inputs) and makes (output); keeps_grid says
whether these are rounded to one grid.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Layer:
    """A Conv2d or Linear, and the ReLU and max pooling that follow it.

    name: as the network names the module. inputs, output: names of tensors; pool: None
    or ((height, width), (rows, columns)), kernel and stride; top: where the ReLU ends,
    6 for a ReLU6. layer(x) computes floats.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    relu: bool = False
    pool: tuple | None = None
    inputs: tuple = ()
    output: str = ""
    top: float = math.inf
    keeps_grid = False

    def __call__(self, x):
        return self.finish(self.accumulate(x, self.module.weight, self.module.bias))

    def accumulate(self, x, weight, bias):
        """Return sum(weight * x) + bias, before ReLU and pooling."""
        if isinstance(self.module, nn.Conv2d):
            conv = self.module
            options = {"padding": padding(conv), "groups": conv.groups}
            return F.conv2d(x, weight, bias, conv.stride, **options)
        return F.linear(x, weight, bias)

    def finish(self, y):
        """Return y after pooling and ReLU, which may change places: both keep order."""
        y = y if self.pool is None else F.max_pool2d(y, *self.pool)
        return clamp(y, self)


@dataclass(frozen=True)
class Clamped:
    """A part with a grid of its own and, perhaps, the ReLU that follows, up to top."""

    inputs: tuple = ()
    output: str = ""
    relu: bool = False
    top: float = math.inf
    keeps_grid = False


@dataclass(frozen=True, kw_only=True)
class Average(Clamped):
    """The mean of each window, (kernel, stride), and the ReLU that follows.

    A window of a single number is a ReLU that follows nothing it could be part of.
    """

    window: tuple

    def __call__(self, x):
        one = math.prod(self.window[0]) == 1
        return clamp(x if one else F.avg_pool2d(x, *self.window), self)


class Add(Clamped):
    """The sum of two tensors of one shape, and the ReLU that follows."""

    def __call__(self, x, y):
        return clamp(x + y, self)


class Concat(Clamped):
    """Tensors one after the other along the channels, and the ReLU that follows."""

    def __call__(self, *tensors):
        return clamp(torch.cat(tensors, 1), self)


@dataclass(frozen=True)
class MaxPool:
    """Max pooling that follows no layer, or a second one; pool as in Layer."""

    pool: tuple
    inputs: tuple = ()
    output: str = ""
    keeps_grid = True

    def __call__(self, x):
        return F.max_pool2d(x, *self.pool)


@dataclass(frozen=True)
class Flatten:
    """From [N, channels, height, width] to [N, channels * height * width]."""

    inputs: tuple = ()
    output: str = ""
    keeps_grid = True

    def __call__(self, x):
        return x.flatten(1)


def clamp(y, part):
    """Return y after a part's ReLU, if it has one."""
    y = F.relu(y) if part.relu else y
    return y if math.isinf(part.top) else y.clamp(max=part.top)


def padding(conv):
    """Return (rows, columns) that a Conv2d adds on each side, for "same" as well.

    Raises ValueError for more rows or columns on one side than on the other.
    """
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding != "same":
        return tuple(conv.padding)
    if not all(k % 2 for k in conv.kernel_size):
        raise ValueError(f'padding "same" with a kernel of {conv.kernel_size}.')
    return tuple(k // 2 for k in conv.kernel_size)


def check_conv(name, conv):
    try:
        padding(conv)
    except ValueError as error:
        raise ValueError(f"{name} has {error}: give it numbers.") from error
    if _pair(conv.dilation) != (1, 1):
        raise ValueError(
            f"{name} has dilation {conv.dilation}: only 1 is possible here."
        )
    if any(padding(conv)) and conv.padding_mode != "zeros":
        raise ValueError(
            f"{name} has padding_mode {conv.padding_mode!r}: only zeros can be added."
        )


def pool_window(place, module):
    """Return ((height, width), (rows, columns)) of a MaxPool2d or AvgPool2d."""
    if module.ceil_mode or getattr(module, "return_indices", False):
        raise ValueError(f"{place}: ceil_mode and return_indices cannot be quantized.")
    dilation = _pair(getattr(module, "dilation", 1))
    if _pair(module.padding) != (0, 0) or dilation != (1, 1):
        raise ValueError(f"{place}: a pooling with padding or dilation.")
    return _pair(module.kernel_size), _pair(module.stride or module.kernel_size)


def average_window(place, module, shape):
    """Return the window of an AvgPool2d or AdaptiveAvgPool2d on images of a shape."""
    if isinstance(module, nn.AvgPool2d):
        if module.divisor_override:
            raise ValueError(f"{place}: divisor_override cannot be quantized.")
        return pool_window(place, module)
    size = tuple(shape[2:])
    wanted = _pair(module.output_size)
    wanted = tuple(n if w is None else w for n, w in zip(size, wanted, strict=True))
    if any(n % w for n, w in zip(size, wanted, strict=True)):
        raise ValueError(
            f"{place} averages {size} to {wanted}: only windows of one size, which "
            "do not overlap, can be quantized."
        )
    kernel = tuple(n // w for n, w in zip(size, wanted, strict=True))
    return kernel, kernel


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def tensor_groups(parts, layers):
    """Return {tensor: the name of the tensor whose grid it has}.

    parts: in their order, of a float or an integer network; layers: their class of
    layers. Max pooling and flattening keep the grid of what they read. All tensors of
    one grid go by the name of the one that enters a layer first, or else of the
    network's output, or else of the one from which the others were made.
    """
    root = {name: name for name in parts[0].inputs[:1]}
    for part in parts:
        root[part.output] = root[part.inputs[0]] if part.keeps_grid else part.output
    name = {}
    for part in parts:
        if isinstance(part, layers):
            name.setdefault(root[part.inputs[0]], part.inputs[0])
    last = parts[-1].output
    name.setdefault(root[last], last)
    return {tensor: name.get(r, r) for tensor, r in root.items()}
