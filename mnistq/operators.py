"""One operator by itself, here and in engines that others wrote. Notebook 11."""

import numpy as np
import torch

from mnistq.branches import quantized_add, quantized_average
from mnistq.onnx_file import onnx_model
from mnistq.tflite_file import tflite_bytes, tflite_operator, tflite_tensor

OURS = ("float", "fixed")
ENGINES = (*OURS, "ONNX Runtime", "LiteRT reference", "LiteRT default")
ONNX_KINDS = {
    "add": "QLinearAdd",
    "mean": "QLinearGlobalAveragePool",
    "pool": "QLinearAveragePool",
}
LITERT_KINDS = {"add": "ADD", "mean": "MEAN", "pool": "AVERAGE_POOL_2D"}


def run_operator(engine, kind, tensors, grids):
    """Return the codes that the engine's own integer operator of that kind makes.

    engine: one of ENGINES, "float" and "fixed" being this project's steps; kind: "add",
    of two tensors; "mean", of each channel; "pool", of each 2 by 2 window. tensors:
    uint8 codes [N, channels, height, width]; grids: (scale, zero_point) of each and,
    last, of what leaves.
    Needs onnx and onnxruntime, or ai-edge-litert.
    Raises ValueError for another engine or kind, and for two grids of LiteRT's pooling,
    which takes one. Taught in notebook 11.
    """
    if engine not in ENGINES or kind not in ONNX_KINDS:
        kinds, engines = ", ".join(ONNX_KINDS), ", ".join(ENGINES)
        raise ValueError(f"{kind!r} in {engine!r}: use {kinds} in {engines}.")
    if engine in OURS:
        return _here(engine, kind, tensors, grids)
    if engine == "ONNX Runtime":
        return _in_onnx_runtime(kind, tensors, grids)
    if kind == "pool" and len(set(grids)) > 1:
        raise ValueError(f"LiteRT pools on one grid, and these are {grids}.")
    return _in_litert(engine, kind, tensors, grids)


def _here(requantize, kind, tensors, grids):
    *in_grids, (scale, zero) = grids
    fields = {"inputs": ("a", "b")[: len(tensors)], "output": kind, "out_bits": 8}
    fields |= {"in_grids": tuple(in_grids), "out_scale": scale, "out_zero_point": zero}
    fields |= {"low": 0, "high": 255}
    if kind == "add":
        step = quantized_add(requantize, **fields)
    else:
        size = (2, 2) if kind == "pool" else tuple(tensors[0].shape[2:])
        step = quantized_average(requantize, (size, size), **fields)
    made = step(*((x ^ 128).view(torch.int8).movedim(0, -1) for x in tensors))
    return made.movedim(-1, 0).view(torch.uint8) ^ 128


def _in_onnx_runtime(kind, tensors, grids):
    import onnxruntime
    from onnx.helper import make_node, make_opsetid

    names = [f"x{number}" for number in range(len(tensors))]
    constants, entering = {}, []
    for name, (scale, zero) in zip([*names, "y"], grids, strict=True):
        constants[f"{name}.scale"] = np.array(scale, np.float32)
        constants[f"{name}.zero_point"] = np.array(zero, np.uint8)
        entering += [name, f"{name}.scale", f"{name}.zero_point"]
    entering.remove("y")
    window = {"kernel_shape": (2, 2), "strides": (2, 2)} if kind == "pool" else {}
    domain = "com.microsoft"
    node = make_node(ONNX_KINDS[kind], entering, ["y"], domain=domain, **window)
    ports = dict.fromkeys(names, ("channels", "height", "width"))
    model = onnx_model([node], constants, ports, {"y": (None, None, None)})
    model.opset_import.append(make_opsetid(domain, 1))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
    return torch.from_numpy(session.run(["y"], feed)[0])


def _in_litert(engine, kind, tensors, grids):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
    model = schema.ModelT(version=3, subgraphs=[graph], operatorCodes=[])
    model.buffers = [schema.BufferT()]
    signed = [(x ^ 128).view(torch.int8).movedim(1, -1).numpy() for x in tensors]
    pairs = enumerate(zip(signed, grids, strict=False))
    graph.inputs = [
        tflite_tensor(model, f"x{number}", x.shape, (scale, zero - 128))
        for number, (x, (scale, zero)) in pairs
    ]
    entering, shape = list(graph.inputs), list(signed[0].shape)
    options = schema.AddOptionsT()
    if kind == "mean":
        axes = np.array([1, 2], np.int32)
        entering.append(tflite_tensor(model, "axes", axes.shape, None, axes))
        options, shape[1:3] = schema.ReducerOptionsT(keepDims=True), (1, 1)
    elif kind == "pool":
        options = schema.Pool2DOptionsT(schema.Padding.VALID, 2, 2, 2, 2)
        shape[1:3] = (n // 2 for n in shape[1:3])
    scale, zero = grids[-1]
    y = tflite_tensor(model, "y", shape, (scale, zero - 128))
    tflite_operator(model, LITERT_KINDS[kind], entering, y, options)
    graph.outputs = [y]
    resolver = OpResolverType.BUILTIN
    if engine == "LiteRT reference":
        resolver = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(
        model_content=tflite_bytes(model), experimental_op_resolver_type=resolver
    )
    for number, x in enumerate(signed):
        interpreter.resize_tensor_input(number, x.shape)
    interpreter.allocate_tensors()
    for number, x in enumerate(signed):
        interpreter.set_tensor(number, np.ascontiguousarray(x))
    interpreter.invoke()
    (detail,) = interpreter.get_output_details()
    made = torch.from_numpy(interpreter.get_tensor(detail["index"]))
    return (made.view(torch.uint8) ^ 128).movedim(-1, 1)
