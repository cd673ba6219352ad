"""Notebook 05: the published code."""

from functools import wraps
from itertools import combinations

import torch

from mnistq.exercises.judge import judge


def my_grid(answer):
    """Exercise 05.1: (scale, zero point) of a range, without three of the bugs."""

    def reference(low, high, bits):
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            return 1.0, 0
        scale = (high - low) / (2**bits - 1)
        return scale, round(-low / scale)

    cases = [
        (
            (-2.0, 4.0, 2),
            "Give (scale, zero point), in this order: 2**bits codes have 2**bits - 1 "
            "steps between them, and the zero point is the code of 0.",
        ),
        ((-1.25, 1.75, 2), "1.25 is nearer to 1 than to 2: rounded, not rounded up."),
        (
            (-1.75, 1.25, 2),
            "*cut*: 1.75 is nearer to 2 than to 1, and int() cuts it.",
        ),
        ((1.0, 3.0, 2), "*gap*: 0 lies below the range; widen it down to 0."),
        ((-3.0, -1.0, 2), "*gap*: 0 lies above the range; widen it up to 0."),
        (
            (0.0, 0.0, 8),
            "*constant*: where all values are 0 the range has no width; give the "
            "scale 1 and the zero point 0.",
        ),
        (
            (0.25, 0.25, 2),
            "A constant 0.25 is not lost: widened, its range goes from 0 to 0.25.",
        ),
        ((-1.0, 2.0, 1), "With 1 bit there is a single step."),
        ((-1.0, 3.0, 8), "With 8 bits there are 255 steps."),
        (
            (0.0, 255 * 2.0**-16, 8),
            "A narrow range has a small scale, and keeps it.",
        ),
    ]
    praise = (
        "Every range is served, and 0 has a code of its own in each: *cut*, *gap* "
        "and *constant* have no place left."
    )
    judge(answer, reference, cases, praise)


class Suspect:
    """A quantizer with some of the bugs that ALONE names, given as a set."""

    def __init__(self, bugs):
        self._bugs = bugs

    def __repr__(self):
        return f"a quantizer with the bugs {', '.join(sorted(self._bugs)) or 'none'}"

    def __call__(self, x, low, high, bits):
        """Return the codes of x as floats; raise ZeroDivisionError with constant."""
        qmax = 2**bits - 1
        if "gap" not in self._bugs:
            low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / qmax
        if "constant" not in self._bugs:
            scale = scale or 1.0
        zero_point = min(max(-low / scale, 0.0), qmax)
        zero_point = int(zero_point) if "cut" in self._bugs else round(zero_point)
        q = torch.as_tensor(x, dtype=torch.float32) / scale + zero_point
        return q if "raw" in self._bugs else torch.round(q).clamp(0, qmax)


ALONE = {
    "raw": "Codes are whole numbers from 0 to 2**bits - 1: try a number between two "
    "codes, or one outside the range.",
    "cut": "Ask for the code of 0 where the zero point has to be rounded up: with 2 "
    "bits it is 2 from -1.75 to 1.25.",
    "gap": "Try a range without 0: from 1 to 3 with 2 bits the number 1.0 has the "
    "code 1, once the range starts at 0.",
    "constant": "Try a constant 0: another constant has a range of some width, once "
    "it is widened to hold 0.",
}


def suspicion(bugs, given):
    """Return what an answer got wrong that gave these words for a suspect's bugs."""
    if not isinstance(given, set):
        return "Return a set of words, and catch what the suspect raises."
    if unknown := given - set(ALONE):
        return f"{unknown.pop()!r} is not asked for: choose from {', '.join(ALONE)}."
    extra, missing = sorted(given - bugs), sorted(bugs - given)
    if not extra and not missing:
        return ""  # it is right
    if not bugs:
        return "It has none of the four: what you saw is no bug."
    if missing and len(bugs) == 1:
        return ALONE[missing[0]]
    word, what = (extra[0], "found") if extra else (missing[0], "missed")
    return (
        f"{word!r} was {what} because of another bug, {' and '.join(sorted(bugs))} "
        "being there: each experiment must have a result that its own bug alone can "
        "change."
    )


def my_suspect(answer):
    """Exercise 05.2: which of the bugs raw, cut, gap and constant a quantizer has."""

    @wraps(answer)
    def as_set(suspect):
        given = answer(suspect)
        several = isinstance(given, frozenset | list | tuple)
        return set(given) if several else given

    def cases():  # the reason depends on what the answer says
        for count in range(5):
            for bugs in map(set, combinations(ALONE, count)):
                try:
                    given = as_set(Suspect(bugs))
                except Exception:  # judge shows it
                    given = None
                yield (Suspect(bugs),), suspicion(bugs, given)

    praise = (
        "All 16 mixtures are told apart by their codes, and the accuracy of a network "
        "would have told you nothing."
    )
    judge(as_set if callable(answer) else answer, lambda s: s._bugs, cases(), praise)
