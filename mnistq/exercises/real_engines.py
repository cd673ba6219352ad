"""Notebook 09: real engines."""

import functools

import torch

from mnistq.exercises.judge import judge
from mnistq.files import pack_codes


def my_requantize(answer):
    """Exercise 09.1: from int32 sums to codes, as QLinearConv does it."""

    def single(number):
        return torch.tensor(number, dtype=torch.float32).item()

    def reference(acc, m, zero_point):
        """Each product to the nearest float32; Python rounds half to even."""
        products = [single(single(a) * single(m)) for a in acc.tolist()]
        codes = [round(p) + zero_point for p in products]
        codes = [min(max(q, 0), 255) for q in codes]
        return torch.tensor(codes, dtype=torch.uint8)

    def case(acc, m, zero_point):
        return torch.tensor(acc, dtype=torch.int32), m, zero_point

    cases = [
        (case([10], 0.5, 0), "Multiply, round, and give codes, uint8."),
        (case([0], 0.5, 0), "0 is a code, too: codes go from 0 to 255."),
        (case([510], 0.5, 0), "255 is a code, too: codes go from 0 to 255."),
        (case([7], 0.25, 0), "Round to the nearest, do not cut off."),
        (
            case([10, 14], 0.5, 3),
            "The zero point is added, after the multiplication.",
        ),
        (case([1, 3, 5], 0.5, 0), "Ties go to the even number, not up."),
        (
            case([1, 3, 5], 0.5, 1),
            "Round before the zero point is added: an odd one moves the ties.",
        ),
        (
            case([-20], 1.0, 5),
            "What lies below 0 becomes 0: clamp after the zero point is added, "
            "and before a cast, which wraps.",
        ),
        (
            case([600], 0.5, 0),
            "What lies above 255 becomes 255: clamp before a cast.",
        ),
        (
            case([26345473], 2.0**-18, 0),
            "The engine works in float32, where this sum loses its last bit "
            "and the product is a tie: more digits give another code.",
        ),
        (case([-700, -3, 0, 90, 91, 5000], 0.375, 17), "All of it together."),
    ]
    praise = (
        "These four steps in this order are the whole of QLinearConv after its "
        "sum. Any other order is right on most codes, and not on all."
    )
    judge(codes_only(answer), reference, cases, praise)


def codes_only(answer):
    """Return answer, whose result is refused if it holds numbers but no codes.

    judge compares numbers, and is content with int64; a code is one byte.
    """
    if not callable(answer):
        return answer

    @functools.wraps(answer)
    def checked(*arguments):
        given = answer(*arguments)
        kind = getattr(given, "dtype", None)
        if kind in (torch.int8, torch.int16, torch.int32, torch.int64):
            kind = str(kind).removeprefix("torch.")
            raise TypeError(f"the codes are {kind}: give uint8, a byte for each.")
        return given

    return checked


def my_packed_bytes(answer):
    """Exercise 09.2: the bytes of weights, each layer packed on its own."""

    def reference(counts, bits):
        zeros = [torch.zeros(n, dtype=torch.uint8) for n in counts]
        return sum(len(pack_codes(codes, bits)) for codes in zeros)

    cases = [
        (
            ([8], 1),
            "Give one number, bytes and not bits, of all layers: 8 codes of 1 bit "
            "fill one byte, and a full byte needs no further one.",
        ),
        (([9], 1), "A byte that is begun counts: round up."),
        (([8], 3), "Codes may cross from byte to byte: no gaps between them."),
        (([9], 3), "Add up the bits first, then round up, once."),
        (
            ([1, 1], 1),
            "Each layer is packed on its own and begins with a new byte: round "
            "up for each.",
        ),
        (([500, 25_000, 5_000], 1), "All of it together."),
        (([7, 9, 11], 5), "All of it together."),
        (([7, 9, 11], 8), "All of it together."),
    ]
    praise = (
        "A begun byte for each layer is all that packing wastes. What does not "
        "shrink with the bits is biases and scales."
    )
    judge(answer, reference, cases, praise)


def my_first_difference(answer):
    """Exercise 09.3: the first layer whose codes differ, and how many."""

    def reference(a, b):
        pairs = [(a[n].flatten().tolist(), b[n].flatten().tolist()) for n in a]
        counts = [sum(map(int.__ne__, *pair)) for pair in pairs]
        different = [(n, c) for n, c in zip(a, counts, strict=True) if c]
        return (different or [("none", 0)])[0]

    def case(a, b):
        both = [
            {n: torch.tensor(q, dtype=torch.uint8) for n, q in codes.items()}
            for codes in (a, b)
        ]
        return tuple(both)

    cases = [
        (
            case({"fc1": [3, 4, 5]}, {"fc1": [3, 4, 6]}),
            "Give the name (the dicts say which layers there are) and how many codes "
            "differ: not where, not which share. A code may differ upwards or "
            "downwards, and uint8 wraps: 5 - 6 is 255.",
        ),
        (
            case({"fc1": [3]}, {"fc1": [3]}),
            'Nothing differs: give ("none", 0).',
        ),
        (
            case({"fc1": [1, 2]}, {"fc1": [2, 1]}),
            "Sums, means or sorted codes may agree where codes differ: compare code "
            "by code, each with the one in its place.",
        ),
        (
            case({"fc1": [3, 4, 9, 9]}, {"fc1": [3, 2, 5, 5]}),
            "Count the codes that differ, not how far apart they are.",
        ),
        (
            case({"fc1": [1, 2], "fc2": [7, 8]}, {"fc1": [1, 3], "fc2": [8, 9]}),
            "The first layer that differs is the culprit; those behind it "
            "were handed its errors. Its own codes alone count.",
        ),
        (
            case({"fc1": [1, 3, 9], "fc2": [7]}, {"fc1": [3, 1, 9], "fc2": [8]}),
            "A layer whose sums or means agree may differ all the same, and then it "
            "is the first: compare code by code from the start.",
        ),
        (
            case({"stem": [1, 2], "head": [7]}, {"stem": [1, 3], "head": [8]}),
            "The order is the network's, in which the dict lists its layers, "
            "not the alphabet's.",
        ),
        (
            case(
                {"conv2": [[[[1, 2], [3, 4]]]], "fc1": [[5, 6, 7]]},
                {"conv2": [[[[1, 2], [3, 4]]]], "fc1": [[9, 6, 2]]},
            ),
            "Codes may have four axes: count codes, not rows; and the first layers may "
            "agree.",
        ),
    ]
    praise = (
        "This is how two engines are compared: from the front, layer by layer, "
        "and by codes. The accuracy would have told nothing."
    )
    judge(answer, reference, cases, praise)
