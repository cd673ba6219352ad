"""What another converter makes of a network: quantize_static of ONNX Runtime."""

import logging

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime import quantization as theirs

from tools.float_onnx import float_onnx


class Batches(theirs.CalibrationDataReader):
    def __init__(self, images):
        self.left = [{"images": x.numpy()} for x in images.split(100)]

    def get_next(self):
        return self.left.pop() if self.left else None


def converted(folder, net, images, *how, **options):
    """Return the path of the file that quantize_static makes of a network."""
    content = float_onnx(net, images.shape[1:])
    return converted_file(folder, content, images, *how, **options)


def converted_file(
    folder, content, images, kind, activations, weights="QInt8", **options
):
    """Return the path of the file made of a float one; kind: QOperator or QDQ."""
    (folder / "float.onnx").write_bytes(content)
    logging.disable(logging.WARNING)  # it recommends a preprocessing
    theirs.quantize_static(
        folder / "float.onnx",
        folder / "theirs.onnx",
        Batches(images),
        quant_format=theirs.QuantFormat[kind],
        activation_type=theirs.QuantType[activations],
        weight_type=theirs.QuantType[weights],
        **options,
    )
    logging.disable(logging.NOTSET)
    return folder / "theirs.onnx"


def their_logits(path, images):
    """Return the last tensor that ONNX Runtime makes, in its default session."""
    *_, logits = ort.InferenceSession(path).run(None, {"images": images.numpy()})
    return torch.from_numpy(logits).flatten(1)


def their_codes(path, grids, images):
    """Return {name: codes, as uint8} of the tensors of codes in a file of theirs.

    grids: {name: (scale, zero_point)}, of uint8. Each is made by a file of its own that
    ends there, in floats: an output more would keep ONNX Runtime from putting operators
    on codes in the places of those on floats.
    """
    found, nodes = {}, onnx.load(path).graph.node
    if any(node.op_type == "Conv" for node in nodes):  # QDQ: all else is in floats
        nodes = [node for node in nodes if node.op_type == "QuantizeLinear"]
    for name in set(grids) & {y for node in nodes for y in node.output}:
        scale, zero = grids[name]
        session = ort.InferenceSession(_ended(path, name, np.float32(scale), zero))
        (floats,) = session.run(None, {"images": images.numpy()})
        codes = np.rint(floats / np.float32(scale)) + zero  # floats: (q - zero) * scale
        found[name] = torch.from_numpy(codes.astype(np.uint8))
    return found


def _ended(path, name, scale, zero):
    """Return the content of a file that ends with the floats of some codes."""
    model, float32 = onnx.load(path), onnx.TensorProto.FLOAT
    graph, constants = model.graph, {c.name: c for c in model.graph.initializer}
    if constants["images_zero_point"].data_type == onnx.TensorProto.INT8:
        zero = np.int8(zero - 128)
    else:
        zero = np.uint8(zero)
    for key, value in (("end.scale", scale), ("end.zero_point", zero)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), key))
    kept = list(graph.node)
    (last,) = [n for n, node in enumerate(kept) if name in node.output]
    pair = [name, "end.scale", "end.zero_point"]
    end = onnx.helper.make_node("DequantizeLinear", pair, ["end"])
    del graph.node[:], graph.output[:]
    graph.node.extend([*kept[: last + 1], end])
    graph.output.append(onnx.helper.make_tensor_value_info("end", float32, None))
    return model.SerializeToString()
