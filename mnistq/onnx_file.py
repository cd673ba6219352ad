"""The integer network as an .onnx file. Notebook 09."""

import numpy as np
import torch

from mnistq.files import write_whole
from mnistq.steps import (
    QuantizedLayer,
    QuantizedMaxPool,
    check_requantize,
    file_plan,
)


def export_onnx(qnet, path):
    """Write qnet as an ONNX file: the same codes in ONNX Runtime, bit for bit.

    Input and outputs have the names of qnet.codes: uint8 codes as they lie in the file,
    [N, channels, height, width], or [N, channels] where height and width are 1; any
    number N of images. Needs onnx.
    Raises ValueError unless requantize is "float", which is what QLinearConv does.
    Source: ONNX operators, version 13. Used in notebook 09.
    """
    from onnx import checker
    from onnx.helper import make_node

    check_requantize(qnet, "float", "ONNX")
    nodes, constants, wires, outputs = [], {}, {}, {}
    for step, (x, in_shape), (y, out_shape) in file_plan(qnet):
        wires.setdefault(x, x)
        flat = out_shape[1:] == (1, 1)
        wires[y] = f"{y}.4d" if flat else y
        new, more = ONNX_STEPS[type(step)](step, wires[x], in_shape, wires[y])
        nodes, constants = nodes + new, constants | more
        if y in qnet.names:
            outputs[y] = out_shape[:1] if flat else out_shape
            nodes += [make_node("Flatten", [wires[y]], [y])] if flat else []
    model = onnx_model(nodes, constants, {next(iter(wires)): qnet.in_shape}, outputs)
    checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString())


def onnx_layer(layer, x, shape, y):
    """Return (nodes, {name: constant}) of a layer from tensor x, of shape, to y.

    Weights are code + 128 in uint8: products of uint8 and uint8 are exact everywhere,
    those of uint8 and int8 saturate on x86 without VNNI. Zero points are a vector
    because the scales are: the operators' specification asks for the same shape.
    """
    from onnx.helper import make_node

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
    nodes = [make_node("QLinearConv", [x, *constants], [f"{name}.conv"])]
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


def onnx_max_pool(step, x, shape, y):
    """Return (nodes, no constants) of max pooling."""
    return [_max_pool(x, step.pool, y)], {}


def _max_pool(x, pool, y):
    from onnx.helper import make_node

    kernel, strides = pool
    return make_node("MaxPool", [x], [y], kernel_shape=kernel, strides=strides)


ONNX_STEPS = {QuantizedLayer: onnx_layer, QuantizedMaxPool: onnx_max_pool}


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
