"""Blocks of codes that share a scale: int by group, NF4, MX, NVFP4, ternary. 12.

One interface for all: Format.encode, decode, round, to_bytes. A scale rule's encode
makes what is stored of blocks [..., groups, group]; its decode returns the scale and
the zero point of each block, float64 [..., groups].
"""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mnistq.elements import (
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    Element,
    IntElement,
    TableElement,
    TernaryElement,
    normal_float,
)
from mnistq.files import pack_codes
from mnistq.layers import read_layers, without_batch_norms
from mnistq.low_bits import gptq_codes, inverse_factor
from mnistq.quantizers import check_tensor

Encoded = namedtuple("Encoded", "codes scales")  # uint8 as x; a tuple of tensors


@dataclass(frozen=True)
class FloatScale:
    """scale = max|x| / largest, in float16 or float32. Taught in notebook 12."""

    dtype: torch.dtype = torch.float16

    def encode(self, blocks, element):
        return (_stored(blocks.abs().amax(-1) / element.largest, self.dtype),)

    def decode(self, scale):
        return scale.double(), torch.zeros(())


@dataclass(frozen=True)
class AffineScale:
    """scale = (max - min) / largest in float16 and a zero point: notebook 02's grid.

    Zero points are packed into as many bits as codes have. Taught in notebook 12.
    """

    def encode(self, blocks, element):
        low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
        scale = _stored((high - low) / element.largest, torch.float16)
        return scale, element.encode(_over(-low, scale.double()))

    def decode(self, scale, zero_point):
        return scale.double(), zero_point.double()


@dataclass(frozen=True)
class MeanScale:
    """scale = mean|x| in float32: that of ternary weights. Taught in notebook 12.

    Source: Ma et al. 2024 (arXiv 2402.17764), equation 3, with one for a whole matrix.
    """

    def encode(self, blocks, element):
        return (_stored(blocks.abs().mean(-1), torch.float32),)

    def decode(self, scale):
        return scale.double(), torch.zeros(())


@dataclass(frozen=True)
class PowerScale:
    """scale = 2**(floor(log2 max|x|) - floor(log2 largest)): that of MX.

    Stored as E8M0, exponent + 127 in a byte; 255 is NaN, and so is all of its block.
    Source: OCP MX 1.0, section 6.3. Taught in notebook 12.
    """

    def encode(self, blocks, element):
        most = blocks.abs().amax(-1)
        _, above = torch.frexp(torch.tensor(element.largest))  # floor(log2) + 1
        exponent = torch.frexp(most).exponent - above
        code = torch.where(most > 0, exponent + 127, 0).clamp(0, 254)
        return (code.to(torch.uint8),)

    def decode(self, scale):
        power = 2.0 ** (scale.double() - 127)
        return torch.where(scale == 255, torch.nan, power), torch.zeros(())


@dataclass(frozen=True)
class TensorAndBlockScale:
    """E4M3 scales times one float32 for the tensor, max|x| / (448 * largest): NVFP4's.

    Source: NVIDIA, Transformer Engine, NVFP4. Taught in notebook 12.
    """

    def encode(self, blocks, element):
        most = blocks.abs().amax(-1) / element.largest
        tensor = _stored(most.max() / E4M3.largest, torch.float32)
        return E4M3.encode(_over(most, tensor.double())), tensor

    def decode(self, scale, tensor):
        return E4M3.decode(scale) * tensor.double(), torch.zeros(())


@dataclass(frozen=True)
class DoubleScale:
    """max|x| less the mean of all, in E4M3, and a float32 for each 256 of these.

    QLoRA's double quantization. Source: Dettmers et al. 2023 (arXiv 2305.14314),
    section 3, which does not say which 8-bit float. Taught in notebook 12.
    """

    def encode(self, blocks, element):
        most = blocks.abs().amax(-1) / element.largest
        mean = most.mean().float()
        chunks = _split((most - mean.double()).flatten(), 256)
        (second,) = FloatScale(torch.float32).encode(chunks, E4M3)
        codes = E4M3.encode(_over(chunks, second.double().unsqueeze(-1)))
        return codes.flatten()[: most.numel()].reshape(most.shape), second, mean

    def decode(self, codes, second, mean):
        chunks = _split(E4M3.decode(codes).flatten(), 256) * second.double()[:, None]
        most = chunks.flatten()[: codes.numel()].reshape(codes.shape) + mean.double()
        return most, torch.zeros(())


@dataclass(frozen=True)
class Format:
    """Codes of an element, and scales that neighbours along the last axis share.

    element: of elements.py; scale: a rule of this room; group: how many neighbours, or
    None for a whole row. The last group of a row may be shorter, and is stored so.
    Taught in notebook 12.
    """

    name: str
    element: Element
    scale: object
    group: int | None = None

    def encode(self, x, scales=None):
        """Return Encoded: codes of x's shape, and scales, as they are stored.

        code = nearest(x / scale + zero_point), computed in float64, where no quotient
        of float32 comes out on the wrong side of a tie. x: floats [..., n]; scales: as
        an Encoded of that shape has them, or None for x's own.
        Raises ValueError for NaN, infinity or an empty tensor. Taught in notebook 12.
        """
        check_tensor(x)
        x = x.detach().double()
        if scales is None:
            scales = self.scale.encode(_split(x, self.group), self.element)
        scale, zero_point = self.grid(scales, x.shape[-1])
        return Encoded(self.element.encode(_over(x, scale) + zero_point), scales)

    def decode(self, encoded):
        """Return scale * (element's value - zero_point), float32."""
        codes, scales = encoded
        scale, zero_point = self.grid(scales, codes.shape[-1])
        return (scale * (self.element.decode(codes) - zero_point)).float()

    def round(self, x):
        """Return x as it comes back, float32."""
        return self.decode(self.encode(x))

    def grid(self, scales, n):
        """Return the scale and the zero point of each value, float64 [..., n]."""
        group = n if self.group is None else self.group
        return [
            t.repeat_interleave(group, -1)[..., :n] if t.dim() else t
            for t in self.scale.decode(*scales)
        ]

    def to_bytes(self, encoded):
        """Return all that is stored: packed codes, then the scales, little endian."""
        codes, *scales = self.element.pack(encoded.codes), *encoded.scales
        if isinstance(self.scale, AffineScale):
            scales[1] = pack_codes(scales[1], self.element.bits)
        kinds = [t.numpy().dtype.newbyteorder("<") for t in (codes, *scales)]
        parts = zip((codes, *scales), kinds, strict=True)
        return b"".join(t.numpy().astype(kind).tobytes() for t, kind in parts)

    def bits(self, x):
        """Return the bits that each value of x takes, scales included: a float."""
        return 8 * len(self.to_bytes(self.encode(x))) / x.numel()


def _split(x, group):
    """Return x [..., n] as [..., groups, group], zeros after the end of a row."""
    group = x.shape[-1] if group is None else group
    return F.pad(x, (0, -x.shape[-1] % group)).unflatten(-1, (-1, group))


def _over(x, scale):
    return torch.where(scale > 0, x / scale, 0)


def _stored(scale, dtype):
    """Return scales as dtype, at most its largest number, rounded once."""
    kind = {torch.float16: np.float16, torch.float32: np.float32}[dtype]
    scale = scale.clamp(max=torch.finfo(dtype).max)
    return torch.from_numpy(scale.numpy().astype(kind))  # torch would go by float32


def int_groups(bits, group, affine=False):
    """Return the Format of integers by group: symmetric, or affine with a zero point.

    Taught in notebook 12.
    """
    kind = " affine" if affine else ""
    name = f"int{bits} g{group}{kind}"
    rule = AffineScale() if affine else FloatScale()
    return Format(name, IntElement(bits, signed=not affine), rule, group)


def gptq_round(form, w, h, damping=0.01):
    """Return w rounded to a Format by GPTQ, float32; scales as form gives them to w.

    w: float [out, n]; h: sum x x^T over the inputs [n, n]. Raises ValueError as gptq.
    Source: Frantar et al. 2022 (arXiv 2210.17323), section 3. Taught in notebook 12.
    """
    grid = form.grid(form.encode(w).scales, w.shape[1])
    columns = zip(*(t.expand(w.shape).T for t in grid), strict=True)

    def nearest(column):  # gptq_codes asks for one after the other
        scale, zero_point = next(columns)
        steps = torch.where(scale > 0, column / scale, 0)
        codes = form.element.encode(steps + zero_point)
        return scale * (form.element.decode(codes) - zero_point)

    u = inverse_factor(h, w.shape[1], damping)
    ones = torch.ones(len(w)).double()
    return gptq_codes(w.double(), u, ones, nearest).float()


def rounded_net(net, weights, acts=None):
    """Return a copy of net, in floats, with other weights and rounded activations.

    weights: {layer: as many numbers as its weights}, named as read_layers does; acts: a
    Format that rounds, along the channels, what enters each layer but the first; None:
    no rounding. Raises ValueError as read_layers. Used in notebooks 12 and 13.
    """
    net = without_batch_norms(net)

    def rounded(_, inputs):
        return (acts.round(inputs[0].movedim(1, -1)).movedim(-1, 1),)

    for place, name in enumerate(read_layers(net)):
        layer = net.get_submodule(name)
        layer.weight.data = weights[name].detach().reshape(layer.weight.shape)
        if acts is not None and place > 0:
            layer.register_forward_pre_hook(rounded)
    return net


NF4 = TableElement(normal_float())
MX = {
    "MXINT8": IntElement(8, 2.0**-6),
    "MXFP8 E4M3": E4M3,
    "MXFP8 E5M2": E5M2,
    "MXFP6 E3M2": E3M2,
    "MXFP6 E2M3": E2M3,
    "MXFP4": E2M1,
}
ROW = FloatScale(torch.float32)  # notebook 04's: a scale for each output channel
FORMATS = {
    form.name: form
    for form in (
        *(Format(f"int{bits}", IntElement(bits), ROW) for bits in (8, 6, 5, 4, 3)),
        *(int_groups(4, group, a) for a in (False, True) for group in (128, 64, 32)),
        Format("NF4", NF4, FloatScale(torch.float32), 64),
        Format("NF4 double", NF4, DoubleScale(), 64),
        Format("FP8 E4M3", E4M3, ROW),
        Format("FP8 E5M2", E5M2, ROW),
        Format("FP4 E2M1", E2M1, ROW),
        *(Format(name, element, PowerScale(), 32) for name, element in MX.items()),
        Format("NVFP4", E2M1, TensorAndBlockScale(), 16),
        Format("ternary", TernaryElement(), MeanScale()),
    )
}
