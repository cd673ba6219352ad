"""The network on codes: quantize_net, QuantizedNet, its file. Notebooks 04 and 09."""

from dataclasses import dataclass

import torch

from mnistq.branches import quantized_add, quantized_average, quantized_concat
from mnistq.data import IMAGE_SHAPE
from mnistq.files import read_whole, write_whole
from mnistq.layers import read_parts, tensor_names
from mnistq.mnistq_file import network_bytes, network_parts
from mnistq.parts import (
    Add,
    Average,
    Concat,
    Flatten,
    Layer,
    MaxPool,
    padding,
    tensor_groups,
)
from mnistq.quantizers import (
    QTensor,
    bits_by_name,
    calc_scale_zero_point,
    check_images,
    dequantize_tensor,
    quantize_tensor,
)
from mnistq.steps import (
    QuantizedFlatten,
    QuantizedLayer,
    QuantizedMaxPool,
    limits,
    quantized_layer,
)
from mnistq.weights import layer_weight, rounded_bias


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
    def in_name(self):
        """The name of the tensor that the network reads."""
        return self.steps[0].inputs[0]

    @property
    def names(self):
        """The names of the tensors that have a grid of their own, the last one last."""
        groups = tensor_groups(self.steps, QuantizedLayer)
        return tuple(dict.fromkeys(groups.values()))

    @property
    def grids(self):
        """{tensor: (scale, zero_point) of its codes}, all tensors."""
        grids = {self.in_name: (self.in_scale, self.in_zero_point)}
        for step in self.steps:
            grids[step.output] = grids[step.inputs[0]]
            if not step.keeps_grid:
                grids[step.output] = step.out_scale, step.out_zero_point
        return grids

    @property
    def shapes(self):
        """{tensor: shape of one image}, all tensors in the order of computation."""
        shapes = {self.in_name: self.in_shape}
        for step in self.steps:
            shapes[step.output] = step.shape(*(shapes[name] for name in step.inputs))
        return shapes

    def __call__(self, images):
        check_images(images, self.in_shape)
        last = self.steps[-1].output
        parts = [self._run(batch)[last] for batch in images.split(50)]
        q = QTensor(_unsigned(torch.cat(parts, -1)), *self.grids[last])
        return dequantize_tensor(q)

    def codes(self, images, names=None):
        """Return {"conv1": uint8 codes entering conv1, ..., "output": logits' codes}.

        Shapes as in the float network, batch first. names: of other tensors to return,
        any that a step reads or makes.
        Raises ValueError for images of another shape, empty or not finite.
        """
        check_images(images, self.in_shape)
        parts = [self._run(batch) for batch in images.split(50)]
        return {
            name: _unsigned(torch.cat([part[name] for part in parts], -1))
            for name in names or self.names
        }

    def _run(self, images):
        """Return {tensor: int8 codes - 128, batch last}."""
        grid = (self.in_scale, self.in_zero_point)
        q = quantize_tensor(images.cpu(), self.in_bits, *grid)
        a = (q.tensor ^ 128).view(torch.int8).movedim(0, -1).contiguous()
        tensors = {self.in_name: a}
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

        def read(content):
            return cls(*network_parts(content, requantize))

        return read_whole(read, path, "write it with QuantizedNet.save")


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
    in_shape=IMAGE_SHAPE,
):
    """Return the QuantizedNet of net; net itself is only read.

    net: what read_parts can read. weights: quantize_weight; activations: unsigned
    affine grids over ranges, which calibrate returns; bias: round(b / (in_scale *
    weight_scale)) in int32, 0 where there is none.
    weight_bits, act_bits: 1 to 8, one int or a dict, by layer for weights, by tensor as
    in ranges for activations; one int for act_bits holds for the input too; the logits
    keep 8 bits unless "output" is named.
    requantize: "fixed", integers only, as LiteRT's reference kernels; "float", float32
    multiply and round half to even, as ONNX Runtime.
    weights: {layer name: QTensor} to use as they are, signed with zero_point 0 and
    weight_bits bits; quantize_weight makes those of the layers it does not name.
    in_shape: of one image, (channels, height, width).
    Raises ValueError for a network, bits, ranges, weights or a requantize that it
    cannot use, and where an accumulator could leave int32.
    Source: Jacob et al. 2017, sections 2.2 to 2.4; the article. Taught in notebook 04.
    """
    parts = read_parts(net, in_shape=in_shape)
    layers = tuple(part.name for part in parts if isinstance(part, Layer))
    *_, last = names = tensor_names(parts)
    check_ranges(ranges, names)
    weight_bits = bits_by_name(weight_bits, layers)
    act_bits = bits_by_name(act_bits, names, last)
    weights = weights or {}
    if set(weights) - set(layers):
        raise ValueError(
            f"weights are for {sorted(weights)}: name {', '.join(layers)}."
        )
    grids = {n: calc_scale_zero_point(*ranges[n], act_bits[n]) for n in names}
    groups = tensor_groups(parts, Layer)
    steps = []
    for part in parts:
        out = groups[part.output]
        fields = {"inputs": part.inputs, "output": part.output}
        if not part.keeps_grid:
            low, high = limits(grids[out], act_bits[out], part.relu, part.top)
            fields |= {"low": low, "high": high, "out_bits": act_bits[out]}
            fields["requantize"] = requantize
        in_grids = [grids[groups[x]] for x in part.inputs]
        if isinstance(part, Layer):
            bits, given = weight_bits[part.name], weights.get(part.name)
            w = layer_weight(part, bits, per_channel, in_grids[0][0], given)
            step = _layer_step(part, w, bits, in_grids[0], grids[out], fields)
        else:
            step = _STEPS[type(part)](part, in_grids, grids[out], fields)
        steps.append(step)
    first = groups[parts[0].inputs[0]]
    in_shape = tuple(map(int, in_shape))
    return QuantizedNet(tuple(steps), in_shape, act_bits[first], *grids[first])


def _layer_step(part, w, bits, in_grid, out_grid, fields):
    scale = torch.as_tensor(w.scale).expand(len(w.tensor))
    if w.tensor.dim() == 4:
        conv = part.module
        fields = fields | {"stride": tuple(conv.stride), "groups": conv.groups}
        fields["padding"] = padding(conv)
    return quantized_layer(
        part.name,
        weight=QTensor(w.tensor, scale, None),
        weight_bits=bits,
        bias=rounded_bias(part.module.bias, in_grid[0], scale),
        in_grid=in_grid,
        out_grid=out_grid,
        pool=part.pool,
        **fields,
    )


def _average_step(part, in_grids, out_grid, fields):
    return quantized_average(
        window=part.window, **_rescaled(in_grids, out_grid, fields)
    )


def _add_step(part, in_grids, out_grid, fields):
    return quantized_add(**_rescaled(in_grids, out_grid, fields))


def _concat_step(part, in_grids, out_grid, fields):
    return quantized_concat(**_rescaled(in_grids, out_grid, fields))


def _rescaled(in_grids, out_grid, fields):
    scale, zero = out_grid
    grids = {"in_grids": tuple(in_grids), "out_scale": scale, "out_zero_point": zero}
    return fields | grids


def _max_pool_step(part, in_grids, out_grid, fields):
    return QuantizedMaxPool(**fields, pool=part.pool)


def _flatten_step(part, in_grids, out_grid, fields):
    return QuantizedFlatten(**fields)


_STEPS = {
    Average: _average_step,
    Add: _add_step,
    Concat: _concat_step,
    MaxPool: _max_pool_step,
    Flatten: _flatten_step,
}


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
