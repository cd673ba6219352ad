"""A float network as an .onnx file, as other programs' converters want it."""

import math
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import mnistq_helpers as mq
from mnistq.parts import Add, Average, Concat, Flatten, Layer, MaxPool, padding


def float_onnx(net, in_shape=mq.IMAGE_SHAPE):
    """Return the content of an ONNX file of the float network, logits out.

    It reads "images", float32 [N, *in_shape]. Batch norms are folded before.
    """
    parts = mq.read_parts(net, in_shape=in_shape)
    graph, tensors = Graph(), {parts[0].inputs[0]: "images"}
    for part in parts:
        x = KINDS[type(part)](graph, part, [tensors[name] for name in part.inputs])
        if getattr(part, "relu", False):
            x = graph.relu(x, part.top)
        if getattr(part, "pool", None) is not None:
            x = graph.pool("MaxPool", x, part.pool)
        tensors[part.output] = x
    return graph.content(in_shape, tensors[parts[-1].output])


class Graph:
    """The nodes and constants so far."""

    def __init__(self):
        self.nodes, self.constants = [], {}

    def add(self, kind, inputs, **attributes):
        """Add a node; return the name of the tensor that it makes."""
        output = f"{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name, value):
        """Add a constant; return its name."""
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def relu(self, x, top):
        if math.isinf(top):
            return self.add("Relu", [x])
        limits = self.constant("zero", 0), self.constant(f"top {top}", top)
        return self.add("Clip", [x, *limits])

    def pool(self, kind, x, window):
        kernel, strides = window
        return self.add(kind, [x], kernel_shape=kernel, strides=strides)

    def content(self, in_shape, last):
        """Return the file's content; last: the tensor of the logits."""
        port, kind = helper.make_tensor_value_info, TensorProto.FLOAT
        images, logits = port("images", kind, ["N", *in_shape]), port(last, kind, None)
        values = [numpy_helper.from_array(v, n) for n, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "float", [images], [logits], values)
        opset = helper.make_opsetid("", 13)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        return model.SerializeToString()


def _layer(graph, part, inputs):
    module, inputs = part.module, [*inputs]
    for name, values in (("weight", module.weight), ("bias", module.bias)):
        if values is not None:
            inputs.append(graph.constant(f"{part.name}.{name}", values.detach()))
    if module.weight.dim() == 2:
        return graph.add("Gemm", inputs, transB=1)
    settings = {"strides": module.stride, "group": module.groups}
    return graph.add("Conv", inputs, pads=padding(module) * 2, **settings)


def _average(graph, part, inputs):
    (x,) = inputs
    if math.prod(part.window[0]) == 1:
        return x
    return graph.pool("AveragePool", x, part.window)


KINDS = {
    Layer: _layer,
    Average: _average,
    Add: lambda graph, part, inputs: graph.add("Add", inputs),
    Concat: lambda graph, part, inputs: graph.add("Concat", inputs, axis=1),
    MaxPool: lambda graph, part, inputs: inputs[0],  # added as a layer's own is
    Flatten: lambda graph, part, inputs: graph.add("Flatten", inputs),
}
