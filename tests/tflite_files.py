"""Small .tflite files of int8 codes, as other converters write them, at random."""

import math
import random

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from helpers import channels_first

from mnistq.tflite_file import tflite_bytes, tflite_tensor

ACTIVATIONS = schema.ActivationFunctionType
ACTS = ACTIVATIONS.NONE, ACTIVATIONS.RELU, ACTIVATIONS.RELU6
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


class Made:
    """A file in the making: each operator reads the tensor that was made last.

    Every tensor of codes is an output too.
    """

    def __init__(self, seed, shape):
        self.pick, self.codes = random.Random(seed), np.random.default_rng(seed)
        graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
        self.model = schema.ModelT(version=3, subgraphs=[graph], operatorCodes=[])
        self.model.buffers, self.graph = [schema.BufferT()], graph
        self.add(shape)
        graph.inputs, graph.outputs = [self.last], []

    def add(self, shape, spread=4.0):
        """Add a tensor of codes on a grid at random, of numbers up to about spread."""
        self.shape, self.last = shape, len(self.graph.tensors)
        self.grid = np.float32(spread / self.pick.randint(90, 250)), self.zero()
        tflite_tensor(self.model, f"x{self.last}", (1, *shape), self.grid)
        self.graph.outputs.append(self.last)

    def zero(self):
        return self.pick.choice((-128, self.pick.randint(-128, 127)))

    def same_grid(self, shape):
        grid = self.grid
        self.add(shape)
        quantization = self.graph.tensors[self.last].quantization
        quantization.scale, quantization.zeroPoint = [grid[0]], [grid[1]]
        self.grid = grid

    def constants(self, shape, axis):
        """Return numbers of weights and bias; shape: of the weights."""
        count = shape[axis] if self.pick.random() < 0.6 else 1  # of scales
        scale = self.codes.uniform(0.003, 0.012, count).astype(np.float32)
        w = self.codes.integers(-127, 128, shape).astype(np.int8)
        bias = self.codes.integers(-3000, 3000, shape[axis]).astype(np.int32)
        name, grid = f"layer{self.last}", (scale * self.grid[0],)
        return [
            tflite_tensor(self.model, f"{name}.weight", shape, (scale,), w, axis),
            tflite_tensor(self.model, f"{name}.bias", bias.shape, grid, bias),
        ]

    def operator(self, kind, inputs, options):
        code = schema.OperatorCodeT(
            version={"FULLY_CONNECTED": 4, "RESHAPE": 1}.get(kind, 3)
        )
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = code.builtinCode
        operator = schema.OperatorT(inputs=inputs, outputs=[self.last])
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.builtinOptions = options
        union = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, union)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def window(self):
        """Return (padding, kernel, stride, size of what leaves) at random."""
        pick, size = self.pick, self.shape[:2]
        padding = pick.choice((SAME, VALID))
        kernel = [pick.randint(1, min(4, n)) for n in size]
        stride = [pick.randint(1, 3) for _ in size]
        sizes = zip(size, kernel, stride, strict=True)
        lost = padding == VALID  # what a kernel does not fit on
        left = [-(-(n - lost * (k - 1)) // s) for n, k, s in sizes]
        return padding, kernel, stride, left

    def convolution(self, depthwise):
        padding, kernel, (down, right), size = self.window()
        entering, channels, act = self.last, self.shape[-1], self.pick.choice(ACTS)
        if depthwise:
            each = self.pick.randint(1, 2)
            out, kind = channels * each, "DEPTHWISE_CONV_2D"
            constants = self.constants((1, *kernel, out), 3)
            options = schema.DepthwiseConv2DOptionsT(padding, right, down, each, act)
            terms = math.prod(kernel)
        else:
            out, kind = self.pick.randint(1, 6), "CONV_2D"
            constants = self.constants((out, *kernel, channels), 0)
            options = schema.Conv2DOptionsT(padding, right, down, act)
            terms = math.prod(kernel) * channels
        self.add((*size, out), math.sqrt(terms))
        self.operator(kind, [entering, *constants], options)

    def pool(self):
        entering, (height, width, channels) = self.last, self.shape
        self.same_grid((height // 2, width // 2, channels))
        self.operator(
            "MAX_POOL_2D", [entering], schema.Pool2DOptionsT(VALID, 2, 2, 2, 2)
        )

    def flatten(self):
        entering, count = self.last, math.prod(self.shape)
        shape = np.array([-1, count], np.int32)
        shape = tflite_tensor(self.model, "shape", (2,), None, shape)
        self.same_grid((count,))
        self.operator("RESHAPE", [entering, shape], schema.ReshapeOptionsT())

    def dense(self, out):
        entering, count = self.last, math.prod(self.shape)
        constants = self.constants((out, count), 0)
        options = schema.FullyConnectedOptionsT(self.pick.choice(ACTS))
        self.add((out,), math.sqrt(count))
        self.operator("FULLY_CONNECTED", [entering, *constants], options)

    def write(self, path):
        path.write_bytes(tflite_bytes(self.model))
        return path


def random_file(path, seed, dense):
    """Write a file at random, with fully connected layers at its end or without."""
    pick = random.Random(seed)
    shape = pick.randint(6, 14), pick.randint(6, 14), pick.choice((1, 3))
    made = Made(seed, shape)
    for number in range(pick.randint(1, 3)):
        made.convolution(number > 0 and pick.random() < 0.4)
        if min(made.shape[:2]) > 1 and pick.random() < 0.4:
            made.pool()
    if dense:
        if pick.random() < 0.7:
            made.flatten()
        made.dense(pick.randint(2, 9))
        made.dense(3)
    return made.write(path)


def interpreted(path, codes, resolver):
    """Return the interpreter of a file after it read codes, uint8, or images."""
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=resolver
    )
    nhwc = codes.movedim(1, -1)
    if codes.dtype == torch.uint8:
        nhwc = (nhwc ^ 128).view(torch.int8)
    number = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(number, nhwc.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(number, np.ascontiguousarray(nhwc.numpy()))
    interpreter.invoke()
    return interpreter


def outputs(interpreter):
    """Return {name: uint8 codes, channels first}."""
    return {
        port["name"]: channels_first(interpreter.get_tensor(port["index"]))
        for port in interpreter.get_output_details()
    }
