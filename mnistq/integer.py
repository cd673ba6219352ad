"""The network on codes: quantize_net, QuantizedNet, its file. Notebooks 04 and 09."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mnistq.data import IMAGE_SHAPE
from mnistq.files import write_whole
from mnistq.layers import (
    Flatten,
    Layer,
    MaxPool,
    read_parts,
    tensor_names,
)
from mnistq.mnistq_file import network_bytes, network_parts
from mnistq.quantizers import (
    QTensor,
    along_axis,
    bits_by_name,
    calc_scale_zero_point,
    check_grid,
    check_images,
    code_range,
    dequantize_tensor,
    quantize_tensor,
)
from mnistq.steps import (
    QuantizedFlatten,
    QuantizedLayer,
    QuantizedMaxPool,
    quantized_layer,
)

LARGEST = 2**28  # bytes of a file that load reads


def quantize_weight(w, bits=8, per_channel=True):
    """Return QTensor of a layer's weights: symmetric, signed, zero_point 0.

    scale = max|w| / (2**(bits-1) - 1), for each output channel or for the whole tensor.
    At 1 bit the codes are -1 and +1 and scale is mean|w|, which minimises the squared
    error. w: float [out, ...]. Source: Krishnamoorthi 2018, section 2; 1 bit: Rastegari
    et al. 2016 (arXiv 1603.05279), equation 6. Taught in notebook 04.
    """
    axis = 0 if per_channel else None
    if bits > 1:
        return quantize_tensor(w, bits, signed=True, symmetric=True, axis=axis)
    magnitude = w.abs().flatten(1).mean(1) if per_channel else w.abs().mean()
    scale = magnitude.clamp(min=torch.finfo(torch.float32).tiny)
    codes = torch.where(w < 0, -1, 1).to(torch.int8)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return QTensor(codes, scale, zero_point, axis)


@dataclass(frozen=True, eq=False)
class QuantizedNet:
    """An ordered list of steps from the input's codes to the logits'; of quantize_net.

    net(images float32 [N, *in_shape]) -> logits float32, [N, 10] for Net.
    Taught in notebook 04.
    """

    steps: tuple
    in_shape: tuple
    in_bits: int
    in_scale: float
    in_zero_point: int

    @property
    def layers(self):
        """{name: QuantizedLayer}, in the order of computation."""
        return {s.name: s for s in self.steps if isinstance(s, QuantizedLayer)}

    @property
    def names(self):
        """The names of the tensors that enter the layers, and of the last one."""
        return (*self.layers, self.steps[-1].output)

    @property
    def shapes(self):
        """{tensor: shape of one image}, all tensors in the order of computation."""
        shapes = {self.steps[0].inputs[0]: self.in_shape}
        for step in self.steps:
            shapes[step.output] = step.shape(*(shapes[name] for name in step.inputs))
        return shapes

    def __call__(self, images):
        *_, last = self.layers.values()
        grid = (last.out_scale, last.out_zero_point)
        check_images(images, self.in_shape)
        parts = [self._run(batch)[self.steps[-1].output] for batch in images.split(50)]
        return dequantize_tensor(QTensor(_unsigned(torch.cat(parts, -1)), *grid))

    def codes(self, images):
        """Return {"conv1": uint8 codes entering conv1, ..., "output": logits' codes}.

        Shapes as in the float network, batch first.
        Raises ValueError for images of another shape, empty or not finite.
        """
        check_images(images, self.in_shape)
        parts = [self._run(batch) for batch in images.split(50)]
        return {
            name: _unsigned(torch.cat([part[name] for part in parts], -1))
            for name in self.names
        }

    def _run(self, images):
        """Return {tensor: int8 codes - 128, batch last}."""
        grid = (self.in_scale, self.in_zero_point)
        q = quantize_tensor(images.cpu(), self.in_bits, *grid)
        a = (q.tensor ^ 128).view(torch.int8).movedim(0, -1).contiguous()
        tensors = {self.steps[0].inputs[0]: a}
        for step in self.steps:
            tensors[step.output] = step(*(tensors[name] for name in step.inputs))
        return tensors

    @property
    def nbytes(self):
        """Bytes to store it: each step's, and the input's grid (4 + 1)."""
        return sum(step.nbytes for step in self.steps) + 4 + 1

    @property
    def requantize(self):
        """The arithmetic between layers, "fixed" or "float"; see quantize_net."""
        in_floats = any(layer.m0 is None for layer in self.layers.values())
        return "float" if in_floats else "fixed"

    def save(self, path):
        """Write the network to one file, which load reads. Taught in notebook 09."""
        write_whole(path, network_bytes(self))

    @classmethod
    def load(cls, path, requantize=None):
        """Return the network that save wrote. Nothing in the file is ever executed.

        requantize: "fixed" or "float"; without it, what the network was saved with.
        Raises ValueError for a file that is missing, not of this format, truncated,
        altered, or that describes no network. Taught in notebook 09.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path} is missing: write it with QuantizedNet.save.")
        with path.open("rb") as file:
            content = file.read(LARGEST)
        try:
            return cls(*network_parts(content, requantize))
        except Exception as error:  # whatever a stranger may have put there
            raise ValueError(f"{path} cannot be used: {error}") from error


def _unsigned(a):
    """Return uint8 codes, batch first, from int8 codes - 128, batch last."""
    return (a.view(torch.uint8) ^ 128).movedim(-1, 0)


def quantize_net(
    net,
    ranges,
    weight_bits=8,
    act_bits=8,
    per_channel=True,
    requantize="fixed",
    weights=None,
):
    """Return the QuantizedNet of net; net itself is only read.

    net: what read_parts can read. weights: quantize_weight; activations: unsigned
    affine grids over ranges, which calibrate returns; bias: round(b / (in_scale *
    weight_scale)) in int32, 0 where there is none.
    weight_bits, act_bits: 1 to 8, one int or a dict by layer name; one int for act_bits
    holds for the input too; the logits keep 8 bits unless "output" is named.
    requantize: "fixed", integers only, as LiteRT's reference kernels; "float", float32
    multiply and round half to even, as ONNX Runtime.
    weights: {layer name: QTensor} to use as they are, signed with zero_point 0 and
    weight_bits bits; quantize_weight makes those of the layers it does not name.
    Raises ValueError for a network, bits, ranges, weights or a requantize that it
    cannot use, and where an accumulator could leave int32.
    Source: Jacob et al. 2017, sections 2.2 to 2.4; the article. Taught in notebook 04.
    """
    parts = read_parts(net)
    *layers, last = names = tensor_names(parts)
    check_ranges(ranges, names)
    weight_bits = bits_by_name(weight_bits, layers)
    act_bits = bits_by_name(act_bits, names, last)
    weights = weights or {}
    if set(weights) - set(layers):
        raise ValueError(
            f"weights are for {sorted(weights)}: name {', '.join(layers)}."
        )
    grids = {n: calc_scale_zero_point(*ranges[n], act_bits[n]) for n in names}
    following = dict(zip(layers, names[1:], strict=True))
    steps = []
    for part in parts:
        names = {"inputs": part.inputs, "output": part.output}
        if isinstance(part, Layer):
            name, out = part.name, following[part.name]
            w = weights.get(name)
            if w is None:
                w = part.module.weight.detach().cpu()
                w = quantize_weight(w, weight_bits[name], per_channel)
                w = _with_room_for_bias(
                    w, part.module, weight_bits[name], grids[name][0]
                )
            check_weight(name, w, weight_bits[name], part.module.weight.shape)
            options = {"relu": part.relu, "pool": part.pool, "requantize": requantize}
            scale = torch.as_tensor(w.scale).expand(len(w.tensor))
            step = quantized_layer(
                name,
                weight=QTensor(w.tensor, scale, None),
                weight_bits=weight_bits[name],
                bias=_rounded_bias(part.module.bias, grids[name][0], scale),
                in_grid=grids[name],
                out_grid=grids[out],
                out_bits=act_bits[out],
                **options,
                **names,
            )
        elif isinstance(part, MaxPool):
            step = QuantizedMaxPool(**names, pool=part.pool)
        elif isinstance(part, Flatten):
            step = QuantizedFlatten(**names)
        steps.append(step)
    first = layers[0]
    return QuantizedNet(tuple(steps), IMAGE_SHAPE, act_bits[first], *grids[first])


def _rounded_bias(bias, in_scale, weight_scale):
    """Return the bias as whole numbers of accumulator units, float64 [out]."""
    if bias is None:
        return torch.zeros(len(weight_scale), dtype=torch.float64)
    # float32, in this order, because that is what ONNX Runtime computes.
    acc_scale = torch.tensor(in_scale, dtype=torch.float32) * weight_scale
    return torch.round(bias.detach().cpu().double() / acc_scale.double())


def _with_room_for_bias(w, module, bits, in_scale):
    """Return w with larger scales for silent filters: bias at most 2**30 units of it.

    Silent: no weight reaches a millionth of the layer's largest, as after pruning. A
    scale of such a filter's own would leave its bias no room in int32.
    """
    if module.bias is None:
        return w
    x = module.weight.detach().cpu()
    largest = x.flatten(1).abs().amax(1)
    silent = largest <= largest.max() * 1e-6
    least = module.bias.detach().cpu().abs() / (in_scale * 2**30)
    if w.axis is None:
        largest, silent, least = largest.max(), silent.all(), least.max()
    own = torch.as_tensor(w.scale)
    own = own.where((largest > 0) | (least == 0), 0)  # quantize_weight's 1 for zeros
    scale = torch.maximum(own, least).where(silent, w.scale)
    if bool((scale == w.scale).all()):
        return w
    if bits == 1:  # signs alone
        return w._replace(scale=scale)
    zeros = torch.zeros_like(scale)
    return quantize_tensor(x, bits, scale, zeros, signed=True, axis=w.axis)


def check_ranges(ranges, names):
    """Raise ValueError unless ranges has a usable (min, max) for each name."""
    if set(ranges) != set(names):
        raise ValueError(f"ranges are for {sorted(ranges)}: give {', '.join(names)}.")
    for name, (low, high) in ranges.items():
        try:
            calc_scale_zero_point(low, high)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if max(-low, high) > torch.finfo(torch.float32).max:
            raise ValueError(f"{name}: the range [{low}, {high}] is beyond float32.")


def check_weight(name, w, bits, shape):
    """Raise ValueError unless w is a QTensor of int8 codes of shape and bits."""
    codes, zeros = w.tensor, torch.as_tensor(w.zero_point)
    low, high = code_range(bits, signed=True) if bits > 1 else (-1, 1)
    inside = low <= int(codes.min()) and int(codes.max()) <= high
    inside = inside and (bits > 1 or bool(codes.all()))  # one bit holds no 0
    if codes.dtype != torch.int8 or codes.shape != shape or not inside:
        raise ValueError(
            f"{name}'s codes are {codes.dtype} {tuple(codes.shape)} from "
            f"{int(codes.min())} to {int(codes.max())}: give int8 {tuple(shape)} from "
            f"{low} to {high}, as {bits} bits hold."
        )
    if bool(zeros.any()):
        raise ValueError(f"{name}'s weights have a zero point other than 0.")
    check_grid(along_axis(w.scale, codes, w.axis), torch.zeros(1), 0, 0)
