"""Notebook 06: integers only."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mnistq.exercises.judge import explain, judge, show
from mnistq.quantizers import code_range


def my_folded_bias(answer):
    """Exercise 06.1: the bias that lets codes be multiplied as they are."""

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
            case([10], [[0]], 1),
            "The sum begins with the bias, and weights of 0 take nothing away from it: "
            "x_zero is multiplied by each weight. Give integers.",
        ),
        (
            case([10], [[2]], 1),
            "The zero point's share is taken away from the bias, as in 6.4: a minus, "
            "and x_zero as it is given.",
        ),
        (case([10], [[2]], 3), "The sum is taken x_zero times."),
        (
            case([0], [[1, 2]], 1),
            "The sum is taken over its row of w, however many there are.",
        ),
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
        self.saturates = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.saturates |= name == "clamp"  # saturating_product's last step
        # Of three axes: all numbers by all, to be summed. saturating_product has two.
        outer = name == "mul" and getattr(args[0], "ndim", 0) > 2
        if outer or name.endswith(("mm", "mv", "dot", "linear")):
            self.used.append(name)
        return func(*args, **(kwargs or {}))


def split_product(answer):
    """Exercise 06.2: an exact product from one that adds in 16 bits."""

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
    products, given = Products(), None
    with contextlib.suppress(Exception), products:  # judge tells of errors
        given = answer(*example)
    if products.used or (given is not None and not products.saturates):
        used = [*products.used, "and saturating_product is never called"][0]
        explain(
            "split_product",
            f"split_product({', '.join(map(show, example))})",
            "saturating_product alone",
            f"another product, {used}",
            "This processor has no other product than saturating_product.",
        )
        return
    praise = (
        "Products that are small enough, added up in 32 bits, and the result "
        "is exact: width bought with time."
    )
    judge(answer, reference, cases, praise)


def my_safe_terms(answer):
    """Exercise 06.3: how many products an accumulator can hold."""

    def reference(acc_bits, weight_bits, act_bits):
        _, weight = code_range(weight_bits, signed=True)
        _, activation = code_range(act_bits)
        terms, acc = 0, weight * activation
        while acc.bit_length() < acc_bits:  # and one bit for the sign
            terms, acc = terms + 1, acc + weight * activation
        return terms

    cases = [
        (
            (6, 3, 3),
            "One product of 3 * 7 fits, two do not: a signed accumulator of 6 "
            "bits ends at 31. Terms are counted: give a whole number, an int.",
        ),
        (
            (5, 3, 2),
            "One product of 3 * 3 fits into 15, the second does not: 15 / 9 is rounded "
            "down.",
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
        "weights, 6.5 allows more."
    )
    judge(answer, reference, cases, praise)
