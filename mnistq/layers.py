"""What a network consists of, read from the network itself. Notebook 03."""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import fx, nn

from mnistq.batch_norm import NORMS, fold_batch_norms
from mnistq.data import IMAGE_SHAPE
from mnistq.parts import Layer, tensor_groups
from mnistq.reader import Reader


def read_parts(net, images=None, in_shape=IMAGE_SHAPE):
    """Return a network's parts in their order: Layers, MaxPools, Adds and so on.

    net: made of what CANNOT lists, modules or functions, nested or not, with residual
    additions, and log_softmax at the end or none. A batch norm is folded into the layer
    before it. It is traced with torch.fx in eval mode, and only read. A tensor has the
    name of the first layer that it enters, the last one is "output"; what enters none
    is named after what makes it.
    images: float32 [N, ...], on which the parts must give what the network gives;
    without them one picture of all greys, of in_shape.
    Raises ValueError naming the module or function that is not of this kind.
    Taught in notebook 03.
    """
    _check_module(net)
    for name, values in [*net.named_parameters(), *net.named_buffers()]:
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} contains NaN or infinity.")
    if images is None:
        images = greys(in_shape).to(next(net.parameters(), torch.zeros(1)))
    still = copy.deepcopy(net).eval()  # without dropout; net's own mode stays
    traced = _trace(still)
    with torch.inference_mode():
        try:
            wanted = still(images)
        except Exception as error:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit the network: use "
                f"[N, 1, 28, 28], or the shape that it was made for ({error})."
            ) from error
    folded = fold_batch_norms(traced)
    with torch.inference_mode():
        reader = Reader(net, folded, traced, images[:1])
        parts, stems, scores = reader.read()
        parts = _named(parts, stems)
        x = run_parts(parts, images)[parts[-1].output]
        x = x if scores is None else F.log_softmax(x, scores)
    read_names = [getattr(p, "name", type(p).__name__) for p in parts]
    shape, noise = getattr(wanted, "shape", None), 0
    if x.shape == shape:
        noise = 1e-3 * max(1.0, float(wanted.abs().max()))
    if x.shape != shape or not float((x - wanted).abs().max()) <= noise:
        raise ValueError(
            f"the network computes something else than {', '.join(read_names)}, which "
            "was read of it: leave out hooks and what changes weights on the way."
        )
    return parts


def without_batch_norms(net):
    """Return a copy of net whose batch norms are folded into the layers before them.

    A plain copy where there are none; else what torch.fx traced, in eval mode, with the
    same names. Raises ValueError for a network that cannot be read.
    """
    copied = copy.deepcopy(net)
    if not any(isinstance(module, NORMS) for module in net.modules()):
        return copied
    traced = _trace(copied.eval())
    fold_batch_norms(traced)
    return traced


def greys(shape):
    """Return one image [1, *shape] whose values run through all greys."""
    channels, *size = shape
    ramp = torch.linspace(-0.5, 3, size[0] * size[1])
    return ramp.reshape(1, 1, *size).repeat(1, channels, 1, 1)


def _check_module(net):
    """Raise ValueError for what is no nn.Module, or one that hides another."""
    kind = type(net).__name__
    if not isinstance(net, nn.Module):
        raise ValueError(f"the network is a {kind}: give an nn.Module.")
    if isinstance(net, torch.jit.ScriptModule):
        raise ValueError(f"the network is a {kind}: give the one that was scripted.")
    inner = "_orig_mod" if hasattr(net, "_orig_mod") else None  # of torch.compile
    if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = "module"
    if inner:
        raise ValueError(f"the network is a {kind}: give the one in it, .{inner}.")


def _trace(net):
    try:
        traced = fx.symbolic_trace(net)
    except Exception as error:  # whatever a stranger's forward may do to a proxy
        raise ValueError(
            f"the network cannot be read ({error}): write its forward without branches "
            "or loops that depend on the data."
        ) from error
    traced.graph.eliminate_dead_code()
    _, *more = [n for n in traced.graph.nodes if n.op == "placeholder" and n.users]
    if more:
        raise ValueError(f"{more[0].name} is a second input: only one is possible.")
    return traced


def _named(parts, stems):
    """Return the parts with the names of the tensors that they read and make."""
    taken = {part.name for part in parts if isinstance(part, Layer)}

    def fresh(name):
        return name if name not in taken else fresh(f"{name}_")

    names, groups = {}, tensor_groups(parts, Layer)
    for part in parts:
        if isinstance(part, Layer):
            names.setdefault(part.inputs[0], part.name)
    names.setdefault(len(parts), fresh("output"))
    names.setdefault(0, fresh("input"))
    stem = names[0]
    for number, part in enumerate(parts, start=1):
        own = stems[number - 1]
        if isinstance(part, Layer):
            stem, own = part.name, f"{part.name}.out"
        own = fresh(own) if groups[number] == number else f"{stem}/{number}"
        taken.add(names.setdefault(number, own))
    return [
        replace(part, inputs=tuple(names[i] for i in part.inputs), output=names[n])
        for n, part in enumerate(parts, start=1)
    ]


def read_layers(net, images=None, in_shape=IMAGE_SHAPE):
    """Return {name: module} of the Conv2d and Linear, in the order of computation.

    With batch norms folded into them. images, in_shape: as read_parts has them.
    Raises ValueError as read_parts does. Taught in notebook 03.
    """
    parts = read_parts(net, images, in_shape)
    return {p.name: p.module for p in parts if isinstance(p, Layer)}


def tensor_names(parts):
    """Return the names of the tensors that need a grid, the last one last."""
    return tuple(dict.fromkeys(tensor_groups(parts, Layer).values()))


def run_parts(parts, images):
    """Return {name: float tensor}, all that the parts read and make."""
    tensors = {parts[0].inputs[0]: images}
    for part in parts:
        inputs = [tensors[name] for name in part.inputs]
        tensors[part.output] = part(*inputs)
    return tensors


def activations(net, images):
    """Return {"conv1": images, "conv2": ..., "fc1": ..., "fc2": ..., "output": logits}.

    Each name holds the float tensor that ENTERS the layer of that name; the names are
    the network's own. A tensor that enters several layers has the name of the first,
    one that enters none that of what makes it.
    Raises ValueError for a network that read_parts cannot read.
    Source: the article's gatherStats. Taught in notebook 03.
    """
    parts = read_parts(net, images)
    tensors = run_parts(parts, images)
    return {name: tensors[name] for name in tensor_names(parts)}
