"""The exercises' checks let the notebooks' solutions pass and name known mistakes.

A known wrong answer is the solution, as it stands in the notebook, with one piece of it
replaced: (the piece, what stands in its place, what the check must say).
"""

import ast
import re
from collections import namedtuple
from pathlib import Path

import nbformat
import pytest

import exercise_checks

NOTEBOOKS = Path(exercise_checks.__file__).parent

WRONG = {
    # 01
    "my_normalise": [
        (" / 255", "", "after the division by 255"),
        ("/ 0.3081", "/ 0.3081**2", "divided by the deviation"),
        ("(x - 0.1307) / 0.3081", "x / 0.3081 - 0.1307", "less the mean"),
        ("x - 0.1307", "x + 0.1307", "less the mean"),
        ("unsqueeze(1)", "unsqueeze(-1)", "axis is the second"),
        ("unsqueeze(1)", "unsqueeze(0)", "axis is the second"),
    ],
    "my_parameters": [
        ("1 * 25 + 1", "1 * 25", "each output has a bias"),
        ("hidden + 1", "hidden", "each output has a bias"),
        ("4 * 4", "5 * 5", "fc1 sees 4 x 4"),
        ("first * 25 + 1", "25 + 1", "all channels of conv1"),
        ("second * 4 * 4", "4 * 4", "each channel of conv2"),
        ("10 * (hidden + 1)", "20", "all of fc1's outputs"),
    ],
    "my_sure_and_wrong": [
        ("best.exp()", "best", "probability's log"),
        ("~right", "right", "Sure and right"),
        ("scores.max(1)", "scores.min(1)", "wrong, but sure"),
        ("right & (sure < 0.5)", "sure < 0.5", "Not sure and wrong"),
        ("~right & (sure > 0.9)", "~right", "Not sure and wrong"),
    ],
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
    # 09
    "my_box": [
        ("int(rows[-1]) + 1", "int(rows[-1])", "one more than the last"),
        ("ink.sum(1) > 255", "ink.sum(1) > 0", "speck of 40"),
        ("ink.sum(1) > 255", "ink.sum(1) >= 255", "not more than 255"),
        ("top, bottom, left, right\n", "left, right, top, bottom\n", "Rows come first"),
        ("int(rows[0]), ", "0, ", "whole field's corner"),
    ],
    "my_middle": [
        ("float(y), float(x)", "float(x), float(y)", "Rows come first"),
        ("ink = ink.double()", "ink = (ink > 0).double()", "pull more"),
        (
            "(ink.sum(0) * torch.arange(n_columns)).sum() / ink.sum()",
            "(n_columns - 1) / 2",
            "Empty columns",
        ),
        (".arange(n_rows)", ".arange(1, n_rows + 1)", "first row"),
    ],
    "my_disagreements": [
        ("a.argmax(1) != b.argmax(1)", "(a != b).any(1)", "Other scores"),
        ("a.argmax(1) != b.argmax(1)", "a.argmax(0) != b.argmax(0)", "axis 1"),
        (".flatten()", "", "1-d tensor"),
        ("different.nonzero().flatten()", "different", "of no numbers"),
        (".flatten()", ".flatten()[:1]", "not the first alone"),
    ],
}


Exercise = namedtuple("Exercise", "stem cell solution")


def exercises():
    """Return {name of a check: the Exercise of the notebooks that uses it}."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text = ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                text = cell.source
                continue
            for name in re.findall(r"(?m)^check\.(\w+)\(", cell.source):
                solution = text.split("<summary>Solution</summary>")[-1]
                code = re.search(r"(?s)```\n(.*?)```", solution)
                found[name] = Exercise(path.stem, cell, code.group(1))
    return found


EXERCISES = exercises()


@pytest.fixture
def said(from_notebook, capsys):
    """Return a function (name, code): what the check of that name says of the code."""

    def say(name, code):
        names = from_notebook(EXERCISES[name].stem)
        exec(code, names)
        getattr(exercise_checks, name)(names[name])
        return capsys.readouterr().out

    return say


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
    (output,) = EXERCISES[name].cell.outputs
    assert output.text.startswith(f"{name}: not attempted yet")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_of_the_notebook_passes(name, said):
    assert said(name, EXERCISES[name].solution).startswith(f"{name}: right. ")


@pytest.mark.parametrize(
    ("name", "piece", "instead", "reason"),
    [(name, *wrong) for name, wrongs in WRONG.items() for wrong in wrongs],
)
def test_a_wrong_answer_is_named(name, piece, instead, reason, said):
    solution = EXERCISES[name].solution
    assert solution.count(piece) == 1
    head, *example = said(name, solution.replace(piece, instead)).splitlines()
    assert head.startswith(f"{name}: not yet. ") and reason in head
    labels = [line.split(":")[0].strip() for line in example]
    assert labels == ["example", "expected", "given"]
