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

from mnistq.files import pack_codes, take, unpack_codes
from mnistq.quantizers import QTensor, bits_by_name, check_grid, code_range
from mnistq.steps import (
    QuantizedFlatten,
    QuantizedLayer,
    QuantizedMaxPool,
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
        before = [shapes[name] for name in step.inputs]
        if isinstance(step, QuantizedLayer):
            _, *wanted = step.weight.shape
            if [(len(s), s[0]) for s in before] != [(len(wanted), wanted[0])]:
                raise ValueError(f"{step.name} does not fit what enters it.")
        shape = step.shape(*before)
        if min(shape) < 1:
            raise ValueError(f"nothing is left of an image at {step.output}.")
        shapes[step.output] = shape
        steps.append(step)
    if stream.read(1):
        raise ValueError("it is longer than its network.")
    return tuple(steps), in_shape, in_bits, *grid


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


def _layer_entry(step):
    return {
        "kind": "layer",
        "name": step.name,
        "inputs": step.inputs,
        "output": step.output,
        "shape": tuple(step.weight.shape),
        "weight_bits": step.weight_bits,
        "relu": step.low == step.out_zero_point,
        "pool": step.pool,
        "bits": step.high.bit_length(),
        "grid": (step.out_scale, step.out_zero_point),
    }


def _read_layer(entry, stream, grids, requantize):
    out, *rest = shape = [int(n) for n in entry["shape"]]
    if len(shape) not in (2, 4) or min(shape) < 1:
        raise ValueError(f"{entry['name']} has the shape {shape}.")
    bits, out_bits = _bits(entry["weight_bits"]), _bits(entry["bits"])
    count = out * math.prod(rest)
    packed = take(stream, "u1", math.ceil(count * bits / 8))
    codes = unpack_codes(packed, bits, count).to(torch.int16) << (bits == 1)
    weight = (codes - 2 ** (bits - 1)).to(torch.int8).reshape(shape)
    scale, bias = take(stream, "<f4", out), take(stream, "<i4", out)
    check_grid(scale, torch.zeros(out), 0, 0)
    grids[entry["output"]] = _grid(entry["grid"], out_bits)
    return quantized_layer(
        name=entry["name"],
        inputs=entry["inputs"],
        output=entry["output"],
        weight=QTensor(weight, scale, None),
        weight_bits=bits,
        bias=bias,
        in_grid=grids[entry["inputs"][0]],
        out_grid=grids[entry["output"]],
        out_bits=out_bits,
        requantize=requantize,
        relu=bool(entry["relu"]),
        pool=_pool(entry["pool"]),
    )


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


_ENTRIES = {
    QuantizedLayer: _layer_entry,
    QuantizedMaxPool: _max_pool_entry,
    QuantizedFlatten: _flatten_entry,
}
_READERS = {
    "layer": _read_layer,
    "max_pool": _read_max_pool,
    "flatten": _read_flatten,
}
