"""The tensors of a .tflite file, as read_tflite asks for them. Used in notebook 09."""

import numpy as np

SIZES = ("SHAPE", "STRIDED_SLICE", "PACK")  # what computes only with shapes


class File:
    """The tensors of a .tflite file, by their numbers, and what operators make of them.

    padded: {tensor: (number of what PAD pads, sides)}, sides being ((top, bottom),
    (left, right)); flattened: {tensor: (channels, height, width) that it had}, its
    values being in the file's order, channels last; floats: {tensor: its codes}.
    """

    def __init__(self, model, graph):
        self.model, self.graph = model, graph
        self.padded, self.flattened, self.floats = {}, {}, {}

    def operators(self):
        """Return (kind, operator) of each but those that compute only with shapes."""
        from ai_edge_litert import schema_py_generated as schema

        names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
        found = []
        for operator in self.graph.operators:
            code = self.model.operatorCodes[operator.opcodeIndex]
            code = max(code.builtinCode, code.deprecatedBuiltinCode)
            kind = names.get(code, f"operator {code}")
            if kind not in SIZES:
                found.append((kind, operator))
        return found

    def check_order(self, name):
        """Raise ValueError for a tensor whose values are in another order here."""
        if name in self.flattened:
            raise ValueError(
                f"{name} is flattened, channels last: only FULLY_CONNECTED is read "
                "after that."
            )

    def is_int8(self, number):
        from ai_edge_litert import schema_py_generated as schema

        return self.graph.tensors[number].type == schema.TensorType.INT8

    def name(self, number):
        """Return a tensor's name, "" of an input that is left out."""
        if number == -1:
            return ""
        if not 0 <= number < len(self.graph.tensors):
            raise ValueError(f"it names tensor {number}, and holds no such one.")
        name = self.graph.tensors[number].name
        return name.decode() if name else f"tensor {number}"

    def grid(self, number):
        """Return (scale, zero_point) of a tensor's codes + 128."""
        tensor, name = self.graph.tensors[number], self.name(number)
        if not self.is_int8(number):
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
