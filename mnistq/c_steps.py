"""What C does for each step of the integer network. Notebook 10."""

import math
from dataclasses import dataclass, replace

import torch

from mnistq.branches import QuantizedAdd, QuantizedAverage, QuantizedConcat
from mnistq.files import pack_codes
from mnistq.steps import QuantizedLayer, QuantizedMaxPool

VECTOR = 64  # numbers that a compiler takes together: one register of AVX-512


@dataclass(frozen=True)
class Pad:
    """What C does before a layer with padding: rows, columns on each side of zero."""

    sides: tuple
    zero_point: int


@dataclass(frozen=True)
class Join:
    """What C does for each input of a concatenation; first: the first of its channels.

    every: the channels of all inputs.
    """

    step: QuantizedConcat
    number: int
    first: int
    every: int


def pieces(step, inputs, output):
    """Yield what C does for a step, as (piece, inputs, output) like file_plan.

    Padding comes before a layer, and pooling after it where it takes strides.
    """
    (x, shape), (y, out_shape) = inputs[0], output
    if isinstance(step, QuantizedConcat):
        first = 0
        for number, (x, shape) in enumerate(inputs):
            yield Join(step, number, first, out_shape[0]), [(x, shape)], output
            first += shape[0]
        return
    if isinstance(step, QuantizedLayer) and any(step.padding):
        pad = Pad(step.padding, step.in_zero_point)
        size = (n + 2 * p for n, p in zip(shape[1:], step.padding, strict=True))
        padded = f"{x}.padded", (shape[0], *size)
        yield pad, inputs, padded
        step, inputs = replace(step, padding=(0, 0)), [padded]
    if isinstance(step, QuantizedLayer) and step.pool and step.stride != (1, 1):
        whole = f"{y}.whole", step.convolved(inputs[0][1])
        yield replace(step, pool=None), inputs, whole
        step, inputs = QuantizedMaxPool((whole[0],), y, step.pool), [whole]
    yield step, inputs, output


def c_layer(layer, name, shapes, packed):
    """Return what c_max_pool does, of a QuantizedLayer."""
    weight, (shape,) = layer.weight, shapes
    if weight.dim() == 2:
        weight = weight.reshape(-1, *shape)  # as large as the whole input
    out, _, *kernel = weight.shape
    rows = weight.permute(0, 2, 3, 1).flatten(1)  # as tensors lie in C's memory
    pool = layer.pool or ((1, 1), layer.stride)
    if layer.groups > 1:
        function, values, needs = _groups(rows, layer.weight_bits, packed)
    elif packed:
        function, values, needs = _packed(rows, layer.weight_bits)
    elif rows.shape[1] < VECTOR:
        function, values, needs = _short(rows, kernel, shape)
    else:
        function, values, needs = _windows(rows, math.prod(pool[0]))
    tables = {
        "weights": ("uint8_t" if packed else "weight_t", values),
        "bias": ("int32_t", _folded_bias(layer)),
        "m0": ("int32_t", layer.m0.tolist()),
        "shift": ("int8_t", layer.shift.tolist()),
    }
    text = [
        table(f"static const {kind} {name}_{part}[{len(numbers)}]", numbers)
        for part, (kind, numbers) in tables.items()
    ]
    size = (shape[1] - kernel[0] + 1, shape[2] - kernel[1] + 1)
    text.append(_layer(name, shape, out, kernel, size, pool, layer, tables))
    if layer.groups > 1:
        text[-1] = _in_groups(text[-1], name, layer.groups)
    flash = len(values) * (1 if packed else 2) + out * (4 + 4 + 1)
    return function, "\n".join(text), flash, needs


def c_max_pool(step, name, shapes, packed):
    """Return (its function, its tables as text, their bytes, {buffer: numbers})."""
    (shape,) = shapes
    text = _layer(name, shape, shape[0], (1, 1), shape[1:], step.pool)
    return "max_pool", text, 0, {}


def c_average(step, name, shapes, packed):
    """Return what c_max_pool does, of a QuantizedAverage."""
    (shape,), layer = shapes, step.as_layer(1)
    numbers = _folded_bias(layer), layer.m0.tolist(), layer.shift.tolist()
    kinds = {"bias": "int32_t", "m0": "int32_t", "shift": "int8_t"}
    text = [
        table(f"static const {kind} {name}_{part}[1]", values)
        for (part, kind), values in zip(kinds.items(), numbers, strict=True)
    ]
    sizes = shape[0], (1, 1), shape[1:], step.window
    text.append(_layer(name, shape, *sizes, layer, ["weights", *kinds]))
    text[-1] = text[-1].replace(f"{name}_weights", "0")
    return "average", "\n".join(text), 4 + 4 + 1, {}


def c_add(step, name, shapes, packed):
    """Return what c_max_pool does, of a QuantizedAdd."""
    zeros = [zero for _, zero in step.in_grids]
    fields = [math.prod(shapes[0]), zeros, *_out_of(step)]
    fields += [step.m0.tolist(), step.shift.tolist()]
    return "add", _struct("add_t", name, fields), 0, {}


def c_join(piece, name, shapes, packed):
    """Return what c_max_pool does, of one input of a QuantizedConcat."""
    (channels, *size), step = shapes[0], piece.step
    _, m0, shift = step.factors(piece.number)
    _, zero = step.in_grids[piece.number]
    fields = [math.prod(size), channels, piece.first, piece.every, zero, *_out_of(step)]
    return "join", _struct("join_t", name, [*fields, int(m0), int(shift)]), 0, {}


def c_pad(pad, name, shapes, packed):
    """Return what c_max_pool does, of the padding before a layer."""
    fields = [*shapes[0], *pad.sides, pad.zero_point]
    return "pad", _struct("pad_t", name, fields), 0, {}


C_STEPS = {
    QuantizedLayer: c_layer,
    QuantizedMaxPool: c_max_pool,
    QuantizedAverage: c_average,
    QuantizedAdd: c_add,
    Join: c_join,
    Pad: c_pad,
}
NOTES = {
    QuantizedMaxPool: "max pooling",
    QuantizedAverage: "averages",
    QuantizedAdd: "added to the next",
    Join: "its place among all channels",
    Pad: "padding",
}
DEPENDS = {  # (function, packed): the files that have to stand before it
    ("run_packed", True): ["unpack"],
    ("run_groups", True): ["unpack", "kernel_packed"],
    ("run_groups", False): ["kernel"],
    ("add", True): ["code"],
    ("add", False): ["code"],
    ("join", True): ["code"],
    ("join", False): ["code"],
}


def _layer(name, shape, out, kernel, size, pool, layer=None, tables=()):
    (rows, columns), (down, right) = pool
    height, width = (size[0] - rows) // down + 1, (size[1] - columns) // right + 1
    numbers = [*shape, out, *kernel, height, width, *pool[0], *pool[1]]
    if layer:
        numbers += [layer.out_zero_point, layer.low, layer.high, layer.weight_bits]
    else:
        numbers += [0] * 4
    fields = [*map(str, numbers), *(f"{name}_{part}" for part in tables)]
    fields += [] if tables else ["0"] * 4
    return f"static const layer_t {name} = {{\n    {', '.join(fields)}\n}};\n"


def _out_of(step):
    return step.out_zero_point, step.low, step.high


def _struct(kind, name, fields):
    """Return a constant struct of C as text; fields: numbers and lists of them."""
    values = [
        f"{{{', '.join(map(str, field))}}}" if isinstance(field, list) else str(field)
        for field in fields
    ]
    return f"static const {kind} {name} = {{\n    {', '.join(values)}\n}};\n"


def _in_groups(text, name, groups):
    """Return a layer_t's text as that of a groups_t."""
    text = text.replace(f"layer_t {name} = {{", f"groups_t {name} = {{{{")
    return text.replace("\n};", f"\n}}, {groups}}};")


def _groups(rows, bits, packed):
    """Return (function, stored numbers, buffers) of weights that read a group each."""
    if packed:
        _, values, needs = _packed(rows, bits)
        return "run_groups", values, needs
    return "run_groups", rows.flatten().tolist(), {}


def _packed(rows, bits):
    """Return (function, stored numbers, buffers) of weights in bits each."""
    codes = (rows + 1) // 2 if bits == 1 else rows.short() + 2 ** (bits - 1)
    values = [*pack_codes(codes, bits).tolist(), 0]  # it reads a byte ahead
    return "run_packed", values, {"int8_t kernel": rows.shape[1]}


def _windows(rows, pooled):
    """Return the same of windows that fill vectors, pooled of them at once."""
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % VECTOR))
    return "run", rows.flatten().tolist(), {"code_t windows": pooled * rows.shape[1]}


def _short(rows, kernel, shape):
    """Return the same of windows that do not: a vector is made of places."""
    channels, height, width = shape
    step, length = width * channels, kernel[1] * channels
    used = (height - kernel[0] + 1) * step - length + 1
    places = (height - kernel[0] + 1) * (width - kernel[1] + 1)  # at most
    needs = {
        "int32_t wide": height * step + -used % VECTOR,
        "int32_t sums": used + -used % VECTOR,
        "int32_t best": places,
        "uint8_t codes": places,
    }
    return "run_short", rows.flatten().tolist(), needs


def _folded_bias(layer):
    """Return bias - in_zero_point * sum(weight), for codes from 0 to 255."""
    sums = layer.weight.flatten(1).sum(1, dtype=torch.int64)
    return (layer.bias.long() - layer.in_zero_point * sums).tolist()


def table(name, numbers):
    rows = [numbers[i : i + 16] for i in range(0, len(numbers), 16)]
    lines = ["    " + ", ".join(map(_number, row)) for row in rows]
    return f"{name} = {{\n" + ",\n".join(lines) + "\n};\n"


def _number(value):
    return "-2147483647 - 1" if value == -(2**31) else str(value)
