"""Notebook 04: the network on codes."""

import functools
import math
from fractions import Fraction

import torch

from mnistq.calibration import calibrate
from mnistq.data import mnist
from mnistq.exercises.judge import explain, judge, plain, show
from mnistq.integer import quantize_net
from mnistq.layers import read_layers
from mnistq.network import evaluate, load_net


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
            "A unit of the accumulator is worth in_scale * w_scale: divide by both.",
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
            "acc is the sum of w * x, plus the bias.",
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
            "y_zero is added, and to the result of the multiplication.",
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
            "Codes end at 255: clamp there, before the cast to uint8.",
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
            case([[255, 9]], 0, [[8, 1]], [0], 257 / 4097, 0),
            "2,049 has no place among floats of 16 bits: add up integers of 32.",
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
    net = load_net()
    found = calibrate(net, mnist(train=True)[0][:1000])
    ranges = {k: (round(a, 2), round(b, 2)) for k, (a, b) in found.items()}
    return net, ranges, *mnist(train=False)


def mixed(answer, most_bytes=122_000, least=0.985):
    """Exercise 04.3: bits for each layer, few bytes and enough accuracy."""
    if answer is None or answer is ...:
        print("mixed: not attempted yet (it is None)")
        return
    wish = f"at least {least:.1%} in at most {most_bytes:,} bytes"
    layers = read_layers(load_net())
    legal = f"bits from 1 to 8 for each of {', '.join(layers)}"
    if not isinstance(answer, dict):
        reason = 'Give a dictionary, {"conv1": bits, ...}.'
        explain("mixed", "mixed", legal, show(answer), reason)
        return
    answer = {name: plain(bits) for name, bits in answer.items()}
    for name in (*layers, *answer):
        bits = answer.get(name)
        if name not in layers:
            reason = f"The network has no layer {show(name)}."
        elif name not in answer:
            reason = f"{name} has no bits."
        elif type(bits) is not int or not 1 <= bits <= 8:
            reason = f"{name} has {show(bits)} bits: give an int from 1 to 8."
        else:
            continue
        explain("mixed", show(answer), legal, show(bits), reason)
        return
    net, ranges, images, labels = network_and_data()
    qnet = quantize_net(net, ranges, answer, requantize="float")
    weights = {
        name: math.ceil(layer.weight.numel() * answer[name] / 8)
        for name, layer in layers.items()
    }
    largest, second, *_ = sorted(weights, key=weights.get, reverse=True)
    given = f"{qnet.nbytes:,} bytes"
    if qnet.nbytes > most_bytes:
        reason = (
            f"{qnet.nbytes - most_bytes:,} bytes too many; {largest} holds most, "
            f"{weights[largest]:,}, and after it {second}, {weights[second]:,}."
        )
        explain("mixed", show(answer), wish, given, reason)
        return
    accuracy = evaluate(qnet, images, labels)
    given = f"{accuracy:.2%} in {given}"
    if accuracy < least:
        missing = math.ceil(least * len(labels)) - round(accuracy * len(labels))
        reason = (
            f"Small enough, but it reads {missing:,} digits too few: give one "
            "layer at a time 8 bits, to see which helps."
        )
        explain("mixed", show(answer), wish, given, reason)
        return
    print(
        f"mixed: right. {given}. The layer with most of the weights bears the "
        "fewest bits here; how few a layer bears must be measured, not guessed."
    )
