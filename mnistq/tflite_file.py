"""The integer network as a .tflite file. Notebook 09."""

import numpy as np

from mnistq.branches import QuantizedAdd, QuantizedAverage, QuantizedConcat
from mnistq.files import write_whole
from mnistq.plan import check_requantize, file_plan
from mnistq.steps import QuantizedLayer, QuantizedMaxPool


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
    wires, grids = {}, {x: (s, z - 128) for x, (s, z) in qnet.grids.items()}
    highest = _highest(qnet)
    for step, inputs, (y, out_shape) in file_plan(qnet):
        for x, shape in inputs:
            if not wires:  # the first of all
                wires[x] = tflite_tensor(model, x, _images(shape), grids[qnet.in_name])
                graph.inputs.append(wires[x])
        grid = grids[step.output]
        if isinstance(step, QuantizedAverage):
            step = step.as_layer(out_shape[0])
        if isinstance(step, QuantizedLayer):
            check_multipliers(step, highest[step.inputs[0]])
        flat = y in qnet.names and out_shape[1:] == (1, 1)
        name = f"{y}.4d" if flat else y
        output = tflite_tensor(model, name, _images(out_shape), grid)
        entering = [(wires[x], shape) for x, shape in inputs]
        TFLITE_STEPS[type(step)](model, step, entering, output, grid)
        wires[y] = output
        if flat:
            output = tflite_tensor(model, y, (1, out_shape[0]), grid)
            options = schema.SqueezeOptionsT(squeezeDims=[1, 2])
            tflite_operator(model, "SQUEEZE", [wires[y]], output, options)
        if y in qnet.names:
            graph.outputs.append(output)
    write_whole(path, tflite_bytes(model))


def _highest(qnet):
    """Return {tensor: its highest code}, all tensors."""
    highest = {qnet.in_name: 2**qnet.in_bits - 1}
    for step in qnet.steps:
        same = highest[step.inputs[0]]
        highest[step.output] = same if step.keeps_grid else step.high
    return highest


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


def tflite_tensor(model, name, shape, grid, data=None, axis=0):
    """Add a tensor, constant if data (int8, int32) is given; return its number.

    grid: (scale, zero_point), or (scales,) of a tensor with one for each channel along
    axis and zero points 0, or None of plain numbers.
    """
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT(name=name, shape=list(shape))
    if grid:
        scale = np.atleast_1d(np.float32(grid[0]))
        zeros = np.full(len(scale), grid[1] if len(grid) > 1 else 0)
        quantization = schema.QuantizationParametersT(scale=scale, zeroPoint=zeros)
        quantization.quantizedDimension = axis
        tensor.quantization = quantization
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


VERSIONS = {  # of each kind of operator, the first for such int8
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "MAX_POOL_2D": 2,
    "MAXIMUM": 2,
    "MEAN": 2,
    "MINIMUM": 2,
    "PAD": 2,
    "QUANTIZE": 2,
    "SQUEEZE": 1,
}


def tflite_operator(model, kind, inputs, output, options):
    """Add an operator of a kind from tensors to a tensor; return its output."""
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT(version=VERSIONS[kind])
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = code.builtinCode  # read by older runtimes
    model.operatorCodes.append(code)
    operator = schema.OperatorT(inputs=inputs, outputs=[output], builtinOptions=options)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    union = type(options).__name__.removesuffix("T")
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, union)
    model.subgraphs[0].operators.append(operator)
    return output


def _chain(model, name, inputs, links, y):
    """Add operators one after the other, from inputs to tensor y.

    links: (kind, constants, options, shape, grid) of each; shape, grid: of what leaves.
    """
    for number, (kind, constants, options, shape, grid) in enumerate(links, start=1):
        made = y
        if number < len(links):
            title = f"{name}.{kind.lower()}"
            made = tflite_tensor(model, title, _images(shape), grid)
        inputs = [tflite_operator(model, kind, [*inputs, *constants], made, options)]


def tflite_layer(model, layer, inputs, y, grid):
    """Add a layer to tensor y: PAD, CONV_2D with its ReLU, clamp, pooling.

    A fully connected layer is a convolution whose kernel covers its whole input: the
    reference kernel of FULLY_CONNECTED multiplies in float64 and rounds once.
    inputs: [(tensor number, shape)]; grid: of what leaves.
    """
    from ai_edge_litert import schema_py_generated as schema

    ((x, shape),) = inputs
    name, links, size = layer.name, [], (len(layer.weight), 1, 1)
    if layer.weight.dim() == 4:
        size = layer.convolved(shape)
    if any(layer.padding):
        links.append(_pad(model, layer, shape))
    kind, weights, options = _convolution(model, layer, shape)
    scale, bias = layer.weight_scale.numpy(), layer.bias.numpy()
    acc_scale = np.float32(layer.in_scale) * scale
    bias = tflite_tensor(model, f"{name}.bias", bias.shape, (acc_scale,), bias)
    if layer.low > 0:  # int8 saturates at code 0 by itself
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    links.append((kind, [weights, bias], options, size, grid))
    links += _limit(model, "MINIMUM", layer.high, name, size, grid)
    if layer.pool is not None:
        links.append(("MAX_POOL_2D", [], _pool_options(layer.pool), size, grid))
    _chain(model, name, [x], links, y)


def _pad(model, layer, shape):
    """Return the link that pads what enters a layer: PAD adds zero points."""
    from ai_edge_litert import schema_py_generated as schema

    channels, *size = shape
    size = [n + 2 * p for n, p in zip(size, layer.padding, strict=True)]
    sides = np.array([(0, 0), *((p, p) for p in layer.padding), (0, 0)], np.int32)
    sides = tflite_tensor(model, f"{layer.name}.sides", sides.shape, None, sides)
    grid = layer.in_scale, layer.in_zero_point - 128
    return "PAD", [sides], schema.PadOptionsT(), (channels, *size), grid


def _convolution(model, layer, shape):
    """Return (kind of operator, number of its weights, its options) of a layer."""
    from ai_edge_litert import schema_py_generated as schema

    kernel, out, groups = layer.weight, len(layer.weight), layer.groups
    inner = kernel.shape[2:] or shape[1:]
    kernel = kernel.reshape(out, shape[0] // groups, *inner)
    down, right = layer.stride
    valid = schema.Padding.VALID
    if 1 < groups == shape[0]:
        kernel, axis = kernel.permute(1, 2, 3, 0), 3
        kind, each = "DEPTHWISE_CONV_2D", out // groups
        options = schema.DepthwiseConv2DOptionsT(valid, right, down, each)
    else:
        kernel, axis = kernel.permute(0, 2, 3, 1), 0
        kind, options = "CONV_2D", schema.Conv2DOptionsT(valid, right, down)
    grid, values = (layer.weight_scale.numpy(),), kernel.numpy()
    shape = values.shape
    weights = tflite_tensor(model, f"{layer.name}.weight", shape, grid, values, axis)
    return kind, weights, options


def _limit(model, kind, code, name, shape, grid):
    """Return [a link that clamps to a code from kind's side], or [] if none is needed.

    int8 saturates at codes 0 and 255 by itself.
    """
    from ai_edge_litert import schema_py_generated as schema

    if code == (255 if kind == "MINIMUM" else 0):
        return []
    end = "high" if kind == "MINIMUM" else "low"
    limit = np.array([code - 128], np.int8)
    limit = tflite_tensor(model, f"{name}.{end}", (1,), grid, limit)
    return [(kind, [limit], schema.MaximumMinimumOptionsT(), shape, grid)]


def tflite_add(model, step, inputs, y, grid):
    """Add the sum of inputs to tensor y: ADD with its ReLU, clamp."""
    from ai_edge_litert import schema_py_generated as schema

    numbers, (shape, _) = zip(*inputs, strict=True)
    name = f"{step.output}.add"
    options = schema.AddOptionsT()
    if step.low > 0:
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    links = [("ADD", [], options, shape, grid)]
    links += _limit(model, "MINIMUM", step.high, name, shape, grid)
    _chain(model, name, numbers, links, y)


def tflite_concat(model, step, inputs, y, grid):
    """Add inputs one after the other to tensor y: QUANTIZE, clamps, CONCATENATION."""
    from ai_edge_litert import schema_py_generated as schema

    left = -int(step.shift.min())
    if left > 23:  # 255 * 2**23 is the last that int32 holds
        raise ValueError(
            f"{step.output} joins numbers on a grid that is 2**{left} times finer, "
            f"which LiteRT leaves undefined. Widen the range of {step.output}."
        )
    parts = []
    for number, (x, shape) in enumerate(inputs):
        name = f"{step.output}.concat.{number}"
        links = [("QUANTIZE", [], schema.QuantizeOptionsT(), shape, grid)]
        links += _limit(model, "MAXIMUM", step.low, name, shape, grid)
        links += _limit(model, "MINIMUM", step.high, name, shape, grid)
        parts.append(tflite_tensor(model, name, _images(shape), grid))
        _chain(model, name, [x], links, parts[-1])
    options = schema.ConcatenationOptionsT(axis=3)  # channels come last here
    tflite_operator(model, "CONCATENATION", parts, y, options)


def tflite_max_pool(model, step, inputs, y, grid):
    """Add max pooling from inputs, a single one, to tensor y."""
    ((x, _),) = inputs
    tflite_operator(model, "MAX_POOL_2D", [x], y, _pool_options(step.pool))


def _pool_options(pool):
    from ai_edge_litert import schema_py_generated as schema

    (height, width), (rows, columns) = pool
    return schema.Pool2DOptionsT(schema.Padding.VALID, columns, rows, width, height)


TFLITE_STEPS = {
    QuantizedLayer: tflite_layer,
    QuantizedAdd: tflite_add,
    QuantizedConcat: tflite_concat,
    QuantizedMaxPool: tflite_max_pool,
}


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
