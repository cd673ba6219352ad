"""The tensors of a .tflite file, as read_tflite asks for them. Used in notebook 09."""

import numpy as np


class File:
    """The tensors of a .tflite file, by their numbers; padded: what PAD made of which.

    padded: {tensor: (number of what it pads, (rows, columns))}.
    """

    def __init__(self, model, graph):
        self.model, self.graph, self.padded = model, graph, {}

    def name(self, number):
        """Return a tensor's name, "" of an input that is left out."""
        if number == -1:
            return ""
        name = self.graph.tensors[number].name
        return name.decode() if name else f"tensor {number}"

    def grid(self, number):
        """Return (scale, zero_point) of a tensor's codes + 128."""
        from ai_edge_litert import schema_py_generated as schema

        tensor, name = self.graph.tensors[number], self.name(number)
        if tensor.type != schema.TensorType.INT8:
            raise ValueError(f"{name} is not int8: only codes of that type are read.")
        quantization = tensor.quantization
        if quantization is None or np.size(quantization.scale) != 1:
            raise ValueError(f"{name} has no single scale.")
        return float(quantization.scale[0]), int(quantization.zeroPoint[0]) + 128

    def shape(self, number):
        """Return (channels, height, width) of a tensor [images, height, width, ...]."""
        _, height, width, channels = map(int, self.graph.tensors[number].shape)
        return channels, height, width

    def constant(self, number):
        """Return a constant, int8 or int32."""
        from ai_edge_litert import schema_py_generated as schema

        tensor = self.graph.tensors[number]
        kinds = {schema.TensorType.INT8: "i1", schema.TensorType.INT32: "<i4"}
        data = self.model.buffers[tensor.buffer].data
        if tensor.type not in kinds or data is None or np.size(data) == 0:
            raise ValueError(f"{self.name(number)} is no constant of int8 or int32.")
        values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kinds[tensor.type])
        return values.astype(values.dtype.newbyteorder("=")).reshape(tensor.shape)

    def weights(self, number, axis):
        """Return (codes, zero points, scales) of weights with one scale along axis."""
        quantization = self.graph.tensors[number].quantization
        scale = np.asarray(quantization.scale, np.float32)
        if len(scale) > 1 and quantization.quantizedDimension != axis:
            raise ValueError(f"{self.name(number)} has scales along another axis.")
        return self.constant(number), np.asarray(quantization.zeroPoint), scale
