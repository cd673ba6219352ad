"""The tests of one notebook's checks, from the solutions that stand in it."""

import functools
import inspect
import re
from collections import namedtuple
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mnistq import exercises as check

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

Exercise = namedtuple("Exercise", "stem cell solution")


@functools.cache
def exercises(module):
    """Return {name of a check: its Exercise} from a module's notebook."""
    (path,) = NOTEBOOKS.glob(f"[0-9][0-9]_{module}.ipynb")
    found, text = {}, ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            text = cell.source
            continue
        for name in re.findall(r"(?m)^check\.(\w+)\(", cell.source):
            solution = text.split("<summary>Solution</summary>")[-1]
            code = re.search(r"(?s)```\n(.*?)```", solution)
            found[name] = Exercise(path.stem, cell, code.group(1))
    return found


def checks(module):
    """Return the names of the checks that a module defines."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {n for n, f in functions if (f.__doc__ or "").startswith("Exercise ")}


class Suite:
    """Tests of the checks in module, by the answers wrong and right (see WRONG)."""

    module = None
    wrong, right = {}, ()

    @classmethod
    def exercises(cls):
        return exercises(cls.module.__name__.split(".")[-1])

    @classmethod
    def pytest_generate_tests(cls, metafunc):
        wrong = [(name, *w) for name, answers in cls.wrong.items() for w in answers]
        cases = {
            ("name",): [(name,) for name in cls.wrong],
            ("name", "piece", "instead"): cls.right,
            ("name", "piece", "instead", "reason"): wrong,
        }
        asked = ("name", "piece", "instead", "reason")
        asked = tuple(a for a in asked if a in metafunc.fixturenames)
        if asked:
            metafunc.parametrize(asked, cases[asked])

    @pytest.fixture
    def said(self, notebook, capsys):
        """Return a function (name, piece, instead): what the check says of an answer.

        The answer is the solution, with a piece of it replaced.
        """

        def say(name, piece="", instead=""):
            stem, _, code = self.exercises()[name]
            if piece:
                assert code.count(piece) == 1
                code = code.replace(piece, instead)
            names = {"np": np} | notebook(stem)
            exec(code, names)
            getattr(check, name)(names[name])
            return capsys.readouterr().out

        return say

    def test_each_check_is_used_and_has_known_wrong_and_unusual_answers(self):
        assert checks(self.module) == self.exercises().keys() == self.wrong.keys()
        assert all(len(answers) >= 8 for answers in self.wrong.values())
        names = [name for name, *_ in self.right]
        assert all(names.count(name) >= 4 for name in self.wrong)

    def test_the_stub_as_it_stands_in_the_notebook_is_not_attempted(self, name):
        (output,) = self.exercises()[name].cell.outputs
        assert output.text.startswith(f"{name}: not attempted yet")

    def test_the_solution_of_the_notebook_passes(self, name, said):
        assert said(name).startswith(f"{name}: right. ")

    def test_a_right_answer_of_another_type_passes(self, name, piece, instead, said):
        assert said(name, piece, instead).startswith(f"{name}: right. ")

    def test_a_wrong_answer_is_named(self, name, piece, instead, reason, said):
        head, *example = said(name, piece, instead).splitlines()
        assert head.startswith(f"{name}: not yet. ") and reason in head
        labels = [line.split(":")[0].strip() for line in example]
        assert labels == ["example", "expected", "given"]
