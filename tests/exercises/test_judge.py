import functools
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from mnistq import exercises
from mnistq.exercises.judge import judge

from .suite import checks

HERE = Path(__file__).parent
MODULES = {
    p.stem
    for p in Path(exercises.__file__).parent.glob("[!_]*.py")
    if p.stem != "judge"
}


def said(capsys, answer, reference=lambda x: x, example=0, reason="No reason."):
    judge(answer, reference, [((example,), reason)], "Praise.")
    return capsys.readouterr().out


def test_each_module_has_its_tests_and_all_checks_are_found_in_the_package():
    tested = {p.stem.removeprefix("test_") for p in HERE.glob("test_*.py")}
    assert tested == MODULES | {"judge"}
    for module in MODULES:
        for name in checks(import_module(f"mnistq.exercises.{module}")):
            assert getattr(exercises, name).__module__ == f"mnistq.exercises.{module}"


def test_a_result_in_place_of_the_function_is_said_to_be_one(capsys):
    assert said(capsys, 3.5).startswith("give the function's name alone, not its resu")


def test_a_partial_function_has_no_name_and_is_judged_all_the_same(capsys):
    assert ": right. Praise." in said(capsys, functools.partial(int))


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_stub_is_not_attempted(nothing, capsys):
    assert "not attempted yet" in said(capsys, lambda x: nothing)


def test_an_error_is_shown_with_the_cases_reason(capsys):
    head, *_, given = said(capsys, lambda x: 1 / x).splitlines()
    assert head.endswith(": not yet. No reason.")
    assert given == "  given:    ZeroDivisionError: division by zero"


def test_an_undefined_name_is_called_that(capsys):
    def answer(x):
        return undefined  # noqa: F821

    assert "It uses a name that is not defined." in said(capsys, answer)


def test_an_answer_that_changes_its_arguments_cannot_change_the_examples(capsys):
    def answer(x):
        return x.sort()

    assert said(capsys, answer, lambda x: None, [2, 1]).startswith("answer: not attem")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[0].add_(1),
        lambda x: x[0].resize_(1),
        lambda x: x.pop(),
        lambda x: x[1].update(a=2),
        lambda x: x[2].reverse(),
    ],
)
def test_a_right_answer_that_changes_an_argument_is_refused(change, capsys):
    def example():
        return [torch.tensor([1.0, float("nan")]), {"a": 1}, [1, 2], torch.nn.ReLU()]

    text = said(capsys, lambda x: (change(x), 3)[1], lambda x: 3, example())
    assert "not yet. The result is right, but whoever calls it finds" in text
    assert ": right. Praise." in said(capsys, lambda x: 3, lambda x: 3, example())


def test_a_changed_argument_is_named_after_all_other_mistakes(capsys):
    cases = [(([n],), f"Reason {n}.") for n in (1, 2)]
    judge(lambda x: x.pop() and 1, lambda x: x[0], cases, "Praise.")
    assert "not yet. Reason 2." in capsys.readouterr().out
    judge(lambda x: x.pop(), lambda x: x[0], cases, "Praise.")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "  example:  <lambda>([1])",
        "  expected: [1]",
        "  given:    []",
    ]


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (3.0, 3, "The number is right, its type is not: give an int."),
        ((1, 3.0), (1, 3), "The number is right, its type is not: give an int."),
        (3.5, 3, "No reason."),
        (True, 1, "The numbers aside: give one number, of Python's type int."),
        ([1], 1, "The numbers aside: give one number, of Python's type int."),
        ("0.5", 0.5, "The numbers aside: give one number, of Python's type float."),
        ([1], [1, 2], "No reason."),
        (5, [5], "The numbers aside: give a list."),
        ((1,), (1, 2), "The numbers aside: give a tuple of 2."),
        ([1], 1, "The numbers aside: give one number, of Python"),
        (np.ones(2), 1.0, "The numbers aside: give one number, of Python"),
        (torch.ones(2), 1.0, "The numbers aside: give one number, of Python"),
        ([1.0], torch.ones(1), "The numbers aside: give a torch tensor."),
        (torch.ones(1, 2), torch.ones(2, 1), "No reason."),
        (torch.ones(2), torch.ones(2).int(), "The numbers are right, their type"),
        (torch.tensor([1, 257]), torch.tensor([1, 1]), "No reason."),
        (torch.tensor([1.0001]), torch.tensor([1.0]), "No reason."),
        (1.0001, 1.0, "No reason."),
        (float("nan"), 1.0, "No reason."),
    ],
)
def test_what_differs_is_refused(given, expected, words, capsys):
    text = said(capsys, lambda x: given, lambda x: expected)
    assert "not yet. " + words in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.tensor(3), 3),
        (1.000001, 1.0),
        ([1, 2], (1, 2)),
        (torch.tensor([]), torch.tensor([], dtype=torch.int64)),
    ],
)
def test_other_types_of_the_same_numbers_are_right(given, expected, capsys):
    assert ": right. Praise." in said(capsys, lambda x: given, lambda x: expected)


def test_right_numbers_of_another_type_are_refused_after_all_other_mistakes(capsys):
    cases = [((n,), f"Reason {n}.") for n in (1, 2)]

    def reference(n):
        return torch.tensor([n], dtype=torch.int32)

    judge(lambda n: torch.tensor([n]), reference, cases, "Praise.")
    lines = capsys.readouterr().out.splitlines()
    assert "their type is not: give int32." in lines[0] and "(1)" in lines[1]
    assert lines[2:] == ["  expected: int32 [1]", "  given:    int64 [1]"]
    judge(lambda n: torch.tensor([1]), reference, cases, "Praise.")
    assert "not yet. Reason 2." in capsys.readouterr().out


def test_of_a_large_tensor_the_first_place_that_differs_is_shown(capsys):
    wrong = torch.zeros(4, 5).int()
    wrong[2, 3] = 7
    text = said(capsys, lambda x: wrong, lambda x: torch.zeros(4, 5).int(), wrong)
    assert "at (2, 3)" in text and "a int32 tensor of shape (4, 5)" in text
    assert text.endswith("  expected: int32 0\n  given:    int32 7\n")


def test_an_answer_that_equals_a_known_mistake_in_all_cases_is_told_so(capsys):
    cases = [((0,), "Reason 0."), ((1,), "Reason 1."), ((2,), "Reason 2.")]
    mistakes = [(lambda n: n // 0, "It divides."), (lambda n: 2 * n, "Doubled.")]
    answers = {"Doubled.": lambda n: n + n, "Reason 1.": lambda n: n * min(n + 1, 2.5)}
    for words, answer in answers.items():
        judge(answer, lambda n: n, cases, "Praise.", mistakes)
        assert f"not yet. {words}" in capsys.readouterr().out
    judge(lambda n: n, lambda n: n, cases, "Praise.", mistakes)
    assert "right. Praise." in capsys.readouterr().out


def test_a_large_array_is_shown_by_its_shape(capsys):
    text = said(capsys, lambda x: np.zeros((4, 5)), example=0)
    assert text.endswith("  given:    a float64 array of shape (4, 5)\n")
