"""What all checks share: judge compares an answer with a reference, by examples.

A check calls the answer with examples, the smallest first, and prints the first that
differs, or what was learnt. tests/exercises/ proves that each lets the notebook's
solution pass, and that it names what is wrong with eight wrong answers or more.
"""

import copy
import math

import numpy as np
import torch


def judge(answer, reference, cases, praise, mistakes=()):
    """Print how the function answer compares with reference on the cases.

    cases: pairs (arguments, what an answer that differs there got wrong), the
    smallest first. praise: what was learnt. mistakes: pairs (another function, what an
    answer got wrong that equals it in all cases), which come before the cases' words.
    """
    if not callable(answer):
        print(f"give the function's name alone, not its result {show(answer)}")
        return
    name = getattr(answer, "__name__", show(answer))  # a partial has none
    untyped = None  # the smallest example where only the type is wrong
    changed = None  # the smallest one whose arguments it changed
    mistaken = [words for other, words in mistakes if equal(answer, other, cases)]
    for number, (arguments, reason) in enumerate(cases):
        expected = reference(*copy.deepcopy(arguments))
        call = f"{name}({', '.join(show(a) for a in arguments)})"
        own = copy.deepcopy(arguments)  # it may change them
        try:
            given = answer(*own)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            reason = getattr(error, "reason", reason)
            if isinstance(error, NameError):
                reason = "It uses a name that is not defined."
            explain(name, call, show(expected), problem, reason)
            return
        if number == 0 and (given is None or given is ...):
            print(f"{name}: not attempted yet (it returns nothing)")
            return
        place = difference(given, expected)
        if place is not None:
            if place:
                call += f", at {show(place)}"
                expected, given = expected[place], given[place]
            reason = next(iter(mistaken), None) or wrong_form(given, expected) or reason
            explain(name, call, show(expected), show(given), reason)
            return
        typed = isinstance(expected, torch.Tensor) and expected.numel()
        if untyped is None and typed and given.dtype != expected.dtype:
            kinds = [str(t.dtype).removeprefix("torch.") for t in (expected, given)]
            reason = f"The numbers are right, their type is not: give {kinds[0]}."
            numbers = show(expected.tolist())
            untyped = call, *(f"{kind} {numbers}" for kind in kinds), reason
        if changed is None:
            pairs = zip(arguments, own, strict=True)
            found = [(a, b) for a, b in pairs if not same(a, b)]
            changed = (call, *map(show, found[0])) if found else None
    if untyped:
        explain(name, *untyped)
        return
    if changed:
        reason = (
            "The result is right, but whoever calls it finds the argument changed: "
            "work on a copy."
        )
        explain(name, *changed, reason)
        return
    print(f"{name}: right. {praise}")


def equal(answer, other, cases):
    """Return whether two functions give the same in all cases."""
    try:
        pairs = [
            [function(*copy.deepcopy(arguments)) for function in (answer, other)]
            for arguments, _ in cases
        ]
    except Exception:
        return False
    return all(difference(*pair) is None for pair in pairs)


def same(before, after):
    """Return whether tensors, and lists, tuples and dicts of them, are equal.

    Anything else (a network, a function) is taken to be what it was.
    """
    if isinstance(before, torch.Tensor):
        if before.shape != after.shape or before.dtype != after.dtype:
            return False
        return bool(((before == after) | ((before != before) & (after != after))).all())
    if isinstance(before, dict):
        before, after = list(before.items()), list(after.items())
    if isinstance(before, list | tuple):
        pairs = zip(before, after, strict=False)
        return len(before) == len(after) and all(same(*pair) for pair in pairs)
    plain_values = isinstance(before, int | float | str)
    return before == after or before != before if plain_values else True


def explain(name, example, expected, given, reason):
    """Print an example that an answer got wrong, and what to mend."""
    print(f"{name}: not yet. {reason}")
    print(f"  example:  {example}")
    print(f"  expected: {expected}")
    print(f"  given:    {given}")


def wrong_form(given, expected):
    """Return what to give instead if its numbers are not even looked at."""
    if isinstance(expected, torch.Tensor):
        fits = isinstance(given, torch.Tensor)
        return None if fits else "The numbers aside: give a torch tensor."
    if isinstance(expected, list | tuple):
        kind, size = type(expected).__name__, len(expected)
        if not isinstance(given, list | tuple):
            return f"The numbers aside: give a {kind}."
        if kind == "tuple" and len(given) != size:
            return f"The numbers aside: give a tuple of {size}."
        pairs = zip(given, expected, strict=False)
        return next(filter(None, (wrong_form(*pair) for pair in pairs)), None)
    given = plain(given)
    if type(expected) is int and type(given) is float:
        right = given == expected
        return "The number is right, its type is not: give an int." if right else None
    known = int, float, type(None)  # None: an answer without a return
    if type(expected) in (int, float) and type(given) not in known:
        kind = type(expected).__name__
        return f"The numbers aside: give one number, of Python's type {kind}."
    return None


def plain(value):
    """Return a number of torch or NumPy as Python's own, all else as it is."""
    single = hasattr(value, "ndim") and value.shape in ((), (1,))
    return value.item() if single else value


def difference(given, expected):
    """Return None if given equals expected, else the place of a difference.

    The place is a tuple of indices, () for the whole. Integers must be equal;
    floats must be close, to 1e-5 of their size.
    """
    if isinstance(expected, torch.Tensor):
        if not isinstance(given, torch.Tensor) or given.shape != expected.shape:
            return ()
        if not expected.numel():  # torch.tensor([]) is always float
            return None
        same = torch.isclose(given.double(), expected.double(), 1e-5, 1e-7)
        if not expected.is_floating_point():
            same = given == expected
        if bool(same.all()):
            return None
        large = expected.numel() > 12
        return tuple((~same).nonzero()[0].tolist()) if large else ()
    if isinstance(expected, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(expected):
            return ()
        parts = zip(given, expected, strict=True)
        return None if all(difference(*p) is None for p in parts) else ()
    given = plain(given)
    if isinstance(expected, float):
        number = isinstance(given, int | float)
        close = number and math.isclose(given, expected, rel_tol=1e-5, abs_tol=1e-7)
        return None if close else ()
    return None if type(given) is type(expected) and given == expected else ()


def show(value):
    """Return value in few characters: small tensors whole, others by shape."""
    if not isinstance(value, torch.Tensor):
        value = plain(value)  # np.float32(0.5) is 0.5
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
    if isinstance(value, dict):
        pairs = [f"{show(key)}: {show(part)}" for key, part in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, np.ndarray) and value.size > 12:
        return f"a {value.dtype} array of shape {value.shape}"
    return repr(value)
