"""The format QDQ of an .onnx file, as operators on codes. Used in notebook 09."""

from collections import Counter

import numpy as np

KEPT = ("MaxPool", "Flatten", "Reshape")  # the same operator on floats and on codes


class Pairs:
    """Puts operators on codes in the places of those on floats.

    DequantizeLinear, Conv, QuantizeLinear become QLinearConv, as when ONNX Runtime
    loads such a file. constants: {name: array}; nodes: all of the file; reads: how
    often it reads each tensor. found: the nodes so far, others as they were.
    """

    def __init__(self, nodes, constants, reads):
        self.constants, self.reads, self.found = constants, reads, []
        self.codes = {}  # {tensor of floats: the DequantizeLinear that makes it}
        self.waiting = {}  # {tensor of floats: the operator that makes it, of codes}
        self.relus = set()  # those of them that a Relu made
        self.grids = {}  # {tensor of codes: its grid}
        self.readers = Counter()  # of a tensor of codes, as floats
        for node in nodes:
            if node.op_type == "DequantizeLinear":
                self.readers[node.input[0]] += reads[node.output[0]]

    def take(self, node):
        """Add a node, or let it wait for the QuantizeLinear of what it makes."""
        kind, (x, *grid), (y, *_) = node.op_type, node.input, node.output
        if kind == "DequantizeLinear":
            self._check_codes(x, grid)
            self.codes[y] = node
        elif kind in (*ON_CODES, *KEPT) and x in self.codes:
            self.waiting[y] = node
        elif kind == "Relu" and x in self.waiting:
            self.waiting[y] = self._for_one(x)
            self.relus.add(y)
        elif kind == "QuantizeLinear" and x in self.waiting:
            self.grids[y] = self._grid(grid)
            self._check_relu(x, grid)
            self._replace(self._for_one(x), y, grid)
        else:
            self.found += [self.codes[x] for x in node.input if x in self.codes]
            self.found.append(node)

    def finish(self, outputs):
        """Return all nodes; outputs: the names of the file's."""
        for y, node in self.waiting.items():
            raise ValueError(
                f"{node.op_type}, which makes {y}: no QuantizeLinear follows, so it "
                "stays in floats."
            )
        return [*self.found, *(self.codes[y] for y in outputs if y in self.codes)]

    def _grid(self, names):
        """Return (scale, zero point, its type) of the names of two constants."""
        scale, zero = (self.constants[name] for name in names)
        return float(scale.reshape(())), int(zero.reshape(())), zero.dtype.name

    def _check_codes(self, x, names):
        if x in self.constants:
            return
        grid = self._grid(names)
        if self.grids.setdefault(x, grid) != grid:
            raise ValueError(f"{x} is on {self.grids[x]} and read on {grid}.")
        if self.readers[x] > 1 and grid[-1] == "int8":
            raise ValueError(
                f"{self.readers[x]} operators read {x}, which is int8: around such "
                "tensors ONNX Runtime computes in floats on x86. Let quantize_static "
                "use activation_type QUInt8, or the format QOperator."
            )

    def _check_relu(self, x, names):
        zero = self.constants[names[1]]
        if x in self.relus and zero != np.iinfo(zero.dtype).min:
            raise ValueError(f"its Relu stays in floats, the zero point being {zero}.")

    def _for_one(self, x):
        """Return the operator that makes x for one node alone."""
        if self.reads[x] != 1:
            raise ValueError(f"{self.reads[x]} operators read {x} in floats.")
        return self.waiting.pop(x)

    def _replace(self, operator, y, grid):
        """Add what makes codes y, on the grid of that name, of codes."""
        lost = [x for x in operator.input if x not in self.codes]
        if operator.op_type in KEPT:
            self._keep(operator, y, grid)
        elif lost:
            raise ValueError(f"{operator.op_type} reads {lost[0]}, which is no codes.")
        else:
            kind, arranged = ON_CODES[operator.op_type]
            entering = [self.codes[x].input for x in operator.input]
            if operator.op_type in ("Conv", "Gemm"):
                self._check_layer(operator, entering)
            self._add(kind, arranged(entering, grid), y, operator.attribute)

    def _keep(self, operator, y, grid):
        """Add an operator that takes codes as it takes floats, and a change of grid."""
        x, *others = operator.input
        codes, *names = self.codes[x].input
        same = self._grid(names) == self._grid(grid)
        made = y if same else operator.output[0]
        self._add(operator.op_type, [codes, *others], made, operator.attribute)
        if not same:
            self._add("QLinearConcat", [*grid, made, *names], y, axis=1)

    def _check_layer(self, operator, entering):
        """Raise ValueError for scales of another axis or a bias on another grid."""
        _, w, *bias = operator.input
        (_, x_scale, _), (_, w_scale, _), *more = entering
        transposed = operator.op_type == "Conv" or _attribute(operator, "transB", 0)
        scale = self.constants[w_scale]
        if scale.size > 1 and _attribute(self.codes[w], "axis", 1) == bool(transposed):
            raise ValueError(f"{w} has scales along another axis than its outputs.")
        scale = self.constants[x_scale] * scale
        if more and not np.allclose(self.constants[more[0][1]], scale, 1e-5, 0):
            raise ValueError(f"{bias[0]} is on another grid than its products.")

    def _add(self, kind, inputs, y, attributes=(), **more):
        from onnx.helper import make_node

        node = make_node(kind, inputs, [y], **more)
        node.attribute.extend(attributes)
        self.found.append(node)


def _attribute(node, key, default):
    return next((a.i for a in node.attribute if a.name == key), default)


def _conv(entering, grid):
    x, w, *bias = entering
    return [*x, *w, *grid, *(codes for codes, _, _ in bias)]


def _gemm(entering, grid):
    x, w, *bias = entering
    return [*x, *w, bias[0][0] if bias else "", *grid]


def _last(entering, grid):
    return [*(name for names in entering for name in names), *grid]


def _first(entering, grid):
    return [*grid, *(name for names in entering for name in names)]


ON_CODES = {  # operator on floats: that on codes, and the order of its inputs
    "Conv": ("QLinearConv", _conv),
    "Gemm": ("QGemm", _gemm),
    "Add": ("QLinearAdd", _last),
    "Concat": ("QLinearConcat", _first),
    "AveragePool": ("QLinearAveragePool", _last),
    "GlobalAveragePool": ("QLinearGlobalAveragePool", _last),
}
