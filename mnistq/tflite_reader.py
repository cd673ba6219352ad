"""A .tflite file of int8 codes, read into an integer network. Used in notebook 09."""

from mnistq.branches import quantized_add, quantized_concat
from mnistq.draft import Draft
from mnistq.files import read_whole
from mnistq.tflite_tensors import File


def read_tflite(path):
    """Return the QuantizedNet (requantize="fixed") of a .tflite file of int8 codes.

    One that export_tflite wrote, or another of its operators. Tensors keep the file's
    names; images get 8 bits, since a file of codes does not say how many there were.
    LiteRT's reference kernels (BUILTIN_REF) give the same codes. Nothing in the file is
    executed. Needs the package ai-edge-litert.
    Raises ValueError for a file that is missing, truncated or no such network, and for
    an operator that no step here computes, by its name and that of the tensor it makes:
    FULLY_CONNECTED too, since its reference kernel rounds once, after an exact product.
    """
    return read_whole(_network, path, "write it with export_tflite")


def _network(content):
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ValueError("it is no .tflite file.")
    model = schema.ModelT.InitFromPackedBuf(content)
    if len(model.subgraphs) != 1:
        raise ValueError(f"it holds {len(model.subgraphs)} graphs: only 1 is read.")
    (graph,) = model.subgraphs
    file = File(model, graph)
    reads = [x for operator in graph.operators for x in operator.inputs]
    draft = Draft("fixed", [file.name(x) for x in [*reads, *graph.outputs]])
    for x in graph.inputs:
        draft.start(file.name(x), file.grid(x), file.shape(x))
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        code = max(code.builtinCode, code.deprecatedBuiltinCode)
        kind, y = kinds.get(code, f"operator {code}"), file.name(operator.outputs[0])
        try:
            if kind not in TFLITE_OPERATORS:
                known = ", ".join(TFLITE_OPERATORS)
                raise ValueError(f"no step here computes it. Known are {known}.")
            options = operator.builtinOptions
            (number,) = operator.outputs
            TFLITE_OPERATORS[kind](draft, file, operator.inputs, number, options)
            if y in draft.grids:
                draft.check_read(y, file.grid(number))
        except Exception as error:  # a tensor or a number that is not there
            raise ValueError(f"{kind}, which makes {y}: {error}") from error
    return draft.network(file.name(graph.outputs[-1]))


def _conv(draft, file, inputs, y, options):
    codes, zeros, scale = file.weights(inputs[1], 0)
    weight = codes.transpose(0, 3, 1, 2), zeros, scale  # (out, in, height, width)
    _add_layer(draft, file, inputs, y, options, weight)


def _depthwise(draft, file, inputs, y, options):
    codes, zeros, scale = file.weights(inputs[1], 3)
    weight = codes.transpose(3, 0, 1, 2), zeros, scale
    _add_layer(draft, file, inputs, y, options, weight)


def _add_layer(draft, file, inputs, y, options, weight):
    number, weights, *bias = inputs
    number, padding = file.padded.get(file.name(number), (number, (0, 0)))
    x = file.name(number)
    draft.known(x)
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        raise ValueError("it has dilation: only 1 is read.")
    _check_valid(options)
    grid = file.grid(y)
    draft.add_layer(
        file.name(weights),
        x,
        file.name(y),
        weight,
        file.constant(bias[0]) if bias and bias[0] >= 0 else None,
        grid,
        low=_low(options, grid),
        stride=(options.strideH, options.strideW),
        padding=padding,
        groups=draft.shapes[x][0] // weight[0].shape[1],
    )


def _check_valid(options):
    from ai_edge_litert import schema_py_generated as schema

    if options.padding != schema.Padding.VALID:
        raise ValueError("its padding is SAME: only VALID, and PAD, are read.")


def _low(options, grid):
    """Return the lowest code that leaves an operator: of a ReLU, or 0."""
    from ai_edge_litert import schema_py_generated as schema

    kind, known = options.fusedActivationFunction, schema.ActivationFunctionType
    if kind not in (known.NONE, known.RELU):
        raise ValueError(f"its fused activation is {kind}: only NONE, RELU are read.")
    return grid[1] if kind == known.RELU else 0


def _pad(draft, file, inputs, y, options):
    x, sides = inputs
    (none, rows, columns, more) = file.constant(sides).tolist()
    if none + more != [0] * 4 or rows[0] != rows[1] or columns[0] != columns[1]:
        raise ValueError("it pads the two sides differently, or something else.")
    draft.check_read(file.name(x), file.grid(y))
    file.padded[file.name(y)] = x, (rows[0], columns[0])


def _max_pool(draft, file, inputs, y, options):
    _check_valid(options)
    if _low(options, (1, 1)):
        raise ValueError("it has a ReLU of its own.")
    kernel = options.filterHeight, options.filterWidth
    pool = kernel, (options.strideH, options.strideW)
    draft.pool(file.name(inputs[0]), file.name(y), pool)


def _flatten(draft, file, inputs, y, options):
    x = file.name(inputs[0])
    draft.known(x)
    channels, *size = draft.shapes[x]
    if any(n != 1 for n in size) or list(file.graph.tensors[y].shape[1:]) != [channels]:
        raise ValueError("only what takes away a height and width of 1 is read.")
    draft.flatten(x, file.name(y))


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
    low = _low(options, grid)
    draft.add_rescaled(quantized_add, names, file.name(y), grid, low)


def _requantize(draft, file, inputs, y, options):
    """QUANTIZE from codes to codes is a concatenation of one tensor."""
    names = [file.name(x) for x in inputs]
    draft.add_rescaled(quantized_concat, names, file.name(y), file.grid(y))


def _concat(draft, file, inputs, y, options):
    if options.axis not in (3, -1):
        raise ValueError(f"it joins along axis {options.axis}: only channels are read.")
    if any(file.grid(x) != file.grid(y) for x in inputs) or _low(options, (1, 1)):
        raise ValueError("what it joins is on other grids, or it has a ReLU.")
    _requantize(draft, file, inputs, y, options)


TFLITE_OPERATORS = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "RESHAPE": _flatten,
    "SQUEEZE": _flatten,
    "MINIMUM": _minimum,
    "MAXIMUM": _maximum,
    "ADD": _add,
    "QUANTIZE": _requantize,
    "CONCATENATION": _concat,
}
