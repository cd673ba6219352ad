"""The integer network as a .tflite file. Notebook 09."""

import numpy as np

from mnistq.files import write_whole
from mnistq.steps import (
    QuantizedLayer,
    QuantizedMaxPool,
    check_requantize,
    file_plan,
)


def export_tflite(qnet, path):
    """Write qnet as a .tflite file: the same codes in LiteRT, bit for bit.

    That is in its reference kernels (BUILTIN_REF); its default ones round as "float".
    Input and outputs have the names of qnet.codes: int8, code - 128, as they lie in the
    file, [N, height, width, channels], or [N, channels] where height and width are 1;
    any number N of images after resize_tensor_input. Needs the package ai-edge-litert.
    Raises ValueError unless requantize is "fixed", which is what these kernels do, and
    for a multiplier that is too large for LiteRT, see check_multipliers.
    Source: TensorFlow Lite's schema.fbs, version 3. Used in notebook 09.
    """
    from ai_edge_litert import schema_py_generated as schema

    check_requantize(qnet, "fixed", "LiteRT")
    graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
    model = schema.ModelT(version=3, subgraphs=[graph], operatorCodes=[])
    model.buffers = [schema.BufferT()]  # number 0 is empty: no constant
    wires, grid = {}, (qnet.in_scale, qnet.in_zero_point - 128)
    highest = 2**qnet.in_bits - 1
    for step, (x, in_shape), (y, out_shape) in file_plan(qnet):
        if not wires:
            wires[x] = tflite_tensor(model, x, _images(in_shape), grid)
            graph.inputs.append(wires[x])
        if isinstance(step, QuantizedLayer):
            grid = (step.out_scale, step.out_zero_point - 128)
            check_multipliers(step, highest)
            highest = step.high
        flat = y in qnet.names and out_shape[1:] == (1, 1)
        name = f"{y}.4d" if flat else y
        output = tflite_tensor(model, name, _images(out_shape), grid)
        TFLITE_STEPS[type(step)](model, step, wires[x], in_shape, output, grid)
        wires[y] = output
        if flat:
            output = tflite_tensor(model, y, (1, out_shape[0]), grid)
            options = schema.SqueezeOptionsT(squeezeDims=[1, 2])
            tflite_operator(model, "SQUEEZE", [wires[y]], output, options)
        if y in qnet.names:
            graph.outputs.append(output)
    write_whole(path, tflite_bytes(model))


def check_multipliers(layer, highest):
    """Raise ValueError for a multiplier that LiteRT cannot use; highest: code entering.

    Its default kernels (XNNPACK) refuse to load one of 256 or more. Its reference
    kernels shift the sums of one of 1 or more to the left, undefined beyond int32.
    """
    scales = np.float32(layer.in_scale) * layer.weight_scale.numpy()
    multiplier = float((scales / np.float32(layer.out_scale)).max())
    w, left = layer.weight.flatten(1).long(), (-layer.shift.long()).clamp(min=0)
    zero = layer.in_zero_point
    most, least = (
        (w * sign).clamp(min=0).sum(1) * (highest - zero)
        + (w * -sign).clamp(min=0).sum(1) * zero
        + layer.bias.long() * sign
        for sign in (1, -1)
    )
    largest = int((most.maximum(least) << left).max())
    remedy = f"Widen the range of what leaves {layer.name}."
    if multiplier >= 256:
        raise ValueError(
            f"{layer.name} multiplies by {multiplier:.4g}, and LiteRT's default "
            f"kernels take less than 256. {remedy}"
        )
    if largest >= 2**31:
        raise ValueError(
            f"{layer.name}'s sums, shifted left by {int(left.max())}, could reach "
            f"{largest:.3g}, which LiteRT leaves undefined beyond int32. {remedy}"
        )


def _images(shape):
    """Return a tensor's shape in the file: one image, its channels last."""
    channels, height, width = shape
    return (1, height, width, channels)


def tflite_tensor(model, name, shape, grid, data=None):
    """Add a tensor, constant if data (int8, int32) is given; return its number.

    grid: (scale, zero_point), or (scales,) of a tensor with one for each channel along
    axis 0 and zero points 0.
    """
    from ai_edge_litert import schema_py_generated as schema

    scale = np.atleast_1d(np.float32(grid[0]))
    zeros = np.full(len(scale), grid[1] if len(grid) > 1 else 0)
    quantization = schema.QuantizationParametersT(scale=scale, zeroPoint=zeros)
    tensor = schema.TensorT(name=name, shape=list(shape), quantization=quantization)
    tensor.type = schema.TensorType.INT8
    if data is None:
        tensor.shapeSignature = [-1, *shape[1:]]  # any number of images
    else:
        if data.dtype == np.int32:
            tensor.type = schema.TensorType.INT32
        tensor.buffer = len(model.buffers)
        data = np.frombuffer(data.tobytes(), np.uint8)
        model.buffers.append(schema.BufferT(data=data))
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def tflite_operator(model, kind, inputs, output, options):
    """Add an operator of a kind from tensors to a tensor; return its output.

    Each kind has versions; these are the first for such int8.
    """
    from ai_edge_litert import schema_py_generated as schema

    versions = {"CONV_2D": 3, "MINIMUM": 2, "MAX_POOL_2D": 2, "SQUEEZE": 1}
    code = schema.OperatorCodeT(version=versions[kind])
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = code.builtinCode  # read by older runtimes
    model.operatorCodes.append(code)
    operator = schema.OperatorT(inputs=inputs, outputs=[output], builtinOptions=options)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    union = type(options).__name__.removesuffix("T")
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, union)
    model.subgraphs[0].operators.append(operator)
    return output


def tflite_layer(model, layer, x, shape, y, grid):
    """Add a layer from tensor number x to y: CONV_2D with its ReLU, clamp, pooling.

    A fully connected layer is a convolution whose kernel covers its whole input: the
    reference kernel of FULLY_CONNECTED multiplies in float64 and rounds once.
    shape: of what enters; grid: of what leaves.
    """
    from ai_edge_litert import schema_py_generated as schema

    name, kernel, size = layer.name, layer.weight, (len(layer.weight), 1, 1)
    if kernel.dim() == 4:
        size = layer.convolved(shape)
    kernel = kernel.reshape(len(kernel), shape[0], *(kernel.shape[2:] or shape[1:]))
    kernel = kernel.permute(0, 2, 3, 1).numpy()
    scale, bias = layer.weight_scale.numpy(), layer.bias.numpy()
    acc_scale = np.float32(layer.in_scale) * scale
    inputs = [
        x,
        tflite_tensor(model, f"{name}.weight", kernel.shape, (scale,), kernel),
        tflite_tensor(model, f"{name}.bias", bias.shape, (acc_scale,), bias),
    ]
    options = schema.Conv2DOptionsT(schema.Padding.VALID, 1, 1)  # strides of 1
    if layer.low > 0:  # int8 saturates at code 0 by itself
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    clips, pools = layer.high < 255, layer.pool is not None

    def add(kind, inputs, options, last):
        made = y
        if not last:
            made = tflite_tensor(model, f"{name}.{kind.lower()}", _images(size), grid)
        return tflite_operator(model, kind, inputs, made, options)

    x = add("CONV_2D", inputs, options, not clips and not pools)
    if clips:
        limit = np.array([layer.high - 128], np.int8)
        inputs = [x, tflite_tensor(model, f"{name}.high", (1,), grid, limit)]
        x = add("MINIMUM", inputs, schema.MaximumMinimumOptionsT(), not pools)
    if pools:
        add("MAX_POOL_2D", [x], _pool_options(layer.pool), True)


def tflite_max_pool(model, step, x, shape, y, grid):
    """Add max pooling from tensor number x to y."""
    tflite_operator(model, "MAX_POOL_2D", [x], y, _pool_options(step.pool))


def _pool_options(pool):
    from ai_edge_litert import schema_py_generated as schema

    (height, width), (rows, columns) = pool
    return schema.Pool2DOptionsT(schema.Padding.VALID, columns, rows, width, height)


TFLITE_STEPS = {QuantizedLayer: tflite_layer, QuantizedMaxPool: tflite_max_pool}


def tflite_bytes(model):
    """Return the file's content, in which arrays start at multiples of 16 bytes.

    The schema asks for that of the buffers.
    """
    import flatbuffers

    class Aligned(flatbuffers.Builder):
        def StartVector(self, size, count, alignment):
            return super().StartVector(size, count, max(alignment, 16))

    builder = Aligned(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
