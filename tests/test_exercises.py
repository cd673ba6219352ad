"""The exercises' checks let the notebooks' solutions pass and name known mistakes.

A known wrong answer is the solution, as it stands in the notebook, with one piece of it
replaced: (the piece, what stands in its place, what the check must say).
"""

import ast
import math
import re
import sys
from pathlib import Path

import nbformat
import pytest
import torch

import mnistq_helpers as mq

NOTEBOOKS = Path(mq.__file__).parent / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import exercise_checks  # noqa: E402

WRONG = {
    # 02
    "my_quantize": [
        ("round(-low / scale)", "int(-low / scale)", "zero point must be rounded"),
        ("min(*x, 0.0), max(*x, 0.0)", "min(x), max(x)", "until it holds 0"),
        (" or 1.0", "", "must not divide by zero"),
        ("round(v / scale) + ", "math.floor(v / scale + 0.5) + ", "Ties go to the"),
        ("round(v / scale) + ", "int(v / scale) + ", "to the nearest, not down"),
        ("min(max(q, 0), qmax)", "q", "must be clamped"),
        ("min(max(q, 0), qmax)", "q % (qmax + 1)", "must be clamped"),
        ("2**bits - 1", "2**bits", "from 0 to 2**bits - 1"),
    ],
    "my_dequantize": [
        ("- zero_point", "+ zero_point", "taken away, not added"),
        ("q.int()", "q", "wraps"),
        ("shape = [-1] + [1] * (q.dim() - 1)", "shape = [-1]", "belongs to a row"),
        ("[1] * (q.dim() - 1)", "[1]", "four axes, not two"),
        ("scale.reshape(shape) * ", "", "in floats"),
    ],
    "my_scales": [
        ("2 ** (bits - 1) - 1", "2 ** (bits - 1)", "end at 127"),
        ("2 ** (bits - 1) - 1", "2**bits - 1", "end at 127"),
        (".abs()", "", "whatever its sign"),
        (".amax(1)", ".amax()", "one scale for each row"),
        (".amax(1)", ".amax(0)", "one scale for each row"),
        (".flatten(1)", "", "four axes"),
    ],
}


def exercises():
    """Return {name of a check: (notebook, code of its cell, code of its solution)}."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text = ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                text = cell.source
                continue
            names = re.findall(r"^check\.(\w+)\(", cell.source, re.MULTILINE)
            for name in names:
                solution = text.split("<summary>Solution</summary>")[-1]
                code = re.search(r"```\n(.*?)```", solution, re.DOTALL)
                found[name] = path, cell, code.group(1) if code else ""
    return found


EXERCISES = exercises()


def notebook_names(path):
    """Return what a cell of the notebook may use: modules and its functions."""
    names = {"math": math, "torch": torch, "mq": mq, "F": torch.nn.functional}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and not cell.source.startswith("%"):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    exec(ast.unparse(node), names)
    return names


def said(name, path, code, capsys):
    """Return what the check of that name says of an answer."""
    names = notebook_names(path)
    exec(code, names)
    capsys.readouterr()
    getattr(exercise_checks, name)(names[name])
    return capsys.readouterr().out


def test_every_check_is_used_by_one_notebook_and_has_known_wrong_answers():
    tree = ast.parse(Path(exercise_checks.__file__).read_text())
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    checks = {
        name
        for name, node in functions.items()
        if (ast.get_docstring(node) or "").startswith("Exercise ")
    }
    assert checks == EXERCISES.keys() == WRONG.keys()
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_as_it_stands_in_the_notebook_is_not_attempted(name):
    _, cell, _ = EXERCISES[name]
    (output,) = cell.outputs
    assert output.text.startswith(f"{name}: not attempted yet")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_of_the_notebook_passes(name, capsys):
    path, _, solution = EXERCISES[name]
    text = said(name, path, solution, capsys)
    assert text.startswith(f"{name}: right. ")


@pytest.mark.parametrize(
    ("name", "piece", "instead", "reason"),
    [(name, *wrong) for name, wrongs in WRONG.items() for wrong in wrongs],
)
def test_a_wrong_answer_is_named(name, piece, instead, reason, capsys):
    path, _, solution = EXERCISES[name]
    assert solution.count(piece) == 1
    text = said(name, path, solution.replace(piece, instead), capsys)
    head, *example = text.splitlines()
    assert head.startswith(f"{name}: not yet. ") and reason in head
    labels = [line.split(":")[0].strip() for line in example]
    assert labels == ["example", "expected", "given"]
