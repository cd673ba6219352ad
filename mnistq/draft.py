"""A network in the making, out of a file that another program may have written.

read_onnx and read_tflite add to it what each of their operators does.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from mnistq.integer import QuantizedNet
from mnistq.mnistq_file import add_shape
from mnistq.quantizers import QTensor, check_grid
from mnistq.steps import (
    QuantizedFlatten,
    QuantizedLayer,
    QuantizedMaxPool,
    quantized_layer,
)


class Draft:
    """The steps so far, and the grid and shape of each tensor.

    requantize: as in quantize_net. reads: how often the file reads each tensor, its own
    outputs being read as well. Grids: (scale, zero_point), of codes from 0 to 255.
    """

    def __init__(self, requantize, reads):
        self.requantize, self.reads = requantize, Counter(reads)
        self.steps, self.grids, self.shapes = [], {}, {}

    def start(self, name, grid, shape):
        """Let the network read a tensor: its images, on a grid."""
        if self.shapes:
            raise ValueError(f"{name} is a second input: only one is read.")
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"its shape is {shape}: give channels, height and width.")
        self.grids[name] = _checked(grid)
        self.shapes[name] = tuple(map(int, shape))

    def add(self, step):
        """Add a step to the others, the makers of what it reads."""
        for x in step.inputs:
            self.known(x)
        add_shape(step, self.shapes)
        self.grids[step.output] = self.grids[step.inputs[0]]
        if not step.keeps_grid:
            self.grids[step.output] = step.out_scale, step.out_zero_point
        self.steps.append(step)

    def known(self, x):
        """Raise ValueError unless the steps so far make x."""
        if x not in self.shapes:
            raise ValueError(f"no operator that was read makes {x}.")

    def check_read(self, x, grid):
        """Raise ValueError unless x is on that grid."""
        self.known(x)
        if _checked(grid) != _checked(self.grids[x]):
            raise ValueError(f"{x} is on {self.grids[x]} and read on {grid}.")

    def add_layer(
        self,
        weights,
        x,
        y,
        weight,
        bias,
        out_grid,
        limits=(0, 255),
        stride=(1, 1),
        sides=((0, 0), (0, 0)),
        **others,
    ):
        """Add a layer from x to y, named by the name of its weights.

        weight: (whole numbers [out, ...], zero points, scales [out] or one of each),
        bias: int32 [out], or None; limits: the lowest and highest code that may leave;
        sides: padding ((top, bottom), (left, right)); others: groups.
        """
        self.known(x)
        w, zeros, scale = (np.asarray(part) for part in weight)
        beside = [-1, *[1] * (w.ndim - 1)]
        w = w.astype(np.int64) - zeros.astype(np.int64).reshape(beside)
        if w.size == 0 or w.min() < -128 or w.max() > 127:
            raise ValueError(
                f"{weights} minus their zero points do not fit int8: symmetric weights "
                "do."
            )
        if min(stride) < 1 or min(*sides[0], *sides[1]) < 0:
            raise ValueError(f"its strides are {stride}, its padding is {sides}.")
        if w.ndim == 4:
            w, others["padding"] = _balanced(w, sides)
        out, bits = len(w), _fewest_bits(w)
        scale = torch.from_numpy(np.broadcast_to(scale.reshape(-1), out).copy())
        check_grid(scale, torch.zeros(out), 0, 0)
        bias = np.zeros(out, np.int32) if bias is None else bias
        if bias.dtype != np.int32 or bias.shape != (out,):
            raise ValueError(f"its bias is {bias.dtype} {bias.shape}: give int32.")
        name = weights.removesuffix("_quantized").rpartition(".")[0] or weights
        if any(getattr(step, "name", None) == name for step in self.steps):
            name = y  # these weights are used twice
        layer = quantized_layer(
            name,
            QTensor(torch.from_numpy(w).to(torch.int8), scale, None),
            bits,
            torch.from_numpy(bias.copy()),
            _checked(self.grids[x]),
            _checked(out_grid),
            self.requantize,
            inputs=(x,),
            output=y,
            pool=None,
            stride=stride,
            **_limited(limits),
            **others,
        )
        self.add(layer)

    def add_rescaled(self, make, inputs, y, out_grid, limits=(0, 255)):
        """Add the step that make makes of inputs: quantized_add or quantized_concat."""
        for x in inputs:
            self.known(x)
        scale, zero = _checked(out_grid)
        step = make(
            self.requantize,
            inputs=tuple(inputs),
            output=y,
            in_grids=tuple(self.grids[x] for x in inputs),
            out_scale=scale,
            out_zero_point=zero,
            **_limited(limits),
        )
        self.add(step)

    def clamp(self, x, y, low, high):
        """Let what makes x make y, with codes from low to high."""
        step = self.maker(x)
        if step is None or step.keeps_grid:
            raise ValueError(f"it clamps {x}, which no layer makes for it alone.")
        low, high, zero = max(low, step.low), min(high, step.high), step.out_zero_point
        if low not in (0, zero) or high < zero:
            raise ValueError(f"it clamps to {low}..{high} with zero point {zero}.")
        self.change(step, y, **_limited((low, high)))

    def pool(self, x, y, pool):
        """Add max pooling, (kernel, stride), from x to y; to its layer if it can be."""
        step = self.maker(x)
        if min(*pool[0], *pool[1]) < 1:
            raise ValueError(f"its kernel and stride are {pool}.")
        if isinstance(step, QuantizedLayer) and step.pool is None:
            self.change(step, y, pool=pool)
        else:
            self.add(QuantizedMaxPool((x,), y, pool))

    def flatten(self, x, y):
        self.add(QuantizedFlatten((x,), y))

    def maker(self, x):
        """Return the step that makes x for one operator alone, or None."""
        made = [step for step in self.steps if step.output == x]
        return made[0] if made and self.reads[x] == 1 else None

    def change(self, step, y, **fields):
        """Put a step in another's place, which makes y."""
        self.steps.remove(step)
        del self.shapes[step.output], self.grids[step.output]
        self.add(replace(step, output=y, **fields))

    def network(self, last):
        """Return the QuantizedNet that ends with the tensor last.

        Without what only flattens for no step. Raises ValueError for other steps that
        last does not need.
        """
        needed, kept = {last}, []
        for step in reversed(self.steps):
            if step.output in needed:
                needed |= set(step.inputs)
                kept.insert(0, step)
            elif not isinstance(step, QuantizedFlatten):
                raise ValueError(f"{step.output} is made, and {last} does not need it.")
        if not any(isinstance(step, QuantizedLayer) for step in kept):
            raise ValueError("it holds no layer that computes with codes.")
        first = next(iter(self.shapes))
        return QuantizedNet(tuple(kept), self.shapes[first], 8, *self.grids[first])


def _checked(grid):
    """Return (scale as float32 holds it, zero_point), or raise ValueError."""
    scale, zero = torch.tensor(float(grid[0])), int(grid[1])
    check_grid(scale, torch.tensor(zero), 0, 255)
    return float(scale), zero


def _limited(limits):
    """Return the fields of a step that say which codes may leave it."""
    low, high = limits
    return {"low": low, "high": high, "out_bits": max(1, high.bit_length())}


def _balanced(w, sides):
    """Return (weights, padding) that do the same with as much padding on both sides.

    w: [out, in, height, width]. A side that had less gets weights of 0 for what it has
    more now.
    """
    more = [(max(after - before, 0), max(before - after, 0)) for before, after in sides]
    for n, (before, after) in zip(w.shape[2:], more, strict=True):
        if before + after >= n:
            raise ValueError(f"its padding is {sides}: too different on two sides.")
    return np.pad(w, ((0, 0), (0, 0), *more)), tuple(map(max, sides))


def _fewest_bits(w):
    """Return the bits that hold signed codes w; 1 if they are all -1 and 1."""
    if (np.abs(w) == 1).all():
        return 1
    largest = max(int(w.max()), -1 - int(w.min()))
    return max(2, largest.bit_length() + 1)
