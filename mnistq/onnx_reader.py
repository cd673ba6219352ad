"""An .onnx file of codes, read into an integer network. Used in notebook 09."""

from collections import Counter
from functools import partial
from math import prod

import numpy as np

from mnistq.branches import quantized_add, quantized_average, quantized_concat
from mnistq.draft import Draft
from mnistq.files import read_whole
from mnistq.onnx_qdq import Pairs
from mnistq.onnx_rounding import check_add, check_concat, check_mean, check_windows


def read_onnx(path):
    """Return the QuantizedNet (requantize="float") of an .onnx file of int8 codes.

    One that export_onnx wrote, or quantize_static of onnxruntime.quantization, in the
    format QDQ or QOperator, with activations of QInt8 or QUInt8 and symmetric weights.
    Tensors keep the file's names, codes of int8 being uint8 here, code + 128; images
    get 8 bits, since a file of codes does not say how many there were. Nothing in the
    file is executed, and no other file is read. Needs onnx.
    ONNX Runtime gives the same codes in its default session, which puts operators on
    codes in the places of those on floats between QuantizeLinear and DequantizeLinear;
    not with its optimizations switched off, and not on x86 without VNNI, where its
    products of uint8 and int8 saturate. Additions, concatenations and averages round
    otherwise there at some scales: a file is read if none of the codes that can occur
    differs (of additions on x86 with FMA), and refused else.
    Raises ValueError for a file that is missing, truncated or no such network, for an
    operator that no step here computes or that stays in floats, and where one rounds
    otherwise, by its name and that of the tensor it makes.
    """
    return read_whole(_network, path, "write it with export_onnx or quantize_static")


def _network(content):
    import onnx

    graph = onnx.load_model_from_string(content).graph
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    inputs = [port for port in graph.input if port.name not in constants]
    if len(inputs) != 1 or not graph.output or not graph.node:
        raise ValueError("it is no ONNX network of one input.")
    outputs = [port.name for port in graph.output]
    pairs = Pairs(graph.node, constants, _reads(graph.node, outputs))
    _each(graph.node, pairs.take)
    nodes = pairs.finish(outputs)
    draft = Draft("float", _reads(nodes, outputs))
    _start(draft, inputs[0], nodes, constants)
    ends = {}  # {float tensor: its codes}
    _each(nodes, lambda node: _add(draft, node, constants, ends))
    return draft.network(ends.get(outputs[-1], outputs[-1]))


def _reads(nodes, outputs):
    """Return how often each tensor is read, the file's outputs being read as well."""
    return Counter([x for node in nodes for x in node.input] + outputs)


def _each(nodes, take):
    """Take one node after the other; what is wrong with one names it."""
    for node in nodes:
        try:
            take(node)
        except Exception as error:  # a number or a constant that is not there
            y = ", ".join(node.output)
            raise ValueError(f"{node.op_type}, which makes {y}: {error}") from error


def _add(draft, node, constants, ends):
    if node.domain not in ("", "ai.onnx", "com.microsoft"):
        raise ValueError(f"its domain is {node.domain}.")
    if node.op_type not in ONNX_NODES:
        known = ", ".join(ONNX_NODES)
        raise ValueError(f"no step here computes it. Known are {known}.")
    ONNX_NODES[node.op_type](draft, node, constants, ends)


def _constant(tensor):
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError(f"{tensor.name} lies in another file, which is not read.")
    return numpy_helper.to_array(tensor)


def _start(draft, port, nodes, constants):
    """Let the network read the codes of the port, or those that its images become."""
    from onnx import TensorProto

    name = x = port.name
    kind = port.type.tensor_type.elem_type
    for node in nodes:
        if x in node.input:
            if kind == TensorProto.FLOAT or node.op_type not in ("MaxPool", "Flatten"):
                break
            (x,) = node.output
    else:
        raise ValueError(f"nothing computes with {x}.")
    codes = {TensorProto.UINT8: "uint8", TensorProto.INT8: "int8"}.get(kind)
    if kind == TensorProto.FLOAT and node.op_type == "QuantizeLinear":
        name = node.output[0]
    elif node.op_type not in ("QLinearConv", "QGemm") or codes is None:
        kind = TensorProto.DataType.Name(kind)
        raise ValueError(
            f"{name} is {kind} and enters {node.op_type}: only codes are read, as "
            "export_onnx and quantize_static write them."
        )
    elif constants[node.input[2]].dtype != codes:
        raise ValueError(f"{name} is {codes}, and {node.input[2]} is not.")
    shape = [d.dim_value for d in port.type.tensor_type.shape.dim][1:]
    draft.start(name, _grid(*node.input[1:3], constants), shape)


def _grid(scale, zero_point, constants):
    """Return (scale, zero_point) of two names of constants; of codes + 128 of int8."""
    scale, zero = constants[scale], constants[zero_point]
    if scale.size != 1:
        raise ValueError(f"{zero_point} belongs to {scale.size} scales: one is read.")
    return float(scale.reshape(())), _code(zero, zero_point)


def _code(constant, name):
    """Return a constant, one code, as uint8 has it."""
    if constant.size != 1 or constant.dtype not in (np.uint8, np.int8):
        kind = f"{constant.dtype} {constant.shape}"
        raise ValueError(f"{name} is {kind}: one number of uint8 or int8 is read.")
    return int(constant.reshape(())) + (128 if constant.dtype == np.int8 else 0)


def _settings(node, only, **plain):
    """Return a node's attributes, those that it lacks being plain.

    only: {attribute: the one value that it may have}.
    """
    from onnx.helper import get_attribute_value

    given = {a.name: get_attribute_value(a) for a in node.attribute}
    for key, value in given.items():
        if key not in plain and value != only.get(key):
            raise ValueError(f"its {key} is {value}: {only.get(key)} is read.")
    return plain | given


_PLAIN = {"dilations": [1, 1], "auto_pad": b"NOTSET"}


def _quantize(draft, node, constants, ends):
    if node.output[0] not in draft.shapes:  # it begins with what the images become
        raise ValueError("only images are quantized here.")


def _conv(draft, node, constants, ends):
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = node.input
    only = _PLAIN | {"kernel_shape": list(constants[w].shape[2:])}
    settings = _settings(node, only, strides=[1, 1], pads=[0] * 4, group=1)
    top, left, bottom, right = settings["pads"]
    draft.check_read(x, _grid(x_scale, x_zero, constants))
    draft.add_layer(
        w,
        x,
        node.output[0],
        (constants[w], constants[w_zero], constants[w_scale]),
        constants[bias[0]] if bias else None,
        _grid(y_scale, y_zero, constants),
        stride=tuple(settings["strides"]),
        sides=((top, bottom), (left, right)),
        groups=settings["group"],
    )


def _gemm(draft, node, constants, ends):
    x, x_scale, x_zero, w, w_scale, w_zero, bias, *grid = node.input
    settings = _settings(node, {"alpha": 1.0, "beta": 1.0, "transA": 0}, transB=0)
    draft.check_read(x, _grid(x_scale, x_zero, constants))
    weight = constants[w] if settings["transB"] else constants[w].T
    draft.add_layer(
        w,
        x,
        node.output[0],
        (weight, constants[w_zero], constants[w_scale]),
        constants[bias] if bias else None,
        _grid(*grid, constants),
    )


def _clip(draft, node, constants, ends):
    x, *limits = node.input
    low, high = (_code(constants[limit], limit) for limit in limits)
    draft.clamp(x, node.output[0], low, high)


def _max_pool(draft, node, constants, ends):
    only = _PLAIN | {"pads": [0] * 4, "ceil_mode": 0, "storage_order": 0}
    settings = _settings(node, only, kernel_shape=None, strides=[1, 1])
    pool = tuple(settings["kernel_shape"]), tuple(settings["strides"])
    draft.pool(node.input[0], node.output[0], pool)


def _flatten(draft, node, constants, ends):
    _settings(node, {"axis": 1})
    draft.flatten(node.input[0], node.output[0])


def _reshape(draft, node, constants, ends):
    x, shape = node.input
    draft.known(x)
    images, *rest = constants[shape].tolist()
    if images not in (-1, 0) or rest != [prod(draft.shapes[x])]:
        raise ValueError(f"to {[images, *rest]}: only what flattens images is read.")
    draft.flatten(x, node.output[0])


def _concat(draft, node, constants, ends):
    _settings(node, {"axis": 1})
    grid, inputs = node.input[:2], node.input[2:]
    step = _rescale(draft, quantized_concat, inputs, node, grid, constants)
    check_concat(step)


def _sum(draft, node, constants, ends):
    _settings(node, {})
    inputs, grid = node.input[:6], node.input[6:]
    step = _rescale(draft, quantized_add, inputs, node, grid, constants)
    check_add(step, signed=constants[grid[1]].dtype == np.int8)


def _average(draft, node, constants, ends):
    only = _PLAIN | {"pads": [0] * 4, "ceil_mode": 0, "channels_last": 0}
    more = {"kernel_shape": None, "strides": [1, 1], "count_include_pad": 0}
    settings = _settings(node, only, **more)
    window = tuple(settings["kernel_shape"]), tuple(settings["strides"])
    _add_average(draft, node, constants, window)


def _global_average(draft, node, constants, ends):
    _settings(node, {"channels_last": 0})
    draft.known(node.input[0])
    _add_average(draft, node, constants, (draft.shapes[node.input[0]][1:],) * 2)


def _add_average(draft, node, constants, window):
    inputs, grid = node.input[:3], node.input[3:]
    if min(*window[0], *window[1]) < 1:
        raise ValueError(f"its kernel and stride are {window}.")
    make = partial(quantized_average, window=window)
    step = _rescale(draft, make, inputs, node, grid, constants)
    whole = window[0] == tuple(draft.shapes[inputs[0]][1:])
    (check_mean if whole else check_windows)(step)


def _rescale(draft, make, inputs, node, grid, constants):
    """Add what make makes of (tensor, scale, zero point) of each input; return it."""
    names = inputs[::3]
    for x, *own in zip(names, inputs[1::3], inputs[2::3], strict=True):
        draft.check_read(x, _grid(*own, constants))
    draft.add_rescaled(make, names, node.output[0], _grid(*grid, constants))
    return draft.steps[-1]


def _dequantize(draft, node, constants, ends):
    """End with logits in floats; whatever computes on with them is refused."""
    x, *grid = node.input
    draft.check_read(x, _grid(*grid, constants))
    ends[node.output[0]] = x


ONNX_NODES = {
    "QuantizeLinear": _quantize,
    "QLinearConv": _conv,
    "QGemm": _gemm,
    "Clip": _clip,
    "MaxPool": _max_pool,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "QLinearConcat": _concat,
    "QLinearAdd": _sum,
    "QLinearAveragePool": _average,
    "QLinearGlobalAveragePool": _global_average,
    "DequantizeLinear": _dequantize,
}
