"""A .tflite file of int8 codes, read into an integer network. Used in notebook 09."""

from math import inf, prod

from mnistq.branches import quantized_add, quantized_concat
from mnistq.draft import Draft
from mnistq.files import read_whole
from mnistq.steps import check_mode, limits
from mnistq.tflite_tensors import File

OTHERWISE = (
    'no step here rounds as it does: FULLY_CONNECTED is read with requantize="float" '
    'alone, ADD and QUANTIZE with "fixed" alone, so no file that holds both.'
)
NONE = ((0, 0), (0, 0))  # no padding


def read_tflite(path, requantize=None):
    """Return the QuantizedNet of a .tflite file of int8 codes.

    One that export_tflite wrote, or another of its operators, as TensorFlow's converter
    makes them. Tensors keep the file's names; images get 8 bits, since a file of codes
    does not say how many there were. Nothing in the file is executed. Needs the package
    ai-edge-litert.
    requantize: whose codes they are, since the file does not say how to round. "fixed":
    of LiteRT's reference kernels (BUILTIN_REF), but for FULLY_CONNECTED, which rounds
    once there, after an exact product. "float": of its default kernels (XNNPACK), but
    for ADD and QUANTIZE, which round in a way of their own there. Without it "float"
    for a file that holds FULLY_CONNECTED, else "fixed".
    Raises ValueError for a file that is missing, truncated or no such network, and for
    an operator that no step here computes in the same way, by its name and that of the
    tensor it makes.
    """

    def read(content):
        return _network(content, requantize)

    return read_whole(read, path, "write it with export_tflite")


def _network(content, requantize):
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ValueError("it is no .tflite file.")
    model = schema.ModelT.InitFromPackedBuf(content)
    if len(model.subgraphs) != 1:
        raise ValueError(f"it holds {len(model.subgraphs)} graphs: only 1 is read.")
    file = File(model, model.subgraphs[0])
    operators = file.operators()
    if requantize is None:
        dense = any(kind == "FULLY_CONNECTED" for kind, _ in operators)
        requantize = "float" if dense else "fixed"
    check_mode(requantize)
    outputs = [file.name(x) for x in file.graph.outputs]
    reads = [file.name(x) for _, operator in operators for x in operator.inputs]
    draft = Draft(requantize, reads + outputs)
    images = {x for kind, o in operators for x in o.inputs if kind == "QUANTIZE"}
    for x in file.graph.inputs:
        if file.is_int8(x) or x not in images:
            draft.start(file.name(x), file.grid(x), file.shape(x))
    for kind, operator in operators:
        try:
            _take(draft, file, kind, operator)
        except Exception as error:  # a tensor or a number that is not there
            y = ", ".join(file.name(y) for y in operator.outputs)
            raise ValueError(f"{kind}, which makes {y}: {error}") from error
    last = file.floats.get(outputs[-1], outputs[-1])
    file.check_order(last)
    return draft.network(last)


def _take(draft, file, kind, operator):
    """Add what an operator does to the draft."""
    if kind not in TFLITE_OPERATORS:
        known = ", ".join(TFLITE_OPERATORS)
        raise ValueError(f"no step here computes it. Known are {known}.")
    if (kind, draft.requantize) in (("FULLY_CONNECTED", "fixed"), ("ADD", "float")):
        raise ValueError(OTHERWISE)
    if kind != "FULLY_CONNECTED":
        for x in operator.inputs:
            file.check_order(file.name(x))
    (y,) = operator.outputs
    TFLITE_OPERATORS[kind](draft, file, operator.inputs, y, operator.builtinOptions)
    if file.name(y) in draft.grids:
        draft.check_read(file.name(y), file.grid(y))


def _conv(draft, file, inputs, y, options):
    codes, zeros, scale = file.weights(inputs[1], 0)
    weight = codes.transpose(0, 3, 1, 2), zeros, scale  # (out, in, height, width)
    _add_convolution(draft, file, inputs, y, options, weight)


def _depthwise(draft, file, inputs, y, options):
    codes, zeros, scale = file.weights(inputs[1], 3)
    weight = codes.transpose(3, 0, 1, 2), zeros, scale
    _add_convolution(draft, file, inputs, y, options, weight)


def _add_convolution(draft, file, inputs, y, options, weight):
    number, sides = file.padded.get(file.name(inputs[0]), (inputs[0], None))
    x = file.name(number)
    draft.known(x)
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        raise ValueError("it has dilation: only 1 is read.")
    stride = options.strideH, options.strideW
    same = _same(options, draft.shapes[x][1:], weight[0].shape[2:], stride)
    if sides and same != NONE:
        raise ValueError("it pads again what PAD padded.")
    groups = draft.shapes[x][0] // weight[0].shape[1]
    others = {"stride": stride, "sides": sides or same, "groups": groups}
    _add_layer(draft, file, x, inputs, y, options, weight, **others)


def _same(options, size, kernel, stride):
    """Return ((top, bottom), (left, right)) that an operator pads by itself."""
    from ai_edge_litert import schema_py_generated as schema

    if options.padding == schema.Padding.VALID or min(stride) < 1:
        return NONE
    total = [
        max(-(-n // s) * s - s + k - n, 0)
        for n, k, s in zip(size, kernel, stride, strict=True)
    ]
    return tuple((n // 2, n - n // 2) for n in total)


def _add_layer(draft, file, x, inputs, y, options, weight, **others):
    _, weights, *bias = inputs
    grid = file.grid(y)
    draft.add_layer(
        file.name(weights),
        x,
        file.name(y),
        weight,
        file.constant(bias[0]) if bias and bias[0] >= 0 else None,
        grid,
        limits=_limits(options, grid),
        **others,
    )


def _dense(draft, file, inputs, y, options):
    """A FULLY_CONNECTED; what it reads may be flattened, channels last, or not yet."""
    x = file.name(inputs[0])
    draft.known(x)
    if options.weightsFormat or options.keepNumDims:
        raise ValueError("its weights are shuffled, or it keeps dimensions.")
    codes, zeros, scale = file.weights(inputs[1], 0)
    shape = file.flattened.get(x, draft.shapes[x])
    if len(shape) == 3:
        channels, *size = shape
        codes = codes.reshape(-1, *size, channels).transpose(0, 3, 1, 2)
        codes = codes.reshape(len(codes), -1)  # channels first, as everywhere here
    if len(draft.shapes[x]) == 3:
        x, unflattened = f"{x}.flat", x
        draft.flatten(unflattened, x)
    _add_layer(draft, file, x, inputs, y, options, (codes, zeros, scale))


def _limits(options, grid):
    """Return the lowest and highest code that leave an operator, by its activation."""
    from ai_edge_litert import schema_py_generated as schema

    kind, known = options.fusedActivationFunction, schema.ActivationFunctionType
    if kind not in (known.NONE, known.RELU, known.RELU6):
        raise ValueError(
            f"its fused activation is {kind}: only NONE, RELU, RELU6 are read."
        )
    if kind == known.NONE:
        return 0, 255
    return limits(grid, 8, True, 6 if kind == known.RELU6 else inf)


def _plain(options):
    return _limits(options, (1, 1)) == (0, 255)


def _pad(draft, file, inputs, y, options):
    x, sides = inputs
    (none, rows, columns, more) = file.constant(sides).tolist()
    if none + more != [0] * 4:
        raise ValueError("it pads something else than rows and columns.")
    draft.check_read(file.name(x), file.grid(y))
    file.padded[file.name(y)] = x, (tuple(rows), tuple(columns))


def _max_pool(draft, file, inputs, y, options):
    x, kernel = file.name(inputs[0]), (options.filterHeight, options.filterWidth)
    stride = options.strideH, options.strideW
    draft.known(x)
    if _same(options, draft.shapes[x][1:], kernel, stride) != NONE:
        raise ValueError(f"it pads {x}, and max pooling is read without padding.")
    if not _plain(options):
        raise ValueError("it has a ReLU of its own.")
    draft.pool(x, file.name(y), (kernel, stride))


def _flatten(draft, file, inputs, y, options):
    x = file.name(inputs[0])
    draft.known(x)
    shape, found = draft.shapes[x], list(file.graph.tensors[y].shape[1:])
    if found != [prod(shape)]:
        raise ValueError(f"it makes {found} of {shape}: only flattening is read.")
    draft.flatten(x, file.name(y))
    if prod(shape[1:]) > 1:
        file.flattened[file.name(y)] = shape


def _minimum(draft, file, inputs, y, options):
    x, limit = inputs
    draft.clamp(file.name(x), file.name(y), 0, _code(file, limit))


def _maximum(draft, file, inputs, y, options):
    x, limit = inputs
    draft.clamp(file.name(x), file.name(y), _code(file, limit), 255)


def _code(file, number):
    return int(file.constant(number).reshape(())) + 128


def _add(draft, file, inputs, y, options):
    names, grid = [file.name(x) for x in inputs], file.grid(y)
    draft.add_rescaled(quantized_add, names, file.name(y), grid, _limits(options, grid))


def _quantize(draft, file, inputs, y, options):
    """From images, or from codes to codes: a concatenation of one tensor."""
    (x,) = inputs
    if x in file.graph.inputs and not file.is_int8(x):
        draft.start(file.name(y), file.grid(y), file.shape(y))
    elif draft.requantize == "float":
        raise ValueError(OTHERWISE)
    else:
        _join(draft, file, inputs, y)


def _dequantize(draft, file, inputs, y, options):
    """End with logits in floats; whatever computes on with them is refused."""
    (x,) = inputs
    draft.check_read(file.name(x), file.grid(x))
    file.floats[file.name(y)] = file.name(x)


def _join(draft, file, inputs, y):
    names = [file.name(x) for x in inputs]
    draft.add_rescaled(quantized_concat, names, file.name(y), file.grid(y))


def _concat(draft, file, inputs, y, options):
    if options.axis not in (3, -1):
        raise ValueError(f"it joins along axis {options.axis}: only channels are read.")
    if any(file.grid(x) != file.grid(y) for x in inputs) or not _plain(options):
        raise ValueError("what it joins is on other grids, or it has a ReLU.")
    _join(draft, file, inputs, y)


TFLITE_OPERATORS = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "RESHAPE": _flatten,
    "SQUEEZE": _flatten,
    "MINIMUM": _minimum,
    "MAXIMUM": _maximum,
    "ADD": _add,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "CONCATENATION": _concat,
}
