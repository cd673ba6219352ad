"""The checks of the exercises: each names what is wrong, by a small example.

In a notebook: `check.my_quantize(my_quantize)`. A check calls the answer with
examples, the smallest first, compares with a reference, and prints the first
example that differs, or what was learnt. tests/test_exercises.py proves that
each lets the notebook's solution pass, and that it names what is wrong with
three wrong answers or more.
"""

import copy
import math

import torch

import mnistq_helpers as mq


def judge(answer, reference, cases, praise):
    """Print how the function answer compares with reference on the cases.

    cases: pairs (arguments, what an answer that differs there got wrong), the
    smallest first. praise: what was learnt.
    """
    if not callable(answer):
        print(f"give the function's name alone, not its result {show(answer)}")
        return
    name = answer.__name__
    for arguments, reason in cases:
        expected = reference(*copy.deepcopy(arguments))
        call = f"{name}({', '.join(show(a) for a in arguments)})"
        try:
            given = answer(*copy.deepcopy(arguments))  # it may change them
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            explain(name, call, show(expected), problem, reason)
            return
        if given is None or given is ...:
            print(f"{name}: not attempted yet (it returns nothing)")
            return
        place = difference(given, expected)
        if place is not None:
            if place:
                call += f", at {show(place)}"
                expected, given = expected[place], given[place]
            explain(name, call, show(expected), show(given), reason)
            return
    print(f"{name}: right. {praise}")


def explain(name, example, expected, given, reason):
    """Print an example that an answer got wrong, and what to mend."""
    print(f"{name}: not yet. {reason}")
    print(f"  example:  {example}")
    print(f"  expected: {expected}")
    print(f"  given:    {given}")


def difference(given, expected):
    """Return None if given equals expected, else the place of a difference.

    The place is a tuple of indices, () for the whole. Integers must be equal,
    and integers; floats must be close, to 1e-5 of their size.
    """
    if isinstance(expected, torch.Tensor):
        if not isinstance(given, torch.Tensor) or given.shape != expected.shape:
            return ()
        if given.is_floating_point() != expected.is_floating_point():
            return ()
        same = torch.isclose(given.double(), expected.double(), 1e-5, 1e-7)
        if not expected.is_floating_point():
            same = given.long() == expected.long()
        if bool(same.all()):
            return None
        large = expected.numel() > 12
        return tuple((~same).nonzero()[0].tolist()) if large else ()
    if isinstance(expected, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(expected):
            return ()
        parts = zip(given, expected, strict=True)
        return None if all(difference(*p) is None for p in parts) else ()
    if isinstance(given, torch.Tensor) and given.dim() == 0:
        given = given.item()
    if isinstance(expected, float):
        number = isinstance(given, int | float)
        close = number and math.isclose(
            given, expected, rel_tol=1e-5, abs_tol=1e-7
        )
        return None if close else ()
    return None if type(given) is type(expected) and given == expected else ()


def show(value):
    """Return value in few characters: small tensors whole, others by shape."""
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        if value.numel() > 12:
            return f"a {kind} tensor of shape {tuple(value.shape)}"
        numbers = show(value.tolist())
        return numbers if kind in ("float32", "int64") else f"{kind} {numbers}"
    if isinstance(value, float):
        return f"{value:.6g}" if value % 1 else str(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(show(part) for part in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


# ------------------------------------------------------------------------------
# 02 Quantization math
# ------------------------------------------------------------------------------


def my_quantize(answer):
    """Exercise 02.1: the codes of a list of floats on its own grid."""

    def reference(x, bits):
        return mq.quantize_tensor(torch.tensor(x), bits).tensor.tolist()

    cases = [
        (([0.0, 1.0], 1), "The codes go from 0 to 2**bits - 1."),
        (([0.0, 0.6, 1.0], 1), "Codes are rounded to the nearest, not down."),
        (([0.0, 0.5, 1.0], 1), "Ties go to the even code, as in torch."),
        (([0.0], 8), "A range of width 0 must not divide by zero."),
        (([5.0, 6.0], 8), "The range must be widened until it holds 0."),
        (([-6.0, -5.0], 8), "The range must be widened until it holds 0."),
        (([-1.0, 0.0], 2), "The zero point is the code that stands for 0."),
        (([-0.6, 0.0, 0.4], 2), "The zero point must be rounded, not cut."),
        (([-1.5, 1.5], 2), "Codes must be clamped to 0 and 2**bits - 1."),
        (([-1.0, -0.3, 0.0, 0.2, 0.9], 4), "All of it together."),
        (([-1.0, -0.3, 0.0, 0.2, 0.9], 8), "All of it together."),
    ]
    praise = (
        "You have written a quantizer: it widens, rounds its zero point, and "
        "clamps last. What it cannot do is undo a badly chosen range."
    )
    judge(answer, reference, cases, praise)


def my_dequantize(answer):
    """Exercise 02.2: what uint8 codes with a grid for each row stand for."""

    def reference(q, scale, zero_point):
        return mq.dequantize_tensor(mq.QTensor(q, scale, zero_point, 0))

    def case(q, scale, zero_point):
        q = torch.tensor(q, dtype=torch.uint8)
        zero_point = torch.tensor(zero_point, dtype=torch.uint8)
        return q, torch.tensor(scale), zero_point

    cases = [
        (case([[3]], [0.5], [0]), "x = scale * (q - zero_point), in floats."),
        (case([[3]], [0.5], [1]), "The zero point is taken away, not added."),
        (case([[1]], [0.5], [3]), "uint8 minus uint8 wraps: widen first."),
        (
            case([[4, 4], [4, 4]], [1.0, 10.0], [0, 0]),
            "Each scale belongs to a row, along axis 0.",
        ),
        (
            case([[4, 4], [4, 4]], [1.0, 1.0], [0, 3]),
            "Each zero point belongs to a row, along axis 0.",
        ),
        (
            case([[[[2, 2]]], [[[6, 6]]]], [0.1, 1.0], [3, 3]),
            "A kernel has four axes, not two; its grids go along axis 0.",
        ),
        (case([[4, 5, 6], [7, 8, 9]], [1.0, 0.5], [5, 8]), "All together."),
    ]
    praise = (
        "Widen, take the zero point away, multiply; the grids go along axis 0 "
        "whatever the shape. Published code gets the sign and the axis wrong."
    )
    judge(answer, reference, cases, praise)


def my_scales(answer):
    """Exercise 02.3: the symmetric scale of each output channel of a kernel."""

    def reference(w, bits):
        return mq.quantize_weight(w, bits).scale

    cases = [
        (
            (torch.tensor([[5.0], [5.0]]), 8),
            "Give one scale for each row; signed codes of 8 bits end at 127.",
        ),
        (
            (torch.tensor([[3.0], [-6.0]]), 2),
            "The largest weight counts, whatever its sign.",
        ),
        (
            (torch.tensor([[1.0, 2.0], [3.0, 30.0]]), 8),
            "A row's scale comes from its own largest weight.",
        ),
        (
            (torch.arange(24.0).reshape(3, 2, 2, 2), 8),
            "A kernel has four axes: take the maximum over all but the first.",
        ),
    ]
    praise = (
        "One outlier now spoils the scale of its own channel and no other: "
        "the reason why weights are quantized per channel."
    )
    judge(answer, reference, cases, praise)
