"""The integer network as an .onnx file. Notebook 09."""

import numpy as np
import torch

from mnistq.branches import QuantizedAdd, QuantizedAverage, QuantizedConcat
from mnistq.files import write_whole
from mnistq.plan import check_requantize, file_plan
from mnistq.steps import QuantizedLayer, QuantizedMaxPool


def export_onnx(qnet, path):
    """Write qnet as an ONNX file: the same codes in ONNX Runtime, bit for bit.

    Input and outputs have the names of qnet.codes: uint8 codes as they lie in the file,
    [N, channels, height, width], or [N, channels] where height and width are 1; any
    number N of images. Needs onnx.
    Raises ValueError unless requantize is "float", which is what QLinearConv does, and
    for tensors that fit together only after flattening.
    Source: ONNX operators, version 13. Used in notebook 09.
    """
    from onnx import checker
    from onnx.helper import make_node

    check_requantize(qnet, "float", "ONNX")
    nodes, constants, wires, outputs = [], {}, {}, {}
    for step, inputs, (y, out_shape) in file_plan(qnet):
        for x, _ in inputs:
            wires.setdefault(x, x)
        flat = out_shape[1:] == (1, 1)
        wires[y] = f"{y}.4d" if flat else y
        entering = [(wires[x], shape) for x, shape in inputs]
        new, more = ONNX_STEPS[type(step)](step, entering, wires[y])
        nodes, constants = nodes + new, constants | more
        if y in qnet.names:
            outputs[y] = out_shape[:1] if flat else out_shape
            nodes += [make_node("Flatten", [wires[y]], [y])] if flat else []
    model = onnx_model(nodes, constants, {next(iter(wires)): qnet.in_shape}, outputs)
    checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString())


def onnx_layer(layer, inputs, y):
    """Return (nodes, {name: constant}) of a layer from inputs, [(x, shape)], to y.

    Weights are code + 128 in uint8: products of uint8 and uint8 are exact everywhere,
    those of uint8 and int8 saturate on x86 without VNNI. Zero points are a vector
    because the scales are: the operators' specification asks for the same shape.
    """
    from onnx.helper import make_node

    ((x, shape),) = inputs
    name, kernel = layer.name, layer.weight
    if kernel.dim() == 2:
        kernel = kernel.reshape(-1, *shape)  # as large as the whole input
    constants = {
        f"{name}.x_scale": np.array(layer.in_scale, np.float32),
        f"{name}.x_zero_point": np.array(layer.in_zero_point, np.uint8),
        f"{name}.w": (kernel.to(torch.int16) + 128).to(torch.uint8).numpy(),
        f"{name}.w_scale": layer.weight_scale.numpy(),
        f"{name}.w_zero_point": np.full(len(kernel), 128, np.uint8),
        f"{name}.y_scale": np.array(layer.out_scale, np.float32),
        f"{name}.y_zero_point": np.array(layer.out_zero_point, np.uint8),
        f"{name}.B": layer.bias.numpy(),
    }
    settings = {"strides": layer.stride, "pads": layer.padding * 2}
    settings["group"] = layer.groups  # padding is with the zero point
    nodes = [make_node("QLinearConv", [x, *constants], [f"{name}.conv"], **settings)]
    if (layer.low, layer.high) != (0, 255):  # QLinearConv saturates at these by itself
        limits = {
            f"{name}.low": np.array(layer.low, np.uint8),
            f"{name}.high": np.array(layer.high, np.uint8),
        }
        constants |= limits
        nodes.append(make_node("Clip", [f"{name}.conv", *limits], [f"{name}.clip"]))
    if layer.pool is not None:
        nodes.append(_max_pool(nodes[-1].output[0], layer.pool, y))
    nodes[-1].output[0] = y
    return nodes, constants


def onnx_average(step, inputs, y):
    """Return (nodes, {name: constant}) of an average: a layer with weights of 1."""
    ((_, shape),) = inputs
    return onnx_layer(step.as_layer(shape[0]), inputs, y)


def onnx_add(step, inputs, y):
    """Return (nodes, {name: constant}) of the sum of inputs to y.

    Cast, Sub, Mul, Add, Round and Clip in float32: each is rounded as IEEE 754 says,
    on every processor. QLinearAdd may or may not multiply and add in one rounding.
    """
    from onnx.helper import make_node

    name = f"{y}.add"
    nodes, constants = _scaled(step, inputs, name)
    terms = [node.output[0] for node in nodes if node.op_type == "Mul"]
    nodes.append(make_node("Add", terms, [f"{name}.sum"]))
    new, more = _to_codes(step, f"{name}.sum", name, y)
    return nodes + new, constants | more


def onnx_concat(step, inputs, y):
    """Return (nodes, {name: constant}) of inputs on one grid, one after the other."""
    from onnx.helper import make_node

    name = f"{y}.concat"
    nodes, constants = _scaled(step, inputs, name)
    for number in range(len(inputs)):
        place = f"{name}.{number}"
        new, more = _to_codes(step, f"{place}.scaled", place, f"{place}.codes")
        nodes, constants = nodes + new, constants | more
    parts = [f"{name}.{number}.codes" for number in range(len(inputs))]
    return [*nodes, make_node("Concat", parts, [y], axis=1)], constants


def _scaled(step, inputs, name):
    """Return (nodes, constants) of NAME.0.scaled and so on, (q - zero) * multiplier."""
    from onnx import TensorProto
    from onnx.helper import make_node

    nodes, constants = [], {}
    for number, ((x, _), (_, zero)) in enumerate(
        zip(inputs, step.in_grids, strict=True)
    ):
        place = f"{name}.{number}"
        numbers, moved = f"{place}.numbers", f"{place}.moved"
        nodes += [
            make_node("Cast", [x], [numbers], to=TensorProto.FLOAT),
            make_node("Sub", [numbers, f"{place}.zero_point"], [moved]),
            make_node("Mul", [moved, f"{place}.multiplier"], [f"{place}.scaled"]),
        ]
        constants[f"{place}.zero_point"] = np.array(zero, np.float32)
        constants[f"{place}.multiplier"] = step.multiplier[number].numpy()
    return nodes, constants


def _to_codes(step, x, name, y):
    """Return (nodes, constants): y = clip(round(x) + zero_point, low, high)."""
    from onnx import TensorProto
    from onnx.helper import make_node

    rounded, placed, clipped = (
        f"{name}.{word}" for word in ("rounded", "placed", "clipped")
    )
    limits = [f"{name}.low", f"{name}.high"]
    nodes = [
        make_node("Round", [x], [rounded]),
        make_node("Add", [rounded, f"{name}.y_zero_point"], [placed]),
        make_node("Clip", [placed, *limits], [clipped]),
        make_node("Cast", [clipped], [y], to=TensorProto.UINT8),
    ]
    names = [f"{name}.y_zero_point", *limits]
    values = step.out_zero_point, step.low, step.high
    return nodes, {
        n: np.array(v, np.float32) for n, v in zip(names, values, strict=True)
    }


def onnx_max_pool(step, inputs, y):
    """Return (nodes, no constants) of max pooling."""
    ((x, _),) = inputs
    return [_max_pool(x, step.pool, y)], {}


def _max_pool(x, pool, y):
    from onnx.helper import make_node

    kernel, strides = pool
    return make_node("MaxPool", [x], [y], kernel_shape=kernel, strides=strides)


ONNX_STEPS = {
    QuantizedLayer: onnx_layer,
    QuantizedAverage: onnx_average,
    QuantizedAdd: onnx_add,
    QuantizedConcat: onnx_concat,
    QuantizedMaxPool: onnx_max_pool,
}


def onnx_model(nodes, constants, inputs, outputs):
    """Return the ONNX model; inputs, outputs: {name: shape of an image's codes}."""
    from onnx import TensorProto, helper, numpy_helper

    ins, outs = (
        [
            helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *shape])
            for name, shape in ports.items()
        ]
        for ports in (inputs, outputs)
    )
    tensors = [numpy_helper.from_array(c, name) for name, c in constants.items()]
    graph = helper.make_graph(nodes, "mnistq", ins, outs, tensors)
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)
