"""The integer network as a file that a web page loads."""

import base64
import json
from pathlib import Path

import numpy as np

from mnistq.c_file import pixel_codes
from mnistq.files import write_whole
from mnistq.mnistq_file import packed_weights
from mnistq.plan import check_requantize, file_plan
from mnistq.steps import QuantizedLayer, QuantizedMaxPool


def export_js(qnet, path):
    """Write qnet to path, a script: mnistq.nets[stem of path] of mnistq/js/network.js.

    The script calls mnistq.add with the steps as JSON and, in base64, the bytes of all
    tables: the 256 codes of a pixel, then of each layer the weights in weight_bits bits
    each, int32 biases and multipliers, int8 shifts. mnistq.run gives the same codes.
    Raises ValueError unless requantize is "fixed", for the page has only integers, and
    for a step that it does not have.
    """
    check_requantize(qnet, "fixed", "The page")
    steps, tables = [], [bytes(pixel_codes(qnet))]
    for step, ((_, in_shape), *_), _ in file_plan(qnet):
        if type(step) not in JS_STEPS or not plain(step):
            raise ValueError(
                f"{step.output} comes from a {type(step).__name__} that the page does "
                "not have: it takes chains of layers without stride, padding or "
                "groups, and max pooling."
            )
        entry, data = JS_STEPS[type(step)](step, in_shape)
        steps.append({"shape": list(in_shape), **entry})
        tables.append(data)
    *_, last = qnet.layers.values()
    net = {
        "steps": steps,
        "scale": last.out_scale,
        "zero": last.out_zero_point,
        "data": base64.b64encode(b"".join(tables)).decode(),
    }
    path = Path(path)
    text = f"mnistq.add({json.dumps(path.stem)}, {json.dumps(net)});\n"
    write_whole(path, text.encode())


def plain(step):
    """Return whether a step is no convolution with stride, padding or groups."""
    settings = ("stride", (1, 1)), ("padding", (0, 0)), ("groups", 1)
    return all(getattr(step, name, value) == value for name, value in settings)


def js_layer(layer, shape):
    """Return (what the script says of a QuantizedLayer, the bytes of its tables)."""
    out, *kernel = layer.weight.shape
    rows, columns = kernel[1:] or shape[1:]  # as large as the whole input
    entry = {
        "kind": "layer",
        "out": out,
        "kernel": [rows, columns],
        "pool": sum(layer.pool or ((1, 1), (1, 1)), ()),
        "bits": layer.weight_bits,
        "inZero": layer.in_zero_point,
        "zero": layer.out_zero_point,
        "low": layer.low,
        "high": layer.high,
    }
    words = [x.numpy().astype("<i4") for x in (layer.bias, layer.m0)]
    tables = [packed_weights(layer).numpy(), *words, layer.shift.numpy().astype("i1")]
    return entry, b"".join(np.ascontiguousarray(x).tobytes() for x in tables)


def js_max_pool(step, shape):
    """Return (what the script says of max pooling, no bytes)."""
    return {"kind": "max_pool", "pool": sum(step.pool, ())}, b""


JS_STEPS = {QuantizedLayer: js_layer, QuantizedMaxPool: js_max_pool}
