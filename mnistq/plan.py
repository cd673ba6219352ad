"""What every exporter asks of the integer network. Notebook 09."""

from mnistq.steps import QuantizedFlatten


def file_plan(qnet):
    """Yield (step, [(name, shape) of each input], (name, shape) of its output).

    As the exporters need them: every shape is (channels, height, width), a fully
    connected layer being a convolution whose kernel covers its whole input; so nothing
    is flattened, and a flattened tensor is the one before, under either's name.
    Raises ValueError for tensors that fit together only after flattening.
    """
    names, shapes = _file_names(qnet), {qnet.in_name: tuple(qnet.in_shape)}
    for step in qnet.steps:
        before = [(names[x], shapes[x]) for x in step.inputs]
        if isinstance(step, QuantizedFlatten):
            shapes[step.output] = before[0][1]
            continue
        try:
            shape = step.shape(*(shape for _, shape in before))
        except ValueError as error:
            raise ValueError(f"{step.output} cannot be exported: {error}") from error
        shapes[step.output] = (*shape, 1, 1)[:3]
        yield step, before, (names[step.output], shapes[step.output])


def _file_names(qnet):
    """Return {tensor: its name in a file, which a flattened one shares}."""
    names = {}
    for step in reversed(qnet.steps):
        names.setdefault(step.output, step.output)
        for x in step.inputs:
            if isinstance(step, QuantizedFlatten) and step.output in qnet.names:
                names[x] = step.output
    for step in qnet.steps:
        names.setdefault(step.inputs[0], step.inputs[0])
        if isinstance(step, QuantizedFlatten):
            names[step.output] = names[step.inputs[0]]
    return names


def check_requantize(qnet, mode, engine):
    """Raise ValueError unless the engine rounds as qnet does."""
    if qnet.requantize != mode:
        raise ValueError(
            f"{engine} cannot round as requantize={qnet.requantize!r} does: use "
            f"quantize_net(..., requantize={mode!r})."
        )
