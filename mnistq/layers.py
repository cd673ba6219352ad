"""What a network consists of, read from the network itself. Notebook 03."""

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import fx, nn

from mnistq.data import IMAGE_SHAPE

SKIPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)  # not in eval mode
FUNCTIONS = {  # what a function or method means, as a module
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.max_pool2d: nn.MaxPool2d,
    torch.max_pool2d: nn.MaxPool2d,
    torch.flatten: nn.Flatten,
    "flatten": nn.Flatten,
    torch.reshape: nn.Flatten,
    "reshape": nn.Flatten,
    "view": nn.Flatten,
    F.dropout: nn.Identity,
    F.dropout2d: nn.Identity,
    "contiguous": nn.Identity,
    F.log_softmax: nn.LogSoftmax,
    torch.log_softmax: nn.LogSoftmax,
    "log_softmax": nn.LogSoftmax,
}
ARGUMENTS = {  # of such a function, those that its module needs, in their order
    nn.MaxPool2d: "kernel_size stride padding dilation ceil_mode return_indices",
    nn.LogSoftmax: "dim",
}
PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


@dataclass(frozen=True)
class Layer:
    """A Conv2d or Linear, and the ReLU and max pooling that follow it.

    name: as the network names the module. inputs, output: names of tensors; pool: None
    or ((height, width), (rows, columns)), kernel and stride. layer(x) computes floats.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    relu: bool = False
    pool: tuple | None = None
    inputs: tuple = ()
    output: str = ""

    def __call__(self, x):
        return self.finish(self.accumulate(x, self.module.weight, self.module.bias))

    def accumulate(self, x, weight, bias):
        """Return sum(weight * x) + bias, before ReLU and pooling."""
        if isinstance(self.module, nn.Conv2d):
            return F.conv2d(x, weight, bias)
        return F.linear(x, weight, bias)

    def finish(self, y):
        """Return y after pooling and ReLU, which may change places: both keep order."""
        y = y if self.pool is None else F.max_pool2d(y, *self.pool)
        return F.relu(y) if self.relu else y


@dataclass(frozen=True)
class MaxPool:
    """Max pooling that follows no layer, or a second one; pool as in Layer."""

    pool: tuple
    inputs: tuple = ()
    output: str = ""

    def __call__(self, x):
        return F.max_pool2d(x, *self.pool)


@dataclass(frozen=True)
class Flatten:
    """From [N, channels, height, width] to [N, channels * height * width]."""

    inputs: tuple = ()
    output: str = ""

    def __call__(self, x):
        return x.flatten(1)


def read_parts(net, images=None):
    """Return the list of a network's Layers, MaxPools and Flattens, in their order.

    net: a chain of Conv2d (stride 1, no padding), Linear, ReLU, MaxPool2d, Flatten and
    Dropout, modules or functions, nested or not, with log_softmax at the end or none.
    It is traced with torch.fx in eval mode, and only read. A tensor that enters a layer
    has the layer's name, the last one is "output". images: float32 [N, ...], on which
    the parts must give what the network gives; without them one picture of all greys.
    Raises ValueError naming the module or function that is not of this kind.
    Taught in notebook 03.
    """
    if not isinstance(net, nn.Module):
        raise ValueError(f"the network is a {type(net).__name__}: give an nn.Module.")
    for name, parameter in net.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} contains NaN or infinity.")
    if images is None:
        ramp = torch.linspace(-0.5, 3, IMAGE_SHAPE[1] * IMAGE_SHAPE[2])
        images = ramp.reshape(1, *IMAGE_SHAPE).to(next(net.parameters(), ramp))
    still = copy.deepcopy(net).eval()  # without dropout; net's own mode stays
    try:
        traced = fx.symbolic_trace(still)
    except Exception as error:  # whatever a stranger's forward may do to a proxy
        raise ValueError(
            f"the network cannot be read ({error}): write its forward without branches "
            "or loops that depend on the data."
        ) from error
    with torch.inference_mode():
        try:
            wanted = still(images)
        except Exception as error:
            shape = tuple(images.shape)
            raise ValueError(
                f"images of shape {shape} do not fit the network: {error}"
            ) from error
        parts, scores = _chain(net, traced, images[:1])
        x = images
        for part in parts:
            x = part(x)
        if scores is not None:
            x = F.log_softmax(x, scores)
    read_names = [getattr(p, "name", type(p).__name__) for p in parts]
    noise = 1e-3 * max(1.0, float(wanted.abs().max()))
    if x.shape != wanted.shape or not float((x - wanted).abs().max()) <= noise:
        raise ValueError(
            f"the network computes something else than {', '.join(read_names)}, which "
            "was read of it: leave out hooks and what changes weights on the way."
        )
    return parts


def _chain(net, traced, image):
    """Return (named parts, dimension of the log_softmax or None)."""
    shapes = {}

    class Watch(fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            shapes[node] = getattr(value, "shape", None)
            return value

    Watch(traced).run(image)
    parts, scores, tail, sizes = [], None, None, set()
    for node in traced.graph.nodes:
        place = f"{node.op} {node.target}" if node.op != "call_function" else node.name
        if node.op == "placeholder" and tail is None:
            tail = node
            continue
        if _asks_for_sizes(node, tail, sizes):
            sizes.add(node)
            continue
        if set(node.all_input_nodes) - sizes != {tail}:
            raise ValueError(
                f"{place} does not read what stands before it alone: only a chain "
                "without branches can be quantized."
            )
        if node.op == "output":
            break
        if scores is not None:
            raise ValueError(f"{place} follows log_softmax, which must be the end.")
        module, entering = _module(node, net), shapes[tail]
        tail = node
        if isinstance(module, nn.LogSoftmax):
            scores = module.dim
            if scores not in (1, None) and scores + len(entering) != 1:
                raise ValueError(f"{place} along {scores}: use dim=1, the scores.")
        elif isinstance(module, nn.Flatten):
            if tuple(shapes[node]) != (1, entering.numel()):
                raise ValueError(
                    f"{place} to {tuple(shapes[node])}: only flattening each image, to "
                    "[N, -1], can be quantized."
                )
            if len(entering) > 2:  # else it changes nothing
                parts.append(Flatten())
        elif not isinstance(module, SKIPPED):
            _add(parts, module, str(node.target), entering)
    if not any(isinstance(part, Layer) for part in parts):
        raise ValueError("the network has no Conv2d or Linear to quantize.")
    return _named(parts), scores


def _asks_for_sizes(node, tail, sizes):
    """Return whether a node is x.size(...), x.shape or an index into one of them."""
    if node.target == "size" or (node.target is getattr and node.args[1] == "shape"):
        return node.args[0] is tail
    return bool(node.args) and node.args[0] in sizes


def _module(node, net):
    """Return the module that a node of the graph calls, or one that does the same."""
    if node.op == "call_module":
        return net.get_submodule(node.target)
    kind = FUNCTIONS.get(node.target)
    if kind is None:
        name = getattr(node.target, "__name__", node.target)
        raise ValueError(f"{name} (at {node.name}) {CANNOT}")
    names = ARGUMENTS.get(kind, "").split()
    options = dict(zip(names, node.args[1:], strict=False))
    return kind(**options, **{k: v for k, v in node.kwargs.items() if k in names})


CANNOT = (
    "cannot be quantized here: only Conv2d, Linear, ReLU, MaxPool2d, Flatten, Dropout "
    "and log_softmax can. Fold a batch norm into the layer before it (notebook 08); "
    "replace anything else."
)


def _add(parts, module, name, shape):
    """Append a module to the parts, or to the layer that it follows."""
    last = max((i for i, p in enumerate(parts) if isinstance(p, Layer)), default=None)
    if isinstance(module, nn.Conv2d | nn.Linear):
        if any(isinstance(p, Layer) and p.module is module for p in parts):
            raise ValueError(f"{name} is used twice: give each use a layer.")
        if isinstance(module, nn.Conv2d):
            _check_plain(name, module)
        elif len(shape) != 2:
            raise ValueError(f"{name} reads {tuple(shape)[1:]}: flatten it first.")
        parts.append(Layer(name, module))
    elif isinstance(module, nn.ReLU):
        if last is None:
            raise ValueError(f"{name}: a ReLU before the first layer; leave it out.")
        # It may go back over pooling and flattening to its layer: all keep order.
        parts[last] = replace(parts[last], relu=True)
    elif isinstance(module, nn.MaxPool2d):
        pool = _check_pool(name, module)
        if last is not None and last == len(parts) - 1 and parts[last].pool is None:
            parts[last] = replace(parts[last], pool=pool)
        else:
            parts.append(MaxPool(pool))
    else:
        raise ValueError(f"{name}, a {type(module).__name__}, {CANNOT}")


def _check_plain(name, conv):
    for setting, plain in PLAIN.items():
        value = getattr(conv, setting)
        if value not in (plain, "valid"):
            raise ValueError(
                f"{name} has {setting} {value}: only {plain} can be quantized here."
            )


def _check_pool(name, module):
    """Return ((height, width), (rows, columns)) of a MaxPool2d."""
    if module.ceil_mode or module.return_indices:
        raise ValueError(f"{name}: ceil_mode and return_indices cannot be quantized.")
    if _pair(module.padding) != (0, 0) or _pair(module.dilation) != (1, 1):
        raise ValueError(f"{name}: a MaxPool2d with padding or dilation.")
    return _pair(module.kernel_size), _pair(module.stride or module.kernel_size)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _named(parts):
    """Return the parts with the names of the tensors that they read and make."""
    taken = {part.name for part in parts if isinstance(part, Layer)}

    def fresh(name):
        return name if name not in taken else fresh(f"{name}_")

    tensor, stem, result = None, fresh("input"), []
    for number, part in enumerate(parts):
        if isinstance(part, Layer):
            stem = part.name
        if tensor is None:
            tensor = stem
        following = parts[number + 1] if number + 1 < len(parts) else None
        if isinstance(following, Layer):
            output = following.name
        else:
            output = fresh("output") if following is None else f"{stem}/{number + 1}"
        result.append(replace(part, inputs=(tensor,), output=output))
        tensor = output
    return result


def read_layers(net):
    """Return {name: module} of the Conv2d and Linear, in the order of computation.

    Raises ValueError as read_parts does. Taught in notebook 03.
    """
    return {p.name: p.module for p in read_parts(net) if isinstance(p, Layer)}


def tensor_names(parts):
    """Return the names of the tensors that enter the layers, and of the last one."""
    layers = [part.name for part in parts if isinstance(part, Layer)]
    return (*layers, parts[-1].output)


def activations(net, images):
    """Return {"conv1": images, "conv2": ..., "fc1": ..., "fc2": ..., "output": logits}.

    Each name holds the float tensor that ENTERS the layer of that name; the names are
    the network's own. Raises ValueError for a network that read_parts cannot read.
    Source: the article's gatherStats. Taught in notebook 03.
    """
    parts = read_parts(net, images)
    tensors = {parts[0].inputs[0]: images}
    for part in parts:
        tensors[part.output] = part(tensors[part.inputs[0]])
    return {name: tensors[name] for name in tensor_names(parts)}
