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
from torch import nn
from torchvision import transforms

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
# 01 Train the float network
# ------------------------------------------------------------------------------


def my_normalise(answer):
    """Exercise 01.1: what the network reads of MNIST's bytes."""

    def reference(pixels):
        to_float = transforms.ConvertImageDtype(torch.float32)
        normalise = transforms.Normalize((0.1307,), (0.3081,))
        return torch.stack([normalise(to_float(p[None])) for p in pixels])

    def case(*pictures):
        return (torch.tensor(pictures, dtype=torch.uint8),)

    cases = [
        (case([[0]]), "Black is 0 less the mean, divided by the deviation."),
        (case([[255]]), "White is 1 after the division by 255."),
        (case([[0, 255]], [[255, 0]]), "The channel's axis is the second one."),
    ]
    praise = (
        "The input is no byte any more, but it still has only 256 values: "
        "quantizing it again to 8 bits will lose nothing worth a name."
    )
    judge(answer, reference, cases, praise)


def my_parameters(answer):
    """Exercise 01.2: how many numbers a network of other widths learns."""

    def reference(first, second, hidden):
        layers = (
            nn.Conv2d(1, first, 5),
            nn.Conv2d(first, second, 5),
            nn.Linear(16 * second, hidden),
            nn.Linear(hidden, 10),
        )
        return sum(p.numel() for layer in layers for p in layer.parameters())

    cases = [
        (
            (1, 1, 1),
            "26 + 26 + 17 + 20: each output has a bias; fc1 sees 4 x 4.",
        ),
        ((2, 1, 1), "A kernel of conv2 reaches over all channels of conv1."),
        ((1, 2, 1), "fc1 sees 4 x 4 numbers of each channel of conv2."),
        ((1, 1, 2), "fc2 sees all of fc1's outputs."),
        ((20, 50, 500), "This is the network itself: 431,080."),
        ((10, 25, 250), "All three halved."),
    ]
    praise = (
        "Where a layer's two widths are both halved, a quarter of it is left; "
        "fc1 is such a layer, and nearly everything."
    )
    judge(answer, reference, cases, praise)


def my_sure_and_wrong(answer):
    """Exercise 01.3: counts of (wrong but sure, right by luck)."""

    def reference(scores, labels):
        sure = luck = 0
        for row, label in zip(
            scores.exp().tolist(), labels.tolist(), strict=True
        ):
            right = row.index(max(row)) == label
            sure += not right and max(row) > 0.9
            luck += right and max(row) < 0.5
        return int(sure), int(luck)

    def case(probabilities, labels):
        return torch.tensor(probabilities).log(), torch.tensor(labels)

    cases = [
        (
            case([[0.05, 0.95]], [1]),
            "Sure and right is neither group; a score is a probability's log.",
        ),
        (
            case([[0.95, 0.05]], [1]),
            "0.95 for the wrong digit: wrong, but sure.",
        ),
        (
            case([[0.4, 0.3, 0.3]], [0]),
            "0.4 for the right digit: right by luck.",
        ),
        (
            case([[0.4, 0.3, 0.3]], [1]),
            "Not sure and wrong: neither of the two groups.",
        ),
        (
            case(
                [[0.95, 0.05, 0.0], [0.4, 0.3, 0.3], [0.6, 0.3, 0.1]], [1, 0, 0]
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "Accuracy hides both groups. Quantization can tip only those digits "
        "whose best score has another one close by."
    )
    judge(answer, reference, cases, praise)


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


# ------------------------------------------------------------------------------
# 09 The playground
# ------------------------------------------------------------------------------


def my_box(answer):
    """Exercise 09.1: the rows and columns with more ink than one pixel's."""

    def reference(ink):
        ends = []
        for lines in (ink.tolist(), ink.T.tolist()):
            full = [
                number for number, line in enumerate(lines) if sum(line) > 255
            ]
            ends += [min(full), max(full) + 1]
        return tuple(ends)

    def case(*rows):
        return (torch.tensor(rows, dtype=torch.uint8),)

    cases = [
        (
            case([200, 200], [200, 200]),
            "bottom and right are one more than the last that counts.",
        ),
        (
            case([0, 0, 0], [0, 200, 200], [0, 200, 200]),
            "Numbers are counted from the whole field's corner.",
        ),
        (
            case([0, 200, 200], [0, 200, 200], [0, 200, 200], [0, 0, 0]),
            "Rows come first: top and bottom, then left and right.",
        ),
        (
            case([200, 200, 0], [200, 200, 0], [0, 0, 40]),
            "A speck of 40 in a row and a column of its own does not count.",
        ),
        (
            case([200, 200, 0], [200, 200, 0], [0, 0, 255]),
            "Exactly 255 is not more than 255.",
        ),
    ]
    praise = (
        "The speck is gone, and with it every faint edge: what is cleaned "
        "before the network is lost for the network."
    )
    judge(answer, reference, cases, praise)


def my_middle(answer):
    """Exercise 09.2: the centre of mass (y, x)."""

    def reference(ink):
        places = [
            (y, x, amount)
            for y, row in enumerate(ink.tolist())
            for x, amount in enumerate(row)
        ]
        mass = sum(amount for _, _, amount in places)
        y = sum(y * amount for y, _, amount in places) / mass
        return float(y), float(
            sum(x * amount for _, x, amount in places) / mass
        )

    def case(*rows):
        return (torch.tensor(rows, dtype=torch.uint8),)

    cases = [
        (case([1]), "The first row and the first column are 0."),
        (case([0], [1]), "Rows come first: (y, x)."),
        (case([1, 1, 0, 0]), "Empty columns do not pull."),
        (case([3, 0, 1]), "Dark pixels pull more than faint ones."),
        (
            case([200, 0], [200, 200]),
            "Ink adds up to more than 255: too much for uint8.",
        ),
        (case([0, 9, 0, 7], [1, 2, 3, 4], [250, 0, 0, 250]), "All together."),
    ]
    praise = (
        "So MNIST placed its pictures, and a network that never saw others "
        "needs yours placed the same way."
    )
    judge(answer, reference, cases, praise)


def my_disagreements(answer):
    """Exercise 09.3: the pictures that two networks read differently."""

    def reference(a, b):
        pairs = enumerate(zip(a.tolist(), b.tolist(), strict=True))
        found = [n for n, (x, y) in pairs if x.index(max(x)) != y.index(max(y))]
        return torch.tensor(found, dtype=torch.int64)

    def case(a, b):
        return torch.tensor(a), torch.tensor(b)

    cases = [
        (
            case([[0.0, 1.0]], [[0.0, 0.9]]),
            "Other scores, the same digit: a 1-d tensor of no numbers.",
        ),
        (
            case([[5.0, 6.0], [1.0, 0.0]], [[5.0, 6.0], [7.0, 0.0]]),
            "A row is a picture: compare along axis 1.",
        ),
        (
            case([[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]),
            "Picture 1 is read differently: give its number.",
        ),
        (
            case(
                [[1.0, 0.0, 0.5]] * 3,
                [[0.0, 1.0, 0.5], [2.0, 1.0, 0.0], [0, 0, 1]],
            ),
            "All pictures that differ, not the first alone.",
        ),
    ]
    praise = (
        "Two networks can have the same accuracy and still part on some "
        "pictures: compare answers, not scores and not accuracies."
    )
    judge(answer, reference, cases, praise)
