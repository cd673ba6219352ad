"""The integer network as one file of this project's own. Notebook 09.

MAGIC, the SHA-256 of all that follows, a line of JSON (steps, shapes, bits and grids),
then for each layer packed weights, float32 weight scales, int32 biases, all little
endian. Nothing in it is ever executed.
"""

import hashlib
import io
import json
import math

import torch

from mnistq.branches import (
    QuantizedAdd,
    QuantizedAverage,
    QuantizedConcat,
    quantized_add,
    quantized_average,
    quantized_concat,
)
from mnistq.files import pack_codes, take, unpack_codes
from mnistq.quantizers import QTensor, bits_by_name, check_grid, code_range
from mnistq.steps import (
    QuantizedFlatten,
    QuantizedLayer,
    QuantizedMaxPool,
    limits,
    quantized_layer,
)

MAGIC = b"mnistq network 2\n"  # how the file begins


def network_bytes(qnet):
    """Return the content of the file that holds a QuantizedNet."""
    header = {
        "requantize": qnet.requantize,
        "shape": qnet.in_shape,
        "bits": qnet.in_bits,
        "grid": (qnet.in_scale, qnet.in_zero_point),
        "steps": [_ENTRIES[type(step)](step) for step in qnet.steps],
    }
    body = json.dumps(header, separators=(",", ":")).encode() + b"\n"
    body += b"".join(map(_arrays, qnet.layers.values()))
    return MAGIC + hashlib.sha256(body).digest() + body


def network_parts(content, requantize=None):
    """Return (steps, in_shape, in_bits, in_scale, in_zero_point) of such a content.

    requantize: as in QuantizedNet.load. Raises ValueError for a content that is not of
    this format, truncated or altered, and other errors for one that makes no sense.
    """
    body = content[len(MAGIC) + 32 :]
    if not content.startswith(MAGIC):
        raise ValueError("it is not a file that QuantizedNet.save wrote.")
    if MAGIC + hashlib.sha256(body).digest() + body != content:
        raise ValueError(
            "it was truncated or altered: save it again, or restore it with git "
            "checkout if it came with the project."
        )
    line, _, rest = body.partition(b"\n")
    header, stream = json.loads(line), io.BytesIO(rest)
    requantize = requantize or header["requantize"]
    in_shape, in_bits = tuple(map(int, header["shape"])), _bits(header["bits"])
    grid = _grid(header["grid"], in_bits)
    first = header["steps"][0]["inputs"][0]
    grids, shapes, steps = {first: grid}, {first: in_shape}, []
    for entry in header["steps"]:
        entry["inputs"] = tuple(entry["inputs"])
        step = _READERS[entry["kind"]](entry, stream, grids, requantize)
        add_shape(step, shapes)
        steps.append(step)
    if stream.read(1):
        raise ValueError("it is longer than its network.")
    return tuple(steps), in_shape, in_bits, *grid


def add_shape(step, shapes):
    """Add the shape that leaves a step to shapes, {tensor: shape of one image}.

    Raises ValueError for a step that does not fit what enters it, or leaves nothing.
    """
    before = [shapes[name] for name in step.inputs]
    if isinstance(step, QuantizedLayer):
        _, *wanted = step.weight.shape
        wanted = len(wanted), wanted[0] * step.groups
        if [(len(s), s[0]) for s in before] != [wanted]:
            raise ValueError(f"{step.name} does not fit what enters it.")
    if step.output in shapes:
        raise ValueError(f"{step.output} is made twice.")
    shape = step.shape(*before)
    if min(shape) < 1:
        raise ValueError(f"nothing is left of an image at {step.output}.")
    shapes[step.output] = shape


def packed_weights(layer):
    """Return a layer's weights, uint8 [bytes], in weight_bits bits each, from 0 up."""
    bits = layer.weight_bits
    codes = layer.weight.to(torch.int16) + 2 ** (bits - 1)
    codes = codes >> (bits == 1)  # there -1 and 1 become 0 and 2, and now 0, 1
    return pack_codes(codes, bits)


def _arrays(layer):
    """Return the bytes of a layer's weights, scales and biases."""
    packed = packed_weights(layer).numpy().tobytes()
    scales = layer.weight_scale.numpy().astype("<f4").tobytes()
    return packed + scales + layer.bias.numpy().astype("<i4").tobytes()


def _bits(value):
    return bits_by_name(value, ("codes",))["codes"]


def _grid(values, bits):
    """Return (scale, zero_point) as stored, or raise ValueError."""
    scale, zero_point = float(values[0]), int(values[1])
    check_grid(torch.tensor(scale), torch.tensor(zero_point), *code_range(bits))
    return scale, zero_point


# A step as it stands in the file's line of JSON, and back: a pair for each kind.


_PLAIN = {"stride": (1, 1), "padding": (0, 0), "groups": 1}  # what goes without saying


def _layer_entry(step):
    entry = {
        "kind": "layer",
        "name": step.name,
        "inputs": step.inputs,
        "output": step.output,
        "shape": tuple(step.weight.shape),
        "weight_bits": step.weight_bits,
        "relu": step.low == step.out_zero_point,
        "pool": step.pool,
        **_out_entry(step),
    }
    settings = {key: getattr(step, key) for key in _PLAIN}
    return entry | {k: v for k, v in settings.items() if v != _PLAIN[k]}


def _out_entry(step):
    """Return what the file says of the codes that leave a step."""
    entry = {"bits": step.out_bits}
    entry["grid"] = step.out_scale, step.out_zero_point
    _, highest = code_range(step.out_bits)
    return entry | ({"high": step.high} if step.high < highest else {})


def _read_out(entry):
    """Return (bits, grid, low, high) of the codes that leave a step."""
    bits = _bits(entry["bits"])
    grid = _grid(entry["grid"], bits)
    low, highest = limits(grid, bits, bool(entry["relu"]))
    high = int(entry.get("high", highest))
    if not low <= high <= highest:
        raise ValueError(f"{high} is no highest code of {entry['output']}.")
    return bits, grid, low, high


def _read_layer(entry, stream, grids, requantize):
    out, *rest = shape = [int(n) for n in entry["shape"]]
    if len(shape) not in (2, 4) or min(shape) < 1:
        raise ValueError(f"{entry['name']} has the shape {shape}.")
    bits = _bits(entry["weight_bits"])
    count = out * math.prod(rest)
    packed = take(stream, "u1", math.ceil(count * bits / 8))
    codes = unpack_codes(packed, bits, count).to(torch.int16) << (bits == 1)
    weight = (codes - 2 ** (bits - 1)).to(torch.int8).reshape(shape)
    scale, bias = take(stream, "<f4", out), take(stream, "<i4", out)
    check_grid(scale, torch.zeros(out), 0, 0)
    out_bits, out_grid, low, high = _read_out(entry)
    grids[entry["output"]] = out_grid
    return quantized_layer(
        name=entry["name"],
        inputs=entry["inputs"],
        output=entry["output"],
        weight=QTensor(weight, scale, None),
        weight_bits=bits,
        bias=bias,
        in_grid=grids[entry["inputs"][0]],
        out_grid=out_grid,
        requantize=requantize,
        low=low,
        high=high,
        pool=_pool(entry["pool"]),
        out_bits=out_bits,
        **_settings(entry, shape),
    )


def _settings(entry, shape):
    """Return {"stride", "padding", "groups"} of a convolution."""
    settings = {key: entry.get(key, plain) for key, plain in _PLAIN.items()}
    groups = int(settings["groups"])
    stride, padding = (
        tuple(int(n) for n in settings[key]) for key in ("stride", "padding")
    )
    settings = {"stride": stride, "padding": padding, "groups": groups}
    usable = len(stride) == len(padding) == 2 and min(stride) > 0 <= min(padding)
    if not usable or groups < 1 or shape[0] % groups:
        raise ValueError(f"{entry['name']} has settings that make no sense: {settings}")
    if len(shape) == 2 and settings != _PLAIN:
        raise ValueError(f"{entry['name']} is no convolution, and has {settings}.")
    return settings


def _pool(pairs):
    if pairs is None:
        return None
    kernel, stride = (tuple(int(n) for n in pair) for pair in pairs)
    if len(kernel) != 2 or len(stride) != 2 or min(*kernel, *stride) < 1:
        raise ValueError(f"{pairs} is no kernel and stride of max pooling.")
    return kernel, stride


def _max_pool_entry(step):
    names = {"inputs": step.inputs, "output": step.output}
    return {"kind": "max_pool", "pool": step.pool, **names}


def _read_max_pool(entry, stream, grids, requantize):
    grids[entry["output"]] = grids[entry["inputs"][0]]
    return QuantizedMaxPool(entry["inputs"], entry["output"], _pool(entry["pool"]))


def _flatten_entry(step):
    return {"kind": "flatten", "inputs": step.inputs, "output": step.output}


def _read_flatten(entry, stream, grids, requantize):
    grids[entry["output"]] = grids[entry["inputs"][0]]
    return QuantizedFlatten(entry["inputs"], entry["output"])


def _average_entry(step):
    return {"kind": "average", "window": step.window, **_rescaled_entry(step)}


def _add_entry(step):
    return {"kind": "add", **_rescaled_entry(step)}


def _concat_entry(step):
    return {"kind": "concat", **_rescaled_entry(step)}


def _rescaled_entry(step):
    names = {"inputs": step.inputs, "output": step.output}
    return {**names, "relu": step.low == step.out_zero_point, **_out_entry(step)}


def _read_average(entry, stream, grids, requantize):
    window = _pool(entry["window"])
    return quantized_average(requantize, window, **_rescaled(entry, grids, 1))


def _read_add(entry, stream, grids, requantize):
    return quantized_add(requantize, **_rescaled(entry, grids, 2))


def _read_concat(entry, stream, grids, requantize):
    count = max(1, len(entry["inputs"]))
    return quantized_concat(requantize, **_rescaled(entry, grids, count))


def _rescaled(entry, grids, count):
    """Return the fields of a step that takes so many inputs to another grid."""
    inputs = entry["inputs"]
    if len(inputs) != count:
        raise ValueError(f"{entry['output']} is made of {len(inputs)} tensors.")
    bits, grid, low, high = _read_out(entry)
    grids[entry["output"]] = grid
    return {
        "inputs": inputs,
        "output": entry["output"],
        "in_grids": tuple(grids[name] for name in inputs),
        "out_scale": grid[0],
        "out_zero_point": grid[1],
        "out_bits": bits,
        "low": low,
        "high": high,
    }


_ENTRIES = {
    QuantizedLayer: _layer_entry,
    QuantizedAverage: _average_entry,
    QuantizedAdd: _add_entry,
    QuantizedConcat: _concat_entry,
    QuantizedMaxPool: _max_pool_entry,
    QuantizedFlatten: _flatten_entry,
}
_READERS = {
    "layer": _read_layer,
    "average": _read_average,
    "add": _read_add,
    "concat": _read_concat,
    "max_pool": _read_max_pool,
    "flatten": _read_flatten,
}
