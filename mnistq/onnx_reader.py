"""An .onnx file of codes, read into an integer network. Used in notebook 09."""

from math import prod

import numpy as np

from mnistq.draft import Draft
from mnistq.files import read_whole


def read_onnx(path):
    """Return the QuantizedNet (requantize="float") of an .onnx file of uint8 codes.

    One that export_onnx wrote, or quantize_static of onnxruntime.quantization in the
    format QOperator with activation_type QUInt8. Tensors keep the file's names; images
    get 8 bits, since a file of codes does not say how many there were. ONNX Runtime
    gives the same codes, but for uint8 by int8 on x86 without VNNI, which saturates.
    Nothing in the file is executed, and no other file is read. Needs onnx.
    Raises ValueError for a file that is missing, truncated or no such network, and for
    an operator that no step here computes (additions among them), by its name and that
    of the tensor it makes.
    """
    return read_whole(_network, path, "write it with export_onnx or quantize_static")


def _network(content):
    import onnx

    graph = onnx.load_model_from_string(content).graph
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    inputs = [port for port in graph.input if port.name not in constants]
    if len(inputs) != 1 or not graph.output or not graph.node:
        raise ValueError("it is no ONNX network of one input.")
    reads = [x for node in graph.node for x in node.input]
    draft = Draft("float", reads + [port.name for port in graph.output])
    _start(draft, inputs[0], graph, constants)
    ends = {}  # {float tensor: its codes}
    for node in graph.node:
        y = ", ".join(node.output)
        try:
            if node.domain not in ("", "ai.onnx", "com.microsoft"):
                raise ValueError(f"its domain is {node.domain}.")
            if node.op_type not in ONNX_NODES:
                known = ", ".join(ONNX_NODES)
                raise ValueError(f"no step here computes it. Known are {known}.")
            ONNX_NODES[node.op_type](draft, node, constants, ends)
        except Exception as error:  # a number or a constant that is not there
            raise ValueError(f"{node.op_type}, which makes {y}: {error}") from error
    last = graph.output[-1].name
    return draft.network(ends.get(last, last))


def _constant(tensor):
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError(f"{tensor.name} lies in another file, which is not read.")
    return numpy_helper.to_array(tensor)


def _start(draft, port, graph, constants):
    """Let the network read the codes of the port, or those that its images become."""
    from onnx import TensorProto

    name = x = port.name
    kind = port.type.tensor_type.elem_type
    for node in graph.node:
        if x in node.input:
            if kind == TensorProto.FLOAT or node.op_type not in ("MaxPool", "Flatten"):
                break
            (x,) = node.output
    else:
        raise ValueError(f"nothing computes with {x}.")
    if kind == TensorProto.FLOAT and node.op_type == "QuantizeLinear":
        name = node.output[0]
    elif kind != TensorProto.UINT8 or node.op_type not in ("QLinearConv", "QGemm"):
        kind = TensorProto.DataType.Name(kind)
        raise ValueError(
            f"{name} is {kind} and enters {node.op_type}: only codes are read, as "
            "export_onnx and quantize_static (QOperator, QUInt8) write them."
        )
    shape = [d.dim_value for d in port.type.tensor_type.shape.dim][1:]
    draft.start(name, _grid(*node.input[1:3], constants), shape)


def _grid(scale, zero_point, constants):
    """Return (scale, zero_point) of two names of constants."""
    scale, zero = constants[scale], constants[zero_point]
    if scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
        raise ValueError(f"{zero_point} is {zero.dtype} {zero.shape}: one uint8.")
    return float(scale.reshape(())), int(zero.reshape(()))


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
    pads = settings["pads"]
    if pads[:2] != pads[2:]:
        raise ValueError(f"its pads are {pads}: both sides alike are read.")
    draft.check_read(x, _grid(x_scale, x_zero, constants))
    draft.add_layer(
        w,
        x,
        node.output[0],
        (constants[w], constants[w_zero], constants[w_scale]),
        constants[bias[0]] if bias else None,
        _grid(y_scale, y_zero, constants),
        stride=tuple(settings["strides"]),
        padding=tuple(pads[:2]),
        groups=settings["group"],
    )


def _gemm(draft, node, constants, ends):
    x, x_scale, x_zero, w, w_scale, w_zero, bias, *grid = node.input
    settings = _settings(node, {"alpha": 1.0, "transA": 0}, transB=0)
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
    low, high = (int(constants[limit]) for limit in limits)
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


def _dequantize(draft, node, constants, ends):
    """End with logits in floats; whatever computes on with them is refused."""
    x, *grid = node.input
    if x in constants:
        raise ValueError("this is the format QDQ. Let quantize_static write QOperator.")
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
    "DequantizeLinear": _dequantize,
}
