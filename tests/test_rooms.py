"""Imports run in one direction, the facade holds no code, rooms are short."""

import ast
import inspect

import pytest

import mnistq_helpers as mq

FACADE = mq.ROOT / "mnistq_helpers.py"
HOUSE = mq.ROOT / "mnistq"
FILES = sorted(HOUSE.rglob("*.py"))


def read(path):
    return path.read_text(encoding="utf-8")


def room_of(path):
    """Return a file's name as rooms are named here: arithmetic, exercises.judge."""
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts)


def imported(source):
    """Return [(room or "", name or "")] of what a source imports from mnistq.

    A relative import is none that this project uses, and is found as ("", "").
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append(("mnistq", ""))
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name) for alias in node.names]
    rooms = []
    for module, name in found:
        if module == "mnistq" and name:  # from mnistq import quantizers
            module, name = f"mnistq.{name}", ""
        if module.split(".")[0] == "mnistq":
            rooms.append((module.partition(".")[2], name))
    return rooms


def wrong_arrows(order, sources):
    """Return "room -> other" of each import of what does not stand above its room."""
    arrows = []
    for room, source in sources.items():
        above = order[: order.index(room)] if room in order else []
        others = dict.fromkeys(other for other, _ in imported(source))
        arrows += [f"{room} -> {other}" for other in others if other not in above]
    return arrows


def lessons():
    """Return the rooms from above to below, as the tables of contents name them."""
    order = [room for room, _ in imported(read(FACADE))]
    order.append("exercises.judge")
    order += [room for room, _ in imported(read(HOUSE / "exercises" / "__init__.py"))]
    return list(dict.fromkeys(order))


SOURCES = {room_of(path): read(path) for path in FILES if path.name != "__init__.py"}


def test_every_room_has_a_place_in_the_tables_of_contents():
    assert sorted(lessons()) == sorted(SOURCES)


def test_a_room_imports_only_rooms_that_stand_above_it():
    assert wrong_arrows(lessons(), SOURCES) == []


@pytest.mark.parametrize(
    "line",
    [
        "from mnistq.integer import quantize_net",
        "import mnistq.integer",
        "from mnistq import integer",
        "def f():\n    from mnistq.integer import quantize_net",
    ],
)
def test_an_arrow_that_runs_back_is_named(line):
    sources = {
        "arithmetic": line,
        "integer": "from mnistq.arithmetic import int_matmul",
    }
    arrows = wrong_arrows(["arithmetic", "integer"], sources)
    assert arrows == ["arithmetic -> integer"]
    above = wrong_arrows(["integer", "arithmetic"], {"arithmetic": line})
    assert above == []
    nowhere = wrong_arrows(["arithmetic"], {"arithmetic": "from .integer import q"})
    assert nowhere == ["arithmetic -> "]


def test_no_room_imports_the_facade():
    for room, source in SOURCES.items():
        names = [
            name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (getattr(node, "module", ""), *(a.name for a in node.names))
        ]
        assert "mnistq_helpers" not in names, room


def private(source):
    """Return what a source takes from a room though it begins with an underscore."""
    taken = [name for _, name in imported(source)]
    tree = ast.parse(source)
    rooms = {room.split(".")[-1] for room, name in imported(source) if not name}
    rooms |= {"mq", "mnistq"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).split(".")[0]
            taken += [node.attr] if owner in rooms else []
    return [n for n in taken if n.startswith("_") and not n.startswith("__")]


def test_no_private_name_leaves_its_room():
    tools = {path.name: read(path) for path in (mq.ROOT / "tools").glob("*.py")}
    for place, source in (SOURCES | tools | {"the facade": read(FACADE)}).items():
        assert private(source) == [], place
    assert [n for n in vars(mq) if n.startswith("_") and n[:2] != "__"] == []


def test_a_private_name_is_found():
    assert private("from mnistq.steps import _pooled, max_pool") == ["_pooled"]
    assert private("from mnistq import steps\nsteps._pooled(1)") == ["_pooled"]
    assert private("x = mq._pooled(1)") == ["_pooled"]
    assert private("import torch\nq._replace(a=torch._int_mm)") == []


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_the_facade_holds_nothing_but_imports():
    docstring, *rest = ast.parse(read(FACADE)).body
    assert is_docstring(docstring)
    assert {type(node) for node in rest} == {ast.ImportFrom}
    assert len(read(FACADE).splitlines()) <= 190
    (only,) = ast.parse(read(HOUSE / "__init__.py")).body
    assert is_docstring(only)


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_a_room_is_no_longer_than_one_sitting(path):
    assert len(read(path).splitlines()) <= 320
    assert ast.get_docstring(ast.parse(read(path)))


INTERFACE = {  # name: its first parameters, in their order
    "mnist": "train",
    "Net": "",
    "load_net": "path net",
    "evaluate": "model images labels",
    "calc_scale_zero_point": "min_val max_val bits signed symmetric",
    "quantize_tensor": "x bits scale zero_point signed symmetric axis",
    "dequantize_tensor": "q",
    "calibrate": "net images method bits",
    "quantize_net": ("net ranges weight_bits act_bits per_channel requantize weights"),
    "QuantizedNet": "",
    "quantize_multiplier": "m",
    "multiply_by_quantized_multiplier": "acc m0 shift",
    "int_matmul": "a b",
    "quantize_best": "net images weight_bits act_bits requantize",
    "export_onnx": "qnet path",
    "export_tflite": "qnet path",
    "read_onnx": "path",
    "read_tflite": "path",
    "read_digits": "source",
    "digit_stages": "source",
    "diagnose": "net qnet images",
    "bits_slider": "draw bits low high",
}
DEFAULTS = {
    "calc_scale_zero_point": {"bits": 8, "signed": False, "symmetric": False},
    "quantize_tensor": {
        "bits": 8,
        "scale": None,
        "zero_point": None,
        "signed": False,
        "symmetric": False,
        "axis": None,
    },
    "load_net": {"path": mq.COMMITTED, "net": None},
    "calibrate": {"method": "mean", "bits": 8},
    "quantize_net": {
        "weight_bits": 8,
        "act_bits": 8,
        "per_channel": True,
        "requantize": "fixed",
        "weights": None,
    },
    "quantize_best": {"requantize": "fixed"},
    "bits_slider": {"bits": 8, "low": 1, "high": 8},
}


@pytest.mark.parametrize("name", INTERFACE)
def test_the_interface_is_reachable(name):
    """What later work and outside checks rely on keeps its name, order and defaults."""
    parameters = inspect.signature(getattr(mq, name)).parameters
    wanted = INTERFACE[name].split()
    assert list(parameters)[: len(wanted)] == wanted
    found = {
        n: parameters[n].default
        for n in wanted
        if parameters[n].default is not inspect.Parameter.empty
    }
    assert found == DEFAULTS.get(name, {})


def test_the_interface_of_its_types():
    for name in ("codes", "nbytes", "save", "load", "__call__"):
        assert hasattr(mq.QuantizedNet, name)
    assert mq.QTensor._fields == ("tensor", "scale", "zero_point", "axis")
    methods = ["mean", "minmax", "ema", "percentile", "mse", "entropy"]
    assert list(mq.RANGE_METHODS) == methods
