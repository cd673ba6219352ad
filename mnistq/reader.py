"""The parts of a network, node after node of what torch.fx traced. Notebook 03."""

import math
import operator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import fx, nn

from mnistq.parts import (
    Add,
    Average,
    Concat,
    Flatten,
    Layer,
    MaxPool,
    average_window,
    check_conv,
    pool_window,
)

SKIPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)  # not in eval mode
FUNCTIONS = {  # what a function or method means, as a module or a part
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.relu_: nn.ReLU,
    "relu_": nn.ReLU,
    F.relu6: nn.ReLU6,
    F.hardtanh: nn.Hardtanh,
    F.max_pool2d: nn.MaxPool2d,
    torch.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    torch.mean: Average,
    "mean": Average,
    operator.add: Add,
    operator.iadd: Add,
    torch.add: Add,
    "add": Add,
    "add_": Add,
    torch.cat: Concat,
    torch.concat: Concat,
    torch.flatten: nn.Flatten,
    "flatten": nn.Flatten,
    torch.reshape: nn.Flatten,
    "reshape": nn.Flatten,
    "view": nn.Flatten,
    F.dropout: nn.Dropout,
    F.dropout2d: nn.Dropout,
    "contiguous": nn.Identity,
    "float": nn.Identity,
    F.log_softmax: nn.LogSoftmax,
    torch.log_softmax: nn.LogSoftmax,
    "log_softmax": nn.LogSoftmax,
}
ARGUMENTS = {  # of such a function, those that its module needs, in their order
    nn.MaxPool2d: "kernel_size stride padding dilation ceil_mode return_indices",
    nn.AvgPool2d: "kernel_size stride padding ceil_mode count_include_pad "
    "divisor_override",
    nn.AdaptiveAvgPool2d: "output_size",
    nn.Hardtanh: "min_val max_val",
    nn.LogSoftmax: "dim",
    nn.Dropout: "p training",
}
CANNOT = (
    "cannot be quantized here: only Conv2d, Linear, BatchNorm, ReLU, ReLU6, MaxPool2d, "
    "AvgPool2d, the mean over an image, addition, concatenation, Flatten, Dropout and "
    "log_softmax can. Replace anything else."
)


class Reader:
    """Reads the parts from a traced network, node after node."""

    def __init__(self, net, folded, traced, image):
        self.net, self.folded, self.nodes = net, folded, list(traced.graph.nodes)
        self.parts, self.stems, self.scores = [], [], None
        self.tensors = {}  # node: number of its tensor; 0: the input, n: of part n - 1
        self.kept = {}  # node: the node whose order of values it keeps
        self.sizes = set()  # nodes that are sizes, no tensors
        self.shapes = {}
        reader = self

        class Watch(fx.Interpreter):
            def run_node(self, node):
                value = super().run_node(node)
                reader.shapes[node] = getattr(value, "shape", None)
                return value

        Watch(traced).run(image)

    def read(self):
        """Return (parts, what each is called, dimension of the log_softmax or None).

        Their tensors are numbers yet: 0 is the input, n is made by part n - 1.
        """
        for node in self.nodes:
            self.place = f"{node.op} {node.target}"
            if node.op == "call_function":
                self.place = node.name
            if node.op == "placeholder":
                self.tensors.setdefault(node, 0)
            elif self._asks_for_sizes(node):
                self.sizes.add(node)
            elif node.op == "output":
                self._leave(node)
            else:
                self._take(node)
        if not any(isinstance(part, Layer) for part in self.parts):
            raise ValueError("the network has no Conv2d or Linear to quantize.")
        return self.parts, self.stems, self.scores

    def _leave(self, node):
        value = node.args[0]
        if not isinstance(value, fx.Node):
            kind = "a dict" if isinstance(value, dict) else "more than one tensor"
            raise ValueError(f"the network returns {kind}: return one tensor.")

    def _asks_for_sizes(self, node):
        """Return whether a node is x.size(...), x.shape or an index into one."""
        if node.target == "size":
            return True
        if node.target is getattr and node.args[1] == "shape":
            return True
        return bool(node.args) and node.args[0] in self.sizes

    def _sources(self, node):
        """Return the nodes whose tensors a node reads, each as often as it does."""
        if self.scores is not None:
            raise ValueError(
                f"{self.place} follows log_softmax, which must be the end."
            )
        read = node.args[:1]
        kind = FUNCTIONS.get(node.target) if node.op != "call_module" else None
        if kind is Concat:
            read = [*(read or [node.kwargs.get("tensors")])[0]]
        elif kind is Add:
            read = [*node.args, *(v for k, v in node.kwargs.items() if k == "other")]
        sources = [value for value in read if value in self.tensors]
        known = set(sources) | self.sizes
        if len(sources) != len(read) or not set(node.all_input_nodes) <= known:
            raise ValueError(
                f"{self.place} reads something else than what the network computed "
                "before it: a constant, or a parameter of the network itself."
            )
        return sources

    def _module(self, node):
        """Return the module that a node calls, or one that does the same, or a part."""
        if node.op == "call_module":
            own = self.folded.get(node.target)
            return self.net.get_submodule(node.target) if own is None else own
        kind = FUNCTIONS.get(node.target)
        if kind is None:
            name = getattr(node.target, "__name__", node.target)
            raise ValueError(f"{name} (at {node.name}) {CANNOT}")
        if kind in (Add, Concat, Average):
            return kind
        names = ARGUMENTS.get(kind, "").split()
        options = dict(zip(names, node.args[1:], strict=False))
        options |= {k: v for k, v in node.kwargs.items() if k in names}
        if kind is nn.Dropout and options.pop("training", True):
            raise ValueError(
                f"{node.name} is on in eval mode, too: give it training=self.training."
            )
        return kind(**options)

    def _take(self, node):
        """Add what a node does to the parts."""
        module = self._module(node)
        sources = self._sources(node)
        entering = self.shapes[sources[0]]
        if isinstance(module, nn.Conv2d | nn.Linear):
            self._layer(node, module, entering)
        elif isinstance(module, nn.ReLU | nn.Hardtanh):
            self._relu(node, module)
        elif isinstance(module, nn.MaxPool2d):
            self._max_pool(node, module)
        elif isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            window = average_window(self.place, module, entering)
            self._append(node, Average(window=window))
        elif module is Average:
            self._mean(node, entering)
        elif module is Add:
            self._add(node, sources)
        elif module is Concat:
            self._concat(node, sources)
        elif isinstance(module, nn.Flatten):
            self._flatten(node, entering)
        elif isinstance(module, nn.LogSoftmax):
            self._log_softmax(node, module, entering)
        elif isinstance(module, SKIPPED):
            self._keep(node)
        else:
            kind = type(module).__name__
            raise ValueError(f"{node.target}, a {kind}, {CANNOT}")

    def _append(self, node, part, sources=None):
        """Append a part that reads the sources, and makes the node's tensor."""
        sources = node.args[:1] if sources is None else sources
        inputs = tuple(self.tensors[source] for source in sources)
        name = node.target if node.op == "call_module" else node.name
        self._make(node, part, inputs, name)

    def _make(self, node, part, inputs, stem):
        output = len(self.parts) + 1
        self.parts.append(replace(part, inputs=inputs, output=output))
        self.stems.append(stem)
        self.tensors[node] = output

    def _keep(self, node):
        """The node's tensor is the one it reads, or keeps the order of its values."""
        self.kept[node] = node.args[0]
        self.tensors.setdefault(node, self.tensors[node.args[0]])

    def _maker(self, node):
        """Return the number of the part that a ReLU at node can join, or None.

        It may go back over pooling and flattening, which keep order, as long as nobody
        else reads what lies between.
        """
        source = node.args[0]
        while [user for user in source.users if user not in self.sizes] == [node]:
            if source in self.kept:
                node, source = source, self.kept[source]
                continue
            number = self.tensors[source] - 1
            while number >= 0 and self.parts[number].keeps_grid:  # of a mean
                number = self.parts[number].inputs[0] - 1
            return number if number >= 0 else None
        return None

    def _relu(self, node, module):
        top = math.inf
        if isinstance(module, nn.Hardtanh):
            if module.min_val != 0 or not module.max_val > 0:
                raise ValueError(
                    f"{self.place} clamps to {module.min_val}..{module.max_val}: only "
                    "clamps from 0 on can be quantized."
                )
            top = float(module.max_val)
        number = self._maker(node)
        if number is None:
            self._append(node, Average(window=((1, 1), (1, 1)), relu=True, top=top))
            return
        part = self.parts[number]
        top = min(top, part.top)
        self.parts[number] = replace(part, relu=True, top=top)
        self._keep(node)

    def _layer(self, node, module, shape):
        if any(isinstance(p, Layer) and p.module is module for p in self.parts):
            raise ValueError(f"{node.target} is used twice: give each use a layer.")
        if isinstance(module, nn.Conv2d):
            check_conv(node.target, module)
        elif len(shape) != 2:
            raise ValueError(
                f"{node.target} reads {tuple(shape)[1:]}: flatten it first."
            )
        self._append(node, Layer(node.target, module))

    def _max_pool(self, node, module):
        pool = pool_window(self.place, module)
        number = self._maker(node)
        last = None if number is None else self.parts[number]
        direct = number is not None and number == self.tensors[node.args[0]] - 1
        if direct and isinstance(last, Layer) and last.pool is None:
            self.parts[number] = replace(last, pool=pool)
        else:
            self._append(node, MaxPool(pool))
        self._keep(node)

    def _mean(self, node, shape):
        given = dict(zip(("dim", "keepdim"), node.args[1:], strict=False)) | node.kwargs
        dims = given.get("dim")
        dims = [dims] if isinstance(dims, int) else list(dims or [])
        if len(shape) != 4 or sorted(d % 4 for d in dims) != [2, 3]:
            raise ValueError(f"{self.place} along {dims}: only the mean over an image.")
        self._append(node, Average(window=(tuple(shape[2:]),) * 2))
        if not given.get("keepdim"):
            self._make(node, Flatten(), (self.tensors[node],), node.name)

    def _add(self, node, sources):
        shapes = [tuple(self.shapes[source]) for source in sources]
        if node.kwargs.get("alpha", 1) != 1:
            raise ValueError(f"{self.place} with alpha: only plain additions.")
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{self.place} adds tensors of shapes {shapes[0][1:]} and "
                f"{shapes[1][1:]}: only equal ones can be added."
            )
        self._append(node, Add(), sources)

    def _concat(self, node, sources):
        rank = len(self.shapes[node])
        dim = node.kwargs.get("dim", node.kwargs.get("axis", 0))
        dim = node.args[1] if len(node.args) > 1 else dim
        if dim % rank != 1:
            raise ValueError(f"{self.place} along {dim}: only along 1, the channels.")
        self._append(node, Concat(), sources)

    def _flatten(self, node, shape):
        if tuple(self.shapes[node]) != (1, shape.numel()):
            raise ValueError(
                f"{self.place} to {tuple(self.shapes[node])}: only flattening each "
                "image, to [N, -1], can be quantized."
            )
        if len(shape) > 2:  # else it changes nothing
            self._append(node, Flatten())
        self._keep(node)

    def _log_softmax(self, node, module, shape):
        self.scores = 1 if module.dim is None else module.dim  # as torch guesses
        if self.scores % len(shape) != 1:
            raise ValueError(
                f"{self.place} along {self.scores}: use dim=1, the scores."
            )
        self._keep(node)
