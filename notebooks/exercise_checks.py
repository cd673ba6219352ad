"""The checks of the exercises: each names what is wrong, by a small example.

In a notebook: `check.my_quantize(my_quantize)`. A check calls the answer with
examples, the smallest first, compares with a reference, and prints the first
example that differs, or what was learnt. tests/test_exercises.py proves that
each lets the notebook's solution pass, and that it names what is wrong with
three wrong answers or more.
"""

import contextlib
import copy
import functools
import math
from fractions import Fraction

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
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
    for number, (arguments, reason) in enumerate(cases):
        expected = reference(*copy.deepcopy(arguments))
        call = f"{name}({', '.join(show(a) for a in arguments)})"
        try:
            given = answer(*copy.deepcopy(arguments))  # it may change them
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
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
            reason = wrong_form(given, expected) or reason
            explain(name, call, show(expected), show(given), reason)
            return
    print(f"{name}: right. {praise}")


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
        if not isinstance(given, list | tuple):
            return f"The numbers aside: give a {type(expected).__name__}."
        pairs = zip(given, expected, strict=False)
        return next(filter(None, (wrong_form(*pair) for pair in pairs)), None)
    given = plain(given)
    if type(expected) is int and type(given) is float and given == expected:
        return "The number is right, its type is not: give an int."
    return None


def plain(value):
    """Return a number of torch or NumPy as Python's own, all else as it is."""
    single = hasattr(value, "ndim") and value.shape in ((), (1,))
    return value.item() if single else value


def difference(given, expected):
    """Return None if given equals expected, else the place of a difference.

    The place is a tuple of indices, () for the whole. Integers must be equal,
    and integers; floats must be close, to 1e-5 of their size.
    """
    if isinstance(expected, torch.Tensor):
        if not isinstance(given, torch.Tensor) or given.shape != expected.shape:
            return ()
        if not expected.numel():  # torch.tensor([]) is always float
            return None
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
    given = plain(given)
    if isinstance(expected, float):
        number = isinstance(given, int | float)
        close = number and math.isclose(
            given, expected, rel_tol=1e-5, abs_tol=1e-7
        )
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
        (
            case([[0]]),
            "Black is 0 less the mean, divided by the deviation; four axes: "
            "(N, 1, height, width).",
        ),
        (case([[255]]), "White is 1 after the division by 255."),
        (
            case([[100]]),
            "Greys lie between black and white: divide in floats.",
        ),
        (
            case([[0], [100], [9]], [[255], [9], [0]]),
            "The channel's axis is the second one.",
        ),
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
        (
            (2, 1, 1),
            "52 + 51 + 17 + 20: each output has a bias; a kernel of conv2 "
            "reaches over all channels of conv1.",
        ),
        (
            (1, 2, 1),
            "26 + 52 + 33 + 20: each output has a bias; fc1 sees 4 x 4 numbers "
            "of each channel of conv2.",
        ),
        (
            (1, 1, 2),
            "26 + 26 + 34 + 30: each output has a bias; fc2 sees all of fc1's "
            "outputs.",
        ),
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
        (case([[0.88, 0.12]], [1]), "0.88 is not above 0.9."),
        (case([[0.52, 0.48]], [0]), "0.52 is not below 0.5."),
        (
            case(
                [[0.95, 0.05, 0.0], [0.4, 0.3, 0.3], [0.6, 0.3, 0.1]], [1, 0, 0]
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "Accuracy hides both groups. At 8 bits, quantization tips only digits "
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
        (
            ([0.0, 4.0, 6.0], 2),
            "Divide by the scale, (max - min) / (2**bits - 1).",
        ),
        (([0.0, 0.6, 1.0], 1), "Codes are rounded to the nearest, not down."),
        (([0.0, 0.5, 1.0], 1), "Ties go to the even code, as in torch."),
        (([0.0, 1.5, 3.0], 2), "Add nothing to the scale: it moves ties."),
        (([0.0], 8), "A range of width 0 must not divide by zero."),
        (
            ([-1.0, 0.0], 2),
            "The zero point is the code that stands for 0; add it before you "
            "clamp.",
        ),
        (([-1.0, -0.5, 0.0], 1), "Round before the zero point is added."),
        (([5.0, 6.0], 8), "The range must be widened until it holds 0."),
        (([-6.0, -4.0], 8), "The range must be widened until it holds 0."),
        (([-0.6, 0.0, 0.4], 2), "The zero point must be rounded, not cut."),
        (([-0.5, 2.5], 2), "The zero point's ties go to the even code, too."),
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
            case([[255, 0]], [0.5], [200]),
            "Codes and zero points go to 255: in int8 those above 127 wrap.",
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
            (torch.tensor([[6.0, 1.0], [1.0, -6.0]]), 2),
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
# 03 Calibration
# ------------------------------------------------------------------------------


def my_mean_range(answer):
    """Exercise 03.1: the mean of the samples' extremes, over batches."""

    def reference(batches):
        return mq.range_mean(torch.cat(batches))

    cases = [
        (
            ([torch.tensor([[1.0, 3.0]])],),
            "Give both ends, (low, high): the means of the samples' minima and "
            "of their maxima.",
        ),
        (
            ([torch.tensor([[0.0, 4.0], [4.0, 0.0]])],),
            "Add up each sample's own extremes, then divide by the number of "
            "samples, not by the number of batches.",
        ),
        (
            ([torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 4.0]])],),
            "All batches count.",
        ),
        (
            ([torch.tensor([[0.0, 1.0, 3.0], [-2.0, 2.0, 7.0]])],),
            "Each sample has extremes of its own; those of the whole batch "
            "hang on a single sample.",
        ),
        (
            (
                [
                    torch.tensor([[0.0, 2.0], [0.0, 4.0]]),
                    torch.tensor([[0.0, 9.0]]),
                ],
            ),
            "Every sample counts the same, also in a smaller batch: a mean of "
            "the batches' means gives those of the last batch too much weight.",
        ),
        (
            ([torch.arange(-8.0, 8.0).reshape(2, 2, 2, 2)],),
            "A sample may have several axes: all but the first belong to it.",
        ),
        (
            ([torch.arange(12.0).reshape(3, 1, 4), -torch.ones(2, 1, 4)],),
            "All of it together.",
        ),
    ]
    praise = (
        "These are the article's ranges. Its own code divides the same sums by "
        "the number of batches. In its own network no accuracy gave that away."
    )
    judge(answer, reference, cases, praise)


def my_moving_average(answer):
    """Exercise 03.2: the moving average after the last of a list of numbers."""

    def reference(values, decay):
        samples = torch.tensor(values)[:, None]
        return mq.range_ema(samples, decay=decay, batch=1)[1]

    cases = [
        (([3.0], 0.5), "The first value starts the average."),
        (
            ([1.0, 1.0], 0.5),
            "The average of a constant is the constant: the two weights must "
            "add up to 1.",
        ),
        (
            ([3.0, 7.0], 0.5),
            "With a decay of 0.5 the average moves halfway from the first "
            "value to the second, never beyond: no weight is above 1.",
        ),
        (([0.0, 8.0], 0.5), "A first value of 0 starts the average, too."),
        (
            ([0.0, 8.0], 0.75),
            "decay is the share of the old average that stays; the new value "
            "gets 1 - decay.",
        ),
        (
            ([8.0, 0.0, 0.0], 0.5),
            "Every value counts in its turn, the first ones less and less, "
            "but never nothing.",
        ),
        (([4.0, 0.0, 8.0, -2.0], 0.75), "All of it together."),
    ]
    praise = (
        "Two weights that add up to 1, and a first value that starts the "
        "average: then a constant stays what it is."
    )
    judge(answer, reference, cases, praise)


def my_percentile_range(answer):
    """Exercise 03.3: the percentiles 100 - percent and percent of a tensor."""

    def reference(x, percent):
        return mq.range_percentile(x, percent=percent)

    cases = [
        (
            (torch.tensor([2.0, 3.0, 4.0]), 100),
            "At 100 percent the range goes from the smallest value to the "
            "largest. (torch.quantile counts from 0 to 1, not to 100.)",
        ),
        (
            (torch.tensor([0.0, 0.0, 0.0, 0.0, 4.0]), 75),
            "Zeros count, too.",
        ),
        (
            (torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), 75),
            "Both ends give something up: low is the (100 - percent)-th "
            "percentile, not the minimum.",
        ),
        (
            (torch.tensor([0.0, 10.0]), 75),
            "Between two neighbours lies a straight line: position (n - 1) * "
            "percent / 100, counted from 0.",
        ),
        (
            (torch.tensor([-8.0, -4.0, 0.0, 1.0, 2.0]), 75),
            "The values count with their signs, not by their sizes.",
        ),
        (
            (torch.tensor([9.0, 1.0, 5.0]), 75),
            "The values must be put in order first.",
        ),
        (
            (torch.tensor([[0.0, 1.0], [10.0, 11.0]]), 75),
            "All values of the tensor count together, not row by row.",
        ),
        ((torch.arange(41.0), 97.5), "A percentage need not be whole."),
    ]
    praise = (
        "One odd value no longer stretches the range. How many to give up is a "
        "guess that does not know the bits."
    )
    judge(answer, reference, cases, praise)


# ------------------------------------------------------------------------------
# 04 The network on codes
# ------------------------------------------------------------------------------


def my_bias(answer):
    """Exercise 04.1: the int32 codes of a bias on the accumulator's grid."""

    def reference(b, in_scale, w_scale):
        steps = [Fraction(in_scale) * Fraction(s) for s in w_scale.tolist()]
        pairs = zip(b.tolist(), steps, strict=True)
        codes = [round(Fraction(value) / step) for value, step in pairs]
        return torch.tensor(codes, dtype=torch.int32)

    def case(b, w_scale):
        return torch.tensor(b), 0.5, torch.tensor(w_scale)

    cases = [
        (
            case([1.0], [0.5]),
            "A unit of the accumulator is worth in_scale * w_scale: divide by "
            "both, and give integers.",
        ),
        (
            case([-1.0], [0.5]),
            "A bias has a sign: no clamp at 0, no unsigned type.",
        ),
        (
            case([0.7, -0.7], [0.5, 0.5]),
            "Codes are rounded to the nearest, not cut.",
        ),
        (case([0.625], [0.5]), "Ties go to the even code, as in torch."),
        (
            case([1.0, 1.0], [0.5, 0.25]),
            "Each channel has a scale of its own.",
        ),
        (
            case([100.0, -100.0], [0.5, 0.5]),
            "400 is no code of 8 bits, but a bias has 32: no clamp, and no "
            "type so narrow that it wraps.",
        ),
        (
            case([30000.0], [0.5]),
            "120,000 does not fit into 16 bits, but a bias has 32.",
        ),
        (case([3.3, -0.01, 200.0], [0.01, 0.02, 0.001]), "All together."),
    ]
    praise = (
        "On the accumulator's grid the bias is one more term of the sum: no "
        "multiplication, and no rounding error worth a word."
    )
    judge(answer, reference, cases, praise)


def my_layer(answer):
    """Exercise 04.2: a fully connected layer with ReLU, from codes to codes."""

    def reference(x, x_zero, w, bias, m, y_zero):
        factors = m.tolist() if isinstance(m, torch.Tensor) else [m] * len(w)
        parts = list(zip(w.tolist(), bias.tolist(), factors, strict=True))
        rows = []
        for codes in x.tolist():
            steps = [q - x_zero for q in codes]
            rows.append([])
            for weights, b, factor in parts:
                acc = b + sum(map(int.__mul__, weights, steps))
                q = round(acc * Fraction(factor)) + y_zero
                rows[-1].append(min(max(q, y_zero), 255))
        return torch.tensor(rows, dtype=torch.uint8)

    def case(x, x_zero, w, bias, m, y_zero):
        x = torch.tensor(x, dtype=torch.uint8)
        w = torch.tensor(w, dtype=torch.int8)
        bias = torch.tensor(bias, dtype=torch.int32)
        m = torch.tensor(m) if isinstance(m, list) else m
        return x, x_zero, w, bias, m, y_zero

    one = [[1, 0], [0, 1]]
    some = [[0, 100, 255], [7, 30, 200]]
    cases = [
        (
            case([[3]], 0, [[2]], [1], 1.0, 0),
            "acc is the sum of w * x, plus the bias; what leaves are codes, "
            "whole numbers.",
        ),
        (
            case([[3]], 0, [[2]], [2], 0.5, 0),
            "m multiplies the whole sum, bias included.",
        ),
        (
            case([[200]], 0, [[1]], [0], 0.5, 0),
            "uint8 codes go up to 255: cast to int8, those above 127 wrap.",
        ),
        (
            case([[3]], 1, [[2]], [0], 1.0, 0),
            "The zero point of x must be taken away from its codes.",
        ),
        (
            case([[1]], 3, [[-2]], [0], 1.0, 0),
            "1 - 3 wraps in uint8: widen before you subtract.",
        ),
        (
            case([[3]], 0, [[1]], [0], 0.25, 0),
            "Codes are rounded to the nearest, not cut.",
        ),
        (case([[5]], 0, [[1]], [0], 0.5, 0), "Ties go to the even code."),
        (
            case([[3]], 0, [[2]], [0], 0.5, 10),
            "y_zero is added after the multiplication, not before.",
        ),
        (
            case([[5]], 0, [[1]], [0], 0.5, 1),
            "y_zero is added after the rounding, or it changes the ties.",
        ),
        (
            case([[3]], 0, [[-2]], [0], 1.0, 10),
            "ReLU cuts at y_zero, which stands for 0, not at code 0.",
        ),
        (
            case([[200]], 0, [[2]], [0], 1.0, 0),
            "Codes end at 255: clamp before the cast, or they wrap.",
        ),
        (
            case([[250]], 0, [[1]], [0], 1.0, 10),
            "Clamp last: with y_zero added a code may pass 255.",
        ),
        (
            case(one, 0, [[1, 2], [3, 4]], [0, 0], 1.0, 0),
            "A row of w belongs to an output: sum over the inputs.",
        ),
        (
            case([[255, 255]], 0, [[127, 127]], [0], 2.0**-8, 0),
            "64,770 does not fit into int16: an accumulator has 32 bits.",
        ),
        (
            case(one, 0, [[8, 8], [8, 8]], [0, 16], [0.5, 0.25], 0),
            "Bias and multiplier belong to an output, the last axis.",
        ),
        (
            case(some, 33, [[1, -2, 3], [-1, 0, 2]], [9, -9], [0.25, 0.5], 5),
            "All of it together.",
        ),
    ]
    praise = (
        "Widen, sum, multiply, round, add the zero point, clamp, cast: in any "
        "other order some code comes out wrong."
    )
    judge(answer, reference, cases, praise)


@functools.cache
def network_and_data():
    """Return the committed net, its ranges, test images and labels."""
    net = mq.load_net(mq.COMMITTED)
    found = mq.calibrate(net, mq.mnist(train=True)[0][:1000])
    ranges = {k: (round(a, 2), round(b, 2)) for k, (a, b) in found.items()}
    return net, ranges, *mq.mnist(train=False)


def mixed(answer, most_bytes=122_000, least=0.985):
    """Exercise 04.3: bits for each layer, few bytes and enough accuracy."""
    if answer is None or answer is ...:
        print("mixed: not attempted yet (it is None)")
        return
    wish = f"at least {least:.1%} in at most {most_bytes:,} bytes"
    legal = f"bits from 1 to 8 for each of {', '.join(mq.LAYERS)}"
    if not isinstance(answer, dict):
        reason = 'Give a dictionary, {"conv1": bits, ...}.'
        explain("mixed", "mixed", legal, show(answer), reason)
        return
    for name in (*mq.LAYERS, *answer):
        bits = answer.get(name)
        right = type(bits) is int and 1 <= bits <= 8
        if name in mq.LAYERS and right:
            continue
        reason = f"{name} has {show(bits)} bits: give an int from 1 to 8."
        if name not in answer:
            reason = f"{name} has no bits."
        if name not in mq.LAYERS:
            reason = f"The network has no layer {show(name)}."
        explain("mixed", show(answer), legal, show(bits), reason)
        return
    net, ranges, images, labels = network_and_data()
    qnet = mq.quantize_net(net, ranges, answer, requantize="float")
    weights = {
        name: math.ceil(layer.weight.numel() * layer.weight_bits / 8)
        for name, layer in qnet.layers.items()
    }
    largest = max(weights, key=weights.get)
    given = f"{qnet.nbytes:,} bytes"
    if qnet.nbytes > most_bytes:
        reason = (
            f"{qnet.nbytes - most_bytes:,} bytes too many; {largest} holds "
            f"most, {weights[largest]:,}."
        )
        explain("mixed", show(answer), wish, given, reason)
        return
    accuracy = mq.evaluate(qnet, images, labels)
    given = f"{accuracy:.2%} in {given}"
    if accuracy < least:
        missing = math.ceil(least * len(labels)) - round(accuracy * len(labels))
        reason = (
            f"Small enough, but it reads {missing:,} digits too few: one "
            "of the layers cannot bear so few bits."
        )
        explain("mixed", show(answer), wish, given, reason)
        return
    print(
        f"mixed: right. {given}. The layer with most of the weights bears the "
        "fewest bits here; how few a layer bears must be measured, not guessed."
    )


# ------------------------------------------------------------------------------
# 05 Integers only
# ------------------------------------------------------------------------------


def my_folded_bias(answer):
    """Exercise 05.1: the bias that lets codes be multiplied as they are."""

    def reference(bias, w, x_zero):
        rows = w.flatten(1).tolist()
        pairs = zip(bias.tolist(), rows, strict=True)
        folded = [b - x_zero * sum(row) for b, row in pairs]
        return torch.tensor(folded, dtype=torch.int32)

    def case(bias, w, x_zero):
        bias = torch.tensor(bias, dtype=torch.int32)
        return bias, torch.as_tensor(w).to(torch.int8), x_zero

    cases = [
        (
            case([10], [[2]], 1),
            "The zero point's share is taken away from the bias, as in 5.4: a "
            "minus.",
        ),
        (case([10], [[2]], 3), "The sum is taken x_zero times."),
        (
            case([0, 0], [[1, 2], [3, 4]], 1),
            "Each output has a sum of its own, over its row of w.",
        ),
        (case([0], [[1, -2]], 1), "Weights are signed: keep their signs."),
        (
            case([0], [[100, 100]], 1),
            "100 + 100 does not fit into int8: sum in a wider type.",
        ),
        (
            case([0], [[100]], 2),
            "2 * 100 does not fit into int8: widen before you multiply.",
        ),
        (
            case([0], [[127, 127, 127]], 255),
            "97,155 does not fit into int16: an accumulator has 32 bits.",
        ),
        (
            case([1, 2], torch.arange(-8, 8).reshape(2, 2, 2, 2), 3),
            "A kernel has four axes: all but the first belong to one output.",
        ),
        (
            case([-7, 500], [[-128, -1, 50], [127, 126, 125]], -95),
            "All together; signed codes may have a zero point below 0.",
        ),
    ]
    praise = (
        "It is computed once, before the first image. The inner loop is left "
        "with plain products of 8-bit codes."
    )
    judge(answer, reference, cases, praise)


class Products(TorchDispatchMode):
    """Writes down the products of matrices that torch itself computes."""

    def __init__(self):
        super().__init__()
        self.used = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.endswith(("mm", "mv", "dot", "linear")):
            self.used.append(name)
        return func(*args, **(kwargs or {}))


def split_product(answer):
    """Exercise 05.2: an exact product from one that adds in 16 bits."""

    def reference(a, b):
        return (a.long() @ b.long()).to(torch.int32)

    def case(a, b):
        return torch.tensor(a).to(torch.int8), torch.tensor(b).to(torch.int8)

    codes = torch.arange(-128, 128)
    cases = [
        (
            case([[3]], [[1]]),
            "The remainder of b, 0 or 1, needs a product of its own.",
        ),
        (
            case([[3]], [[4]]),
            "b is 2 * half + remainder: the half's product counts twice.",
        ),
        (
            case([[1]], [[-3]]),
            "Half of a negative odd code is rounded down, -3 = 2 * -2 + 1, or "
            "the remainder must be negative too.",
        ),
        (
            case([[127, 127]], [[127], [127]]),
            "Two products of 255 * 127 do not fit into 16 bits: it is b, the "
            "second factor, that must be smaller.",
        ),
        (
            case([[127, 127]], [[-128], [-128]]),
            "Two products of 255 * -128 do not fit into 16 bits either.",
        ),
        (
            case([[127] * 4], [[127]] * 4),
            "64,516 leaves 16 bits: each pair of products must fit, and the "
            "result is int32.",
        ),
        (case([[-128] * 3] * 2, [[-128] * 2] * 3), "All codes -128."),
        (
            (
                codes.reshape(4, 64).to(torch.int8),
                (codes * 73).to(torch.int8).reshape(64, 4),
            ),
            "All codes at once.",
        ),
    ]
    example = case([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    products = Products()
    with contextlib.suppress(Exception), products:  # judge tells of errors
        answer(*example)
    if products.used:
        explain(
            "split_product",
            f"split_product({', '.join(map(show, example))})",
            "saturating_product alone",
            f"a product of torch's own, {products.used[0]}",
            "This processor has no other product than saturating_product.",
        )
        return
    praise = (
        "Products that are small enough, added up in 32 bits, and the result "
        "is exact: width bought with time."
    )
    judge(answer, reference, cases, praise)


def my_safe_terms(answer):
    """Exercise 05.3: how many products an accumulator can hold."""

    def reference(acc_bits, weight_bits, act_bits):
        _, weight = mq.code_range(weight_bits, signed=True)
        _, activation = mq.code_range(act_bits)
        terms, acc = 0, weight * activation
        while acc.bit_length() < acc_bits:  # and one bit for the sign
            terms, acc = terms + 1, acc + weight * activation
        return terms

    cases = [
        (
            (6, 3, 3),
            "One product of 3 * 7 fits, two do not: a signed accumulator of 6 "
            "bits ends at 31.",
        ),
        (
            (9, 3, 4),
            "Symmetric weights end at 2**(bits - 1) - 1, here at 3.",
        ),
        (
            (7, 4, 2),
            "Unsigned activations end at 2**bits - 1, here at 3.",
        ),
        (
            (4, 2, 1),
            "The accumulator ends at 2**(bits - 1) - 1, here at 7: eight "
            "products of 1 * 1 are one too many.",
        ),
        ((8, 8, 8), "Not even one product of 127 * 255 fits."),
        ((32, 8, 8), "All of it together, at the usual widths."),
        ((24, 8, 8), "All of it together, in 24 bits."),
        ((24, 4, 4), "All of it together, with 4-bit codes."),
        ((16, 8, 8), "All of it together, in 16 bits."),
    ]
    praise = (
        "A bound that no code can break, from the shape alone. Knowing the "
        "weights, 5.5 allows more."
    )
    judge(answer, reference, cases, praise)


# ------------------------------------------------------------------------------
# 06 Below 8 bits
# ------------------------------------------------------------------------------


def my_unpack(answer):
    """Exercise 06.1: the codes that lie packed in bytes."""

    def reference(packed, bits, count):
        return mq.unpack_codes(packed, bits, count).tolist()

    def case(codes, bits):
        return mq.pack_codes(torch.tensor(codes), bits), bits, len(codes)

    cases = [
        (
            case([0, 3, 3, 0], 2),
            "A code is bits wide: mask away the others that share its byte.",
        ),
        (case([1, 0, 3, 2], 2), "The first code lies in the lowest bits."),
        (
            case([1, 2, 2, 1, 2, 1, 1, 2], 2),
            "The first byte holds the first codes.",
        ),
        (
            case([3, 0, 2], 2),
            "A last byte may end in padding: only count codes are codes.",
        ),
        (
            case([1, 2, 5], 3),
            "A code may begin in one byte and end in the next.",
        ),
        (case([1, 0, 1, 1, 0, 0, 1, 0, 1], 1), "All of it together."),
        (case([31, 0, 17, 5, 9, 30, 2], 5), "All of it together."),
        (case([200, 7], 8), "All of it together."),
        (
            case([1, 2, 3, 4, 5, 6, 7, 8, 9], 8),
            "Nine bytes do not fit into an int64.",
        ),
    ]
    praise = (
        "The bytes are one long binary number, and where a byte ends means "
        "nothing to a code. So 3 bits pack as tightly as 4."
    )
    judge(answer, reference, cases, praise)


def my_best_scale(answer):
    """Exercise 06.2: the scale of least squares for each row's codes."""

    def reference(w, q):
        scales = []
        for row, codes in zip(w.tolist(), q.tolist(), strict=True):
            above = sum(
                Fraction(x) * k for x, k in zip(row, codes, strict=True)
            )
            scales.append(float(above / sum(k * k for k in codes)))
        return torch.tensor(scales)

    def case(w, q):
        return torch.tensor(w), torch.tensor(q, dtype=torch.int8)

    cases = [
        (case([[1.0], [1.0]], [[1], [1]]), "Give a vector, one scale a row."),
        (
            case([[3.0]], [[2]]),
            "The scale is a weight per code: sum(q * q) stands below.",
        ),
        (
            case([[0.5, 4.0]], [[0, 2]]),
            "A code of 0 says nothing about the scale: its weight has no say, "
            "and nothing is divided by 0.",
        ),
        (
            case([[5.0, 1.0]], [[2, 1]]),
            "A large code has more say than a small one, since errors count "
            "squared: this is no mean of w / q.",
        ),
        (
            case([[3.0, -0.5]], [[1, 1]]),
            "A code may have another sign than its weight: keep the signs.",
        ),
        (
            case([[4.0, 2.0], [8.0, 9.0]], [[2, 1], [1, 1]]),
            "A row's scale comes from its own weights and codes.",
        ),
        (
            case([[100.0, 200.0]], [[50, 100]]),
            "int8 times int8 wraps: widen the codes first.",
        ),
        (
            case(
                [[0.3, -0.2, 0.05], [1.5, 0.0, -1.0]], [[2, -1, 0], [1, 0, -1]]
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "Once the codes are fixed the scale is no search but a fraction. With "
        "the inputs' covariance between w and q it is equation 6.4."
    )
    judge(answer, reference, cases, praise)


def my_act_order(answer):
    """Exercise 06.3: GPTQ's codes, the columns of large h[i, i] first."""

    def reference(w, h, bits):
        """Equation 6.7 as it stands, with a new inverse for each column."""
        low, high = mq.code_range(bits, signed=True)
        scale = mq.mse_weight_scale(w, bits).double()
        h, rest, codes = h.double(), w.double(), torch.zeros_like(w).long()
        h = h + 0.01 * h.diagonal().mean() * torch.eye(len(h))
        left = list(range(len(h)))
        while left:
            i = max(left, key=lambda j: float(h[j, j]))
            g = torch.linalg.inv(h[left][:, left])[left.index(i)]
            q = (rest[:, i] / scale).round().clamp(low, high)
            error = (rest[:, i] - scale * q) / g[left.index(i)]
            rest[:, left] -= error.outer(g)
            codes[:, i] = q.long()
            left.remove(i)
        return codes

    def case(w, h, bits):
        return torch.tensor(w), torch.tensor(h), bits

    cases = [
        (
            case([[-0.4, 0.8]], [[27.0, 18.0], [18.0, 18.0]], 2),
            "The column with the largest h[i, i] is rounded first. Give codes.",
        ),
        (
            case([[-0.9, -0.3]], [[2.0, 6.0], [6.0, 27.0]], 2),
            "Sort the columns of w, and both the rows and the columns of h.",
        ),
        (
            case([[0.9, -0.3]], [[1.0, 0.0], [0.0, 2.0]], 3),
            "The codes must go back to their columns' places.",
        ),
        (
            case(
                [[0.9, 0.3, -0.6]],
                [[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]],
                3,
            ),
            "Sort back with the inverse of the order, not with the order.",
        ),
        (
            case(
                [[0.8, -0.7, -0.1]],
                [[14.0, 7.0, 10.0], [7.0, 5.0, 1.0], [10.0, 1.0, 19.0]],
                3,
            ),
            "The diagonal decides, and argsort gives the order, not the ranks.",
        ),
        (
            case(
                [[0.9, -0.2, 1.8]],
                [[10.0, 12.0, 8.0], [12.0, 23.0, 16.0], [8.0, 16.0, 13.0]],
                3,
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "What matters most is now rounded while all others can still make up "
        "for it. The codes are as many and as large as before: it is free."
    )
    judge(answer, reference, cases, praise)


# ------------------------------------------------------------------------------
# 07 Quantization-aware training
# ------------------------------------------------------------------------------


def my_straight_through(answer):
    """Exercise 07.1: the gradient that fake quantization hands back."""

    def reference(grad, x, scale, zero_point, bits):
        x.requires_grad_()
        x_hat = torch.fake_quantize_per_tensor_affine(
            x, scale, zero_point, 0, 2**bits - 1
        )
        return torch.autograd.grad(x_hat, x, grad)[0]

    def case(grad, x, zero_point, bits):
        return torch.tensor(grad), torch.tensor(x), 0.5, zero_point, bits

    cases = [
        (
            case([2.0], [0.5], 0, 2),
            "Inside the range the gradient passes as it is.",
        ),
        (
            case([2.0, 3.0], [0.0, 1.5], 0, 2),
            "The first and the last code are codes too: both let it pass.",
        ),
        (
            case([2.0, 3.0], [-0.5, 2.0], 0, 2),
            "From the first step beyond the codes on, the gradient is 0.",
        ),
        (
            case([2.0, 3.0], [-0.2, 1.7], 0, 2),
            "The rounded code decides, not x: these round to codes.",
        ),
        (
            case([2.0, 3.0], [-0.4, 1.9], 0, 2),
            "Round to the nearest, do not cut off: these round to no codes.",
        ),
        (
            case([2.0], [1.75], 0, 2),
            "A tie goes to the even number: 3.5 to 4, which is no code.",
        ),
        (
            case([2.0, 3.0], [-0.5, 1.5], 1, 2),
            "Codes count from the zero point.",
        ),
        (
            case([2.0], [1.25], 1, 2),
            "Round first, then add the zero point: a tie goes to the even "
            "number before it.",
        ),
        (
            case([0.5, -1.0, 2.0, 3.0], [-30.0, -2.0, 60.0, 99.0], 50, 8),
            "All of it together.",
        ),
    ]
    praise = (
        "The same decision as in the forward pass, made on the code: where it "
        "was clamped, growing does not help, and the slope says so."
    )
    judge(answer, reference, cases, praise)


def my_fold(answer):
    """Exercise 07.2: batch norm inside a convolution's kernel and bias."""

    def reference(w, b, gamma, beta, mean, var, eps):
        """What comes out for no pixel, and for each single one."""
        norm = torch.nn.BatchNorm2d(len(b), eps).double().eval()
        values = {"weight": gamma, "bias": beta, "running_mean": mean}
        norm.load_state_dict(values | {"running_var": var}, strict=False)
        n = w[0].numel()
        pixels = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
        pixels = pixels.reshape(-1, *w.shape[1:])
        with torch.no_grad():
            sums = torch.conv2d(pixels, w.double(), b.double())
            bias, *rows = norm(sums).flatten(1).float()
        return torch.stack([r - bias for r in rows], 1).reshape(w.shape), bias

    def case(w, b, gamma, beta, mean, var, eps=0.0):
        vectors = map(torch.tensor, (b, gamma, beta, mean, var))
        return torch.tensor(w), *vectors, eps

    one = [[[[2.0]]]], [1.0], [3.0]
    cases = [
        (
            case(*one, [0.0], [0.0], [1.0]),
            "gamma multiplies the bias as it does the kernel. Give both.",
        ),
        (
            case(*one, [5.0], [0.0], [1.0]),
            "beta is added at the end, to the bias.",
        ),
        (
            case(*one, [0.0], [4.0], [1.0]),
            "The mean is taken away from the bias, before it is multiplied.",
        ),
        (
            case(*one, [0.0], [0.0], [4.0]),
            "Divide by the standard deviation, the root of var.",
        ),
        (
            case(*one, [0.0], [0.0], [3.0], 1.0),
            "eps is added to var, under the root.",
        ),
        (
            case(*one, [5.0], [4.0], [4.0]),
            "gamma and the root of var belong to the bias and to the mean, not "
            "to beta.",
        ),
        (
            case(
                [[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]]],
                [0.0, 0.0],
                [1.0, 10.0],
                [0.0, 0.0],
                [0.0, 0.0],
                [1.0, 1.0],
            ),
            "Each factor belongs to an output, axis 0 of the kernel.",
        ),
        (
            case(
                [[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]],
                [1.0, -1.0],
                [2.0, -3.0],
                [0.5, 0.25],
                [4.0, 1.0],
                [8.0, 3.0],
                1.0,
            ),
            "All of it together.",
        ),
    ]
    praise = (
        "Batch norm is gone, and nothing is left of it at run time. What the "
        "integers will see is this kernel, so it is this one to quantize."
    )
    judge(answer, reference, cases, praise)


def my_sign_weights(answer):
    """Exercise 07.3: what weights of 1 bit stand for."""

    def reference(w):
        return mq.dequantize_tensor(mq.quantize_weight(w, 1))

    cases = [
        (([[2.0, 4.0]],), "All are as large as the mean, not the largest."),
        (([[2.0, -4.0]],), "The mean of |w|, not of w, with the signs kept."),
        (([[1.0, 1.0], [3.0, -3.0]],), "Each output has a mean of its own."),
        (
            ([[0.0, 2.0]],),
            "There is no code for 0: a weight of 0 counts as positive.",
        ),
        (
            ([[[[1.0, 2.0]], [[3.0, 6.0]]], [[[-1.0, 1.0]], [[0.0, -8.0]]]],),
            "A kernel has four axes: the mean goes over all but the first.",
        ),
    ]
    cases = [((torch.tensor(w),), reason) for (w,), reason in cases]
    praise = (
        "A bit for each weight and a float for each output, and no scale of "
        "that output would fit these signs better."
    )
    judge(answer, reference, cases, praise)


# ------------------------------------------------------------------------------
# 08 Real engines
# ------------------------------------------------------------------------------


def my_requantize(answer):
    """Exercise 08.1: from int32 sums to codes, as QLinearConv does it."""

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
    judge(answer, reference, cases, praise)


def my_packed_bytes(answer):
    """Exercise 08.2: the bytes of weights, each layer packed on its own."""

    def reference(counts, bits):
        zeros = [torch.zeros(n, dtype=torch.uint8) for n in counts]
        return sum(len(mq.pack_codes(codes, bits)) for codes in zeros)

    cases = [
        (
            ([8], 1),
            "Count bytes, not bits: 8 codes of 1 bit fill one, a whole number.",
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
    """Exercise 08.3: the first layer whose codes differ, and how many."""

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
            "A code may differ upwards or downwards, and uint8 wraps: 5 - 6 "
            "is 255. The dicts say which layers there are.",
        ),
        (
            case({"fc1": [3]}, {"fc1": [3]}),
            'Nothing differs: give ("none", 0).',
        ),
        (
            case({"fc1": [3, 4, 9, 9]}, {"fc1": [3, 2, 5, 5]}),
            "Count the codes that differ, not how far apart they are.",
        ),
        (
            case(
                {"fc1": [1, 2], "fc2": [7, 8]}, {"fc1": [1, 3], "fc2": [8, 9]}
            ),
            "The first layer that differs is the culprit; those behind it "
            "were handed its errors. Its own codes alone count.",
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
            "Codes may have four axes, and the first layers may agree.",
        ),
    ]
    praise = (
        "This is how two engines are compared: from the front, layer by layer, "
        "and by codes. The accuracy would have told nothing."
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
            "Give top, bottom, left, right, from the sums of the rows and of "
            "the columns (in uint8 a sum may wrap); bottom and right are one "
            "more than the last that counts.",
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
        (
            case([90, 90, 90], [90, 90, 90], [90, 90, 90], [40, 40, 40]),
            "Add up the ink, do not count pixels.",
        ),
        (
            case([200, 0, 200, 40], [0, 0, 0, 0], [200, 0, 200, 0]),
            "A gap inside belongs to the box, a speck beside it does not.",
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
        (case([0], [1]), "Rows come first: (y, x). Divide by all the ink."),
        (
            case([1, 1, 0, 0]),
            "Empty columns do not pull: divide by the ink. The middle may lie "
            "between two pixels.",
        ),
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
            "Picture 1 is read differently: give its number, in a 1-d tensor.",
        ),
        (
            case(
                [[1.0, 0.0, 0.5], [1.0, 0.0, 0.5], [0.0, 0.5, 1.0]],
                [[0.0, 1.0, 0.5], [2.0, 1.0, 0.0], [1.0, 0.0, 0.5]],
            ),
            "All pictures that differ, not the first alone.",
        ),
    ]
    praise = (
        "Two networks can have the same accuracy and still part on some "
        "pictures: compare answers, not scores and not accuracies."
    )
    judge(answer, reference, cases, praise)
