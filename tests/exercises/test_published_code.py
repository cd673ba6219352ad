from mnistq.exercises import published_code

from .suite import Suite

WRONG = {
    "my_grid": [
        ("2**bits - 1", "2**bits", "2**bits - 1 steps"),
        ("round(-low / scale)", "round(low / scale)", "the code of 0"),
        ("round(-low / scale)", "int(-low / scale)", "int() cuts it"),
        ("round(-low / scale)", "-low / scale", "give an int"),
        ("round(-low / scale)", "-int(low // scale)", "not rounded up"),
        (
            "return scale, round(-low / scale)",
            "return round(-low / scale), scale",
            "order",
        ),
        ("low, high = min(low, 0.0), max(high, 0.0)", "", "widen it down to 0"),
        ("low, high = min(low, 0.0), max", "high = max", "widen it down to 0"),
        ("max(high, 0.0)", "high", "widen it up to 0"),
        (" or 1.0", "", "the range has no width"),
        (" or 1.0", " or 1e-8", "give the scale 1"),
        (" / (2**bits - 1) or 1.0", " / (2**bits - 1) + 1e-4", "2**bits - 1 steps"),
        (
            "(high - low) / (2**bits - 1) or 1.0",
            "max((high - low) / (2**bits - 1), 1e-4)",
            "give the scale 1",
        ),
        (
            "    scale =",
            "    if high - low < 0.01:\n        return 1.0, 0\n    scale =",
            "has a small scale",
        ),
        (
            "    low, high = min",
            "    if low == high:\n        return 1.0, 0\n    low, high = min",
            "widened, its range goes",
        ),
    ],
    "my_suspect": [
        ("(0.25, 0.0, 3.0) != 0", "(1.0, 0.0, 3.0) != 1", "number between two codes"),
        ("(0.25, 0.0, 3.0) != 0", "(0.25, 0.0, 3.0) != 1", "has none of the four"),
        ("(0.0, -1.75, 1.25) != 2", "(0.0, -1.25, 1.75) != 1", "rounded up"),
        ("(1.0, 1.0, 3.0) != 1", "(1.0, 0.0, 3.0) != 1", "a range without 0"),
        ("code(0.0, 0.0, 0.0)", "code(1.0, 1.0, 1.0)", "Try a constant 0"),
        ('found.add("raw")', 'return {"raw"}', "'cut' was missed because of another"),
        ("(1.0, 1.0, 3.0) != 1", "(1.0, 1.0, 1.0) != 3", "catch what the suspect"),
        ("(1.0, 1.0, 3.0) != 1", "(1.25, 1.0, 3.0) != 1", "'gap' was found because"),
        ("(0.0, -1.75, 1.25) != 2", "(0.1, -1.75, 1.25) != 2", "'cut' was found bec"),
        ('found.add("constant")', 'found.add("wide")', "'wide' is not asked for"),
        ("return found", "return ' '.join(found)", "Return a set of words"),
        ("except ZeroDivisionError", "except ValueError", "Return a set of words, and"),
    ],
}

RIGHT = [
    ("my_grid", "(high - low) /", "np.float64(high - low) /"),
    ("my_grid", "(2**bits - 1) or 1.0", "((1 << bits) - 1) or 1"),
    (
        "my_grid",
        "return scale, round(-low / scale)",
        "return [scale, round(-low / scale)]",
    ),
    (
        "my_grid",
        "low, high = min(low, 0.0), max(high, 0.0)",
        "low, high = sorted((low, high, 0.0))[::2]",
    ),
    ("my_suspect", "return found", "return sorted(found)"),
    ("my_suspect", "return found", "return frozenset(found)"),
    ("my_suspect", "return found", "return tuple(found)"),
    ("my_suspect", "found = set()", "found = set(np.array([], dtype=str).tolist())"),
]


class TestPublishedCode(Suite):
    module, wrong, right = published_code, WRONG, RIGHT
