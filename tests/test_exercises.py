"""The exercises' checks let the notebooks' solutions pass and name known mistakes.

A known wrong answer is the solution, as it stands in the notebook, with one piece of it
replaced: (the piece, what stands in its place, what the check must say).
"""

import ast
import re
from collections import namedtuple
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import exercise_checks

NOTEBOOKS = Path(exercise_checks.__file__).parent

WRONG = {
    # 01
    "my_normalise": [
        (" / 255", "", "after the division by 255"),
        ("/ 0.3081", "/ 0.3081**2", "divided by the deviation"),
        ("(x - 0.1307) / 0.3081", "x / 0.3081 - 0.1307", "less the mean"),
        ("x - 0.1307", "x + 0.1307", "less the mean"),
        ("unsqueeze(1)", "unsqueeze(-1)", "axis is the second"),
        ("unsqueeze(1)", "unsqueeze(0)", "axis is the second"),
        ("unsqueeze(1)", "unsqueeze(2)", "axis is the second"),
        (".unsqueeze(1)", "", "four axes"),
        (" / 255", " // 255", "divide in floats"),
        ("pixels.unsqueeze(1) / 255", "(pixels.unsqueeze(1) > 0) * 1.0", "Greys"),
    ],
    "my_parameters": [
        ("1 * 25 + 1", "1 * 25", "each output has a bias"),
        ("hidden + 1", "hidden", "each output has a bias"),
        ("4 * 4", "5 * 5", "fc1 sees 4 x 4"),
        ("first * 25 + 1", "25 + 1", "all channels of conv1"),
        ("second * 4 * 4", "4 * 4", "each channel of conv2"),
        ("10 * (hidden + 1)", "20", "all of fc1's outputs"),
        ("first * (1 * 25 + 1)", "first * 25 + 1", "52 + 51"),
        ("second * (first * 25 + 1)", "second * first * 25 + 1", "26 + 52"),
        ("hidden * (second * 4 * 4 + 1)", "hidden * second * 16 + 1", "26 + 26 + 34"),
        ("(second * 4 * 4 + 1)", "(second * 16.0 + 1)", "give an int"),
    ],
    "my_sure_and_wrong": [
        ("best.exp()", "best", "probability's log"),
        ("~right", "right", "Sure and right"),
        ("scores.max(1)", "scores.min(1)", "wrong, but sure"),
        ("right & (sure < 0.5)", "sure < 0.5", "Not sure and wrong"),
        ("right & (sure < 0.5)", "~right & (sure < 0.5)", "right by luck"),
        ("~right & (sure > 0.9)", "~right", "Not sure and wrong"),
        ("sure > 0.9", "sure > 0.5", "not above 0.9"),
        ("sure < 0.5", "sure < 0.6", "not below 0.5"),
    ],
    # 02
    "my_quantize": [
        ("round(-low / scale)", "int(-low / scale)", "zero point must be rounded"),
        ("min(*x, 0.0), max(*x, 0.0)", "min(x), max(x)", "until it holds 0"),
        ("min(*x, 0.0)", "min(x)", "until it holds 0"),
        ("max(*x, 0.0)", "max(x)", "until it holds 0"),
        ("round(-low / scale)", "0", "code that stands for 0"),
        (" or 1.0", "", "must not divide by zero"),
        ("round(v / scale) + ", "math.floor(v / scale + 0.5) + ", "Ties go to the"),
        ("round(v / scale) + ", "int(v / scale) + ", "to the nearest, not down"),
        ("min(max(q, 0), qmax)", "q", "must be clamped"),
        ("min(max(q, 0), qmax)", "q % (qmax + 1)", "must be clamped"),
        ("2**bits - 1", "2**bits", "from 0 to 2**bits - 1"),
        (
            "round(v / scale) + zero_point",
            "round(v / scale + zero_point)",
            "Round before",
        ),
        (" or 1.0", " + 1e-8", "Add nothing to the scale"),
        ("round(-low / scale)", "math.floor(0.5 - low / scale)", "zero point's ties"),
    ],
    "my_dequantize": [
        ("- zero_point", "+ zero_point", "taken away, not added"),
        ("q.int()", "q", "wraps"),
        ("q.int()", "q.to(torch.int8)", "in int8 those above 127"),
        ("shape = [-1] + [1] * (q.dim() - 1)", "shape = [-1]", "belongs to a row"),
        ("scale.reshape(shape)", "scale", "scale belongs to a row"),
        ("zero_point.reshape(shape)", "zero_point", "zero point belongs to a row"),
        ("[1] * (q.dim() - 1)", "[1]", "four axes, not two"),
        ("scale.reshape(shape) * ", "", "in floats"),
    ],
    "my_scales": [
        ("2 ** (bits - 1) - 1", "2 ** (bits - 1)", "end at 127"),
        ("2 ** (bits - 1) - 1", "2**bits - 1", "end at 127"),
        (".abs()", "", "whatever its sign"),
        (".amax(1)", ".amax()", "one scale for each row"),
        (".amax(1)", ".amax(0)", "one scale for each row"),
        (".amax(1)", ".amax().expand(len(w))", "its own largest weight"),
        (".flatten(1)", "", "four axes"),
        (
            "w.abs().flatten(1).amax(1)",
            "w.flatten(1).amax(1).abs()",
            "whatever its sign",
        ),
    ],
    # 03
    "my_mean_range": [
        ("samples += len(flat)", "samples += 1", "number of batches"),
        ("flat.amax(1).sum()", "flat.amax() * len(flat)", "extremes of its own"),
        ("float(flat.amin(1).sum())", "0.0", "both ends"),
        (
            "amin(1).sum())\n        high += float(flat.amax(1).sum())\n"
            "        samples += len(flat)",
            "amin(1).mean())\n        high += float(flat.amax(1).mean())\n"
            "        samples += 1",
            "also in a smaller batch",
        ),
        (".flatten(1)", "", "several axes"),
        (
            "    return low / samples",
            "        return low / samples",
            "All batches count",
        ),
        (
            "low += float(flat.amin(1).sum())\n"
            "        high += float(flat.amax(1).sum())",
            "low += float(flat.min())\n        high += float(flat.max())",
            "each sample's own extremes",
        ),
    ],
    "my_moving_average": [
        (
            "for new in values[1:]:\n        ema = decay * ema + (1 - decay) * new",
            "for total, new in enumerate(values[1:], 2):\n"
            "        w = 2.0 / total + 1\n        ema = w * new + (1 - w) * ema",
            "no weight is above 1",
        ),
        ("ema = values[0]", "ema = 0.0", "starts the average"),
        (
            "ema = values[0]\n    for new in values[1:]",
            "ema = 0.0\n    for new in values",
            "starts the average",
        ),
        ("decay * ema + (1 - decay)", "(1 - decay) * ema + decay", "share of the old"),
        ("(1 - decay) * new", "new", "add up to 1"),
        ("values[0]", "values[-1]", "from the first value"),
        ("values[1:]", "values[-1:]", "Every value counts"),
        ("decay * ema + (1 - decay) * new", "(ema + new) / 2", "share of the old"),
        (
            "ema = decay * ema + (1 - decay) * new",
            "ema = decay * ema + (1 - decay) * new if ema else new",
            "A first value of 0",
        ),
    ],
    "my_percentile_range": [
        (" / 100", "", "from 0 to 1"),
        ("x.flatten()", "x.abs().flatten()", "with their signs"),
        ("[100 - percent, percent]", "[0, percent]", "not the minimum"),
        ("x.flatten(), shares", "x, shares, -1", "not row by row"),
        ("shares)", "shares, interpolation='nearest')", "straight line"),
        ("x.flatten()", "x[x != 0]", "Zeros count"),
    ],
    # 04
    "my_bias": [
        ("torch.round(", "torch.trunc(", "not cut"),
        (
            "torch.round(b / (in_scale * w_scale))",
            "torch.floor(b / (in_scale * w_scale) + 0.5)",
            "Ties go to the even",
        ),
        ("(in_scale * w_scale)", "w_scale", "divide by both"),
        ("(in_scale * w_scale)", "in_scale * w_scale", "divide by both"),
        (".to(torch.int32)", "", "give integers"),
        (".to(torch.int32)", ".clamp(-128, 127).to(torch.int32)", "no clamp"),
        (".to(torch.int32)", ".long().to(torch.int8)", "no type so narrow"),
        (".to(torch.int32)", ".long().to(torch.int16)", "into 16 bits"),
        ("* w_scale", "* w_scale.max()", "scale of its own"),
        (".to(torch.int32)", ".clamp(min=0).to(torch.int32)", "A bias has a sign"),
    ],
    "my_layer": [
        ("(x.int() - x_zero)", "(x - x_zero).int()", "wraps in uint8"),
        ("x.int() - x_zero", "x.int()", "must be taken away"),
        ("x.int() - x_zero", "x.int() + x_zero", "must be taken away"),
        ("x.int()", "x.to(torch.int8).int()", "those above 127 wrap"),
        (" + bias", "", "plus the bias"),
        ("w.int().T", "w.int()", "row of w belongs"),
        ("torch.round(acc * m)", "torch.trunc(acc * m)", "not cut"),
        ("torch.round(acc * m)", "torch.floor(acc * m + 0.5)", "Ties go to the even"),
        (
            "torch.round(acc * m) + y_zero",
            "torch.round((acc + y_zero) * m)",
            "after the multiplication",
        ),
        ("acc * m) + y_zero", "acc * m + y_zero)", "after the rounding"),
        ("clamp(y_zero, ", "clamp(0, ", "cuts at y_zero"),
        ("clamp(y_zero, 255)", "clamp(y_zero).int()", "clamp before the cast"),
        ("acc * m)", "acc * torch.as_tensor(m).reshape(-1, 1))", "the last axis"),
        ("acc * m) + y_zero", "(acc - bias) * m) + bias + y_zero", "bias included"),
        (
            "+ y_zero\n    return q.clamp(y_zero, 255)",
            "\n    return (q.clamp(0, 255) + y_zero)",
            "Clamp last",
        ),
        (
            "(x.int() - x_zero) @ w.int().T",
            "(x.short() - x_zero) @ w.short().T",
            "int16",
        ),
    ],
    "mixed": [
        ('"fc1": 2', '"fc1": 3', "fc1 holds most"),
        ('"conv2": 4', '"conv2": 2', "digits too few"),
        (', "fc2": 4', "", "fc2 has no bits"),
        ('"fc2": 4', '"fc2": 9', "fc2 has 9 bits"),
        ('"fc2": 4', '"fc2": 4, "output": 8', "no layer 'output'"),
        ('{"conv1": 4, "conv2": 4, "fc1": 2, "fc2": 4}', "4", "Give a dictionary"),
        ('"fc2": 4', '"fc2": 4.0', "give an int from 1 to 8"),
    ],
    # 05
    "my_folded_bias": [
        ("bias - ", "bias + ", "a minus"),
        ("x_zero * sums", "sums", "x_zero times"),
        (".sum(1, ", ".sum(0, ", "over its row"),
        (".sum(1, ", ".sum(", "over its row"),
        ("dtype=torch.int32", "dtype=torch.int8", "sum in a wider type"),
        ("dtype=torch.int32", "dtype=torch.int16", "into int16"),
        (
            "w.flatten(1).sum(1, dtype=torch.int32)\n    return bias - x_zero * sums",
            "(x_zero * w).flatten(1).sum(1)\n    return bias - sums",
            "before you multiply",
        ),
        (".flatten(1)", "", "four axes"),
        ("w.flatten(1)", "w.int().abs().flatten(1)", "keep their signs"),
        ("w.flatten(1)", "w.to(torch.uint8).flatten(1)", "keep their signs"),
    ],
    "split_product": [
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "a.int() @ b.int()",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "mq.int_matmul(a, b)",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "torch.einsum('nk,km->nm', a.int(), b.int())",
            "no other product",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "saturating_product(a, b)",
            "that must be smaller",
        ),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "2 * saturating_product(a >> 1, b) + saturating_product(a & 1, b)",
            "second factor",
        ),
        ("b >> 1", "(b / 2).to(torch.int8)", "rounded down"),
        ("2 * saturating_product", "saturating_product", "counts twice"),
        (" + saturating_product(a, rest)", "", "product of its own"),
        ("b >> 1, b & 1", "b >> 2, b & 3", "counts twice"),
        (
            "2 * saturating_product(a, half) + saturating_product(a, rest)",
            "(2 * saturating_product(a, half) + saturating_product(a, rest)).short()",
            "the result is int32",
        ),
    ],
    "my_safe_terms": [
        ("2 ** (acc_bits - 1) - 1", "2**acc_bits - 1", "ends at 31"),
        ("2 ** (acc_bits - 1) - 1", "2 ** (acc_bits - 1)", "one too many"),
        ("2 ** (weight_bits - 1) - 1", "2 ** (weight_bits - 1)", "Symmetric weights"),
        ("2 ** (weight_bits - 1) - 1", "2**weight_bits - 1", "One product"),
        ("2**act_bits - 1", "2**act_bits", "Unsigned activations"),
        ("largest // product", "largest // product + 1", "two do not"),
        ("largest // product", "largest / product", "One product"),
        ("largest // product", "max(1, largest // product)", "Not even one"),
    ],
    # 06
    "my_unpack": [
        (" & mask", "", "mask away the others"),
        ("2**bits - 1", "2**bits", "mask away the others"),
        ("bits * i", "8 * len(packed) - bits * (i + 1)", "in the lowest bits"),
        ('"little"', '"big"', "first byte holds the first codes"),
        ("range(count)", "range(8 * len(packed) // bits)", "only count codes"),
        (
            "number >> (bits * i)",
            "int(packed[i // (8 // bits)]) >> i % (8 // bits) * bits",
            "end in the next",
        ),
        ("packed.tolist()", "packed.flip(0).tolist()", "first byte"),
        (
            "number >> (bits * i)",
            "int(packed[bits * i // 8]) >> (bits * i % 8)",
            "end in the next",
        ),
    ],
    "my_best_scale": [
        ("/ (q * q).sum(1)", "/ (w * w).sum(1)", "stands below"),
        ("(w * q).sum(1) / (q * q)", "(q * q).sum(1) / (w * q)", "stands below"),
        ("(w * q).sum(1) / (q * q).sum(1)", "(w / q).mean(1)", "code of 0"),
        (
            "(w * q).sum(1) / (q * q).sum(1)",
            "torch.where(q == 0, torch.nan, w / q).nanmean(1)",
            "no mean of w / q",
        ),
        ("(w * q).sum(1) / (q * q).sum(1)", "w.sum(1) / q.sum(1)", "code of 0"),
        ("(w * q).sum(1) / (q * q).sum(1)", "(w * q).sum() / (q * q).sum()", "vector"),
        (
            "(w * q).sum(1) / (q * q).sum(1)",
            "((w * q).sum() / (q * q).sum()).expand(len(w))",
            "its own weights",
        ),
        ("(w * q).sum(1)", "(w * q).abs().sum(1)", "keep the signs"),
        ("q.float()", "q", "wraps: widen"),
    ],
    "my_act_order": [
        ("descending=True", "descending=False", "is rounded first"),
        ("h[order][:, order]", "h", "rows and the columns of h"),
        ("h[order][:, order]", "h[order]", "rows and the columns of h"),
        ("h[order][:, order]", "h[:, order]", "rows and the columns of h"),
        ("q.tensor[:, order.argsort()]", "q.tensor", "columns' places"),
        ("order.argsort()", "order", "inverse of the order"),
        ("q.tensor[:", "mq.dequantize_tensor(q)[:", "Give codes"),
        ("h.diagonal()", "h.sum(1)", "The diagonal decides"),
        (
            "h.diagonal().argsort(descending=True)",
            "h.diagonal().argsort(descending=True).argsort()",
            "not the ranks",
        ),
    ],
    # 07
    "my_straight_through": [
        ("torch.where(inside, grad, 0)", "inside.float()", "passes as it is"),
        ("torch.where(inside, grad, 0)", "grad", "the gradient is 0"),
        (">= 0", "> 0", "are codes too"),
        ("<= 2**bits - 1", "< 2**bits - 1", "are codes too"),
        ("<= 2**bits - 1", "<= 2**bits", "the gradient is 0"),
        ("torch.round(x / scale)", "x / scale", "rounded code decides"),
        (" + zero_point", "", "count from the zero point"),
        (" + zero_point", " - zero_point", "count from the zero point"),
        ("(x / scale) + zero_point", "(x / scale + zero_point)", "Round first"),
        (
            "torch.round(x / scale) + zero_point",
            "(x / scale).int() + zero_point",
            "do not cut off",
        ),
        ("torch.round(x / scale)", "torch.floor(x / scale + 0.5)", "Round first"),
        (
            "torch.round(x / scale) + zero_point\n"
            "    inside = (q >= 0) & (q <= 2**bits - 1)",
            "x / scale + zero_point\n    inside = (q >= -0.5) & (q <= 2**bits - 0.5)",
            "to the even number",
        ),
    ],
    "my_fold": [
        ("return w * factor.reshape(-1, 1, 1, 1)", "return w", "as it does the kernel"),
        ("factor * (b - mean)", "(b - mean)", "as it does the kernel"),
        (" + beta", "", "added at the end"),
        ("(b - mean)", "b", "taken away from the bias"),
        ("(b - mean)", "b - mean", "before it is multiplied"),
        ("torch.sqrt(var + eps)", "(var + eps)", "the root of var"),
        (" + eps", "", "under the root"),
        ("torch.sqrt(var + eps)", "(torch.sqrt(var) + eps)", "under the root"),
        (".reshape(-1, 1, 1, 1)", ".reshape(-1, 1, 1)", "axis 0 of the kernel"),
        (".reshape(-1, 1, 1, 1)", "", "axis 0 of the kernel"),
        (
            "factor * (b - mean) + beta",
            "(gamma * (b - mean) + beta) / torch.sqrt(var + eps)",
            "not to beta",
        ),
        ("factor * (b - mean)", "factor * b - gamma * mean", "and to the mean"),
    ],
    "my_sign_weights": [
        (".mean(1)", ".amax(1)", "not the largest"),
        (".abs()", "", "The mean of |w|"),
        ("torch.where(w < 0, -scale, scale)", "scale.expand_as(w)", "signs kept"),
        (".mean(1)", ".mean()", "mean of its own"),
        ("torch.where(w < 0, -scale, scale)", "torch.sign(w) * scale", "no code for 0"),
        ("w < 0", "w <= 0", "counts as positive"),
        (".flatten(1)", "", "four axes"),
        (
            "torch.where(w < 0, -scale, scale)",
            "torch.where(w < 0, -scale, scale).tolist()",
            "give a torch tensor",
        ),
    ],
    # 08
    "my_requantize": [
        ("torch.round", "torch.trunc", "do not cut off"),
        (" + zero_point", "", "The zero point is added"),
        ("torch.round(", "torch.floor(0.5 + ", "not up"),
        ("m) + zero_point", "m + zero_point)", "Round before the zero point"),
        (".clamp(0, 255)", ".int()", "below 0 becomes 0"),
        (".clamp(0, 255)", ".clamp(max=255).int()", "below 0 becomes 0"),
        (".clamp(0, 255)", ".clamp(min=0).int()", "above 255 becomes 255"),
        ("acc.float()", "acc.double()", "works in float32"),
        (".to(torch.uint8)", "", "give codes, uint8"),
        (
            "torch.round(acc.float() * m) + zero_point",
            "torch.round((acc.float() + zero_point) * m)",
            "after the multiplication",
        ),
    ],
    "my_packed_bytes": [
        (" / 8", "", "not bits"),
        ("count * bits / 8", "count * (bits // 8)", "not bits"),
        ("math.ceil", "math.floor", "counts: round up"),
        ("count * bits / 8", "count / (8 // bits)", "no gaps"),
        (
            "sum(math.ceil(count * bits / 8) for count in counts)",
            "math.ceil(sum(counts) * bits / 8)",
            "each",
        ),
        ("count * bits / 8)", "count / 8) * bits", "then round up, once"),
    ],
    "my_first_difference": [
        ("a[name] != b[name]", "a[name] > b[name]", "upwards or downwards"),
        ("a[name] != b[name]", "a[name] - b[name]", "wraps"),
        (
            "(a[name] != b[name])",
            "(a[name].int() - b[name].int()).abs()",
            "not how far apart",
        ),
        ("in a:", "in reversed(a):", "the culprit"),
        ("in a:", "in sorted(a):", "not the alphabet's"),
        ('"none", 0', "next(reversed(a)), 0", "Nothing differs"),
        ("in a:", "in mq.LAYERS:", "which layers there are"),
        (
            "(a[name] != b[name]).sum()",
            "len(set(a[name].tolist()) - set(b[name].tolist()))",
            "not how far apart",
        ),
    ],
    # 09
    "my_box": [
        ("int(rows[-1]) + 1", "int(rows[-1])", "one more than the last"),
        ("ink.sum(1) > 255", "ink.sum(1) > 0", "speck of 40"),
        ("ink.sum(1) > 255", "ink.sum(1) >= 255", "not more than 255"),
        ("top, bottom, left, right\n", "left, right, top, bottom\n", "Rows come first"),
        ("int(rows[0]), ", "0, ", "whole field's corner"),
        ("ink.sum(1) > 255", "(ink > 127).sum(1) >= 2", "do not count pixels"),
        ("ink.sum(1) > 255", "sum(ink.T) > 255", "in uint8 a sum may wrap"),
        ("int(rows[-1]) + 1", "int(rows[0]) + len(rows)", "A gap inside"),
    ],
    "my_middle": [
        ("float(y), float(x)", "float(x), float(y)", "Rows come first"),
        ("ink = ink.double()", "ink = (ink > 0).double()", "pull more"),
        (
            "(ink.sum(0) * torch.arange(n_columns)).sum() / ink.sum()",
            "(n_columns - 1) / 2",
            "Empty columns",
        ),
        (".arange(n_rows)", ".arange(1, n_rows + 1)", "first row"),
        (
            "/ ink.sum()\n    x =",
            "/ sum(ink.flatten().byte())\n    x =",
            "too much for uint8",
        ),
        ("float(y), float(x)", "round(float(y)), round(float(x))", "between two"),
    ],
    "my_disagreements": [
        ("a.argmax(1) != b.argmax(1)", "(a != b).any(1)", "Other scores"),
        ("a.argmax(1) != b.argmax(1)", "a.argmax(0) != b.argmax(0)", "axis 1"),
        (".flatten()", "", "1-d tensor"),
        ("different.nonzero().flatten()", "different", "of no numbers"),
        (".flatten()", ".flatten() + 1", "give its number"),
        (".flatten()", ".flatten()[:1]", "not the first alone"),
        ("a.argmax(1) != b.argmax(1)", "a.argmax(1) < b.argmax(1)", "All pictures"),
        (".flatten()", ".squeeze()", "in a 1-d tensor"),
    ],
}


Exercise = namedtuple("Exercise", "stem cell solution")


def exercises():
    """Return {name of a check: the Exercise of the notebooks that uses it}."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text = ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                text = cell.source
                continue
            for name in re.findall(r"(?m)^check\.(\w+)\(", cell.source):
                solution = text.split("<summary>Solution</summary>")[-1]
                code = re.search(r"(?s)```\n(.*?)```", solution)
                found[name] = Exercise(path.stem, cell, code.group(1))
    return found


EXERCISES = exercises()


@pytest.fixture
def said(from_notebook, capsys):
    """Return a function (name, code): what the check of that name says of the code."""

    def say(name, code):
        names = {"np": np} | from_notebook(EXERCISES[name].stem)
        exec(code, names)
        getattr(exercise_checks, name)(names[name])
        return capsys.readouterr().out

    return say


def test_every_check_is_used_by_one_notebook_and_has_known_wrong_answers():
    tree = ast.parse(Path(exercise_checks.__file__).read_text())
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    checks = {
        name
        for name, node in functions.items()
        if (ast.get_docstring(node) or "").startswith("Exercise ")
    }
    assert checks == EXERCISES.keys() == WRONG.keys()
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_as_it_stands_in_the_notebook_is_not_attempted(name):
    (output,) = EXERCISES[name].cell.outputs
    assert output.text.startswith(f"{name}: not attempted yet")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_of_the_notebook_passes(name, said):
    assert said(name, EXERCISES[name].solution).startswith(f"{name}: right. ")


RIGHT = [  # as WRONG, but other types of the same numbers
    ("my_parameters", "conv1 + conv2 +", "torch.tensor(conv1) + conv2 +"),
    ("my_parameters", "conv1 + conv2 +", "np.int64(conv1) + conv2 +"),
    ("my_quantize", "for q in codes]", "for q in np.array(codes)]"),
    (
        "my_mean_range",
        "high += float(flat.amax(1).sum())",
        "high += flat.amax(1).sum()",
    ),
    (
        "my_percentile_range",
        "shares = torch.tensor([100 - percent, percent]) / 100",
        "share = torch.tensor(percent) / 100\n"
        "    shares = torch.stack([1 - share, share])",
    ),
    ("my_box", "int(rows[0]), int(rows[-1]) + 1", "rows[0], rows[-1] + 1"),
    ("my_middle", "float(y), float(x)", "[y, x]"),
    (
        "my_disagreements",
        "different.nonzero().flatten()",
        "torch.tensor([n for n, d in enumerate(different) if d])",
    ),
]


@pytest.mark.parametrize(("name", "piece", "instead"), RIGHT)
def test_a_right_answer_of_another_type_passes(name, piece, instead, said):
    solution = EXERCISES[name].solution
    assert solution.count(piece) == 1
    assert said(name, solution.replace(piece, instead)).startswith(f"{name}: right. ")


@pytest.mark.parametrize(
    ("name", "piece", "instead", "reason"),
    [(name, *wrong) for name, wrongs in WRONG.items() for wrong in wrongs],
)
def test_a_wrong_answer_is_named(name, piece, instead, reason, said):
    solution = EXERCISES[name].solution
    assert solution.count(piece) == 1
    head, *example = said(name, solution.replace(piece, instead)).splitlines()
    assert head.startswith(f"{name}: not yet. ") and reason in head
    labels = [line.split(":")[0].strip() for line in example]
    assert labels == ["example", "expected", "given"]


def test_the_requantizer_that_an_answer_is_compared_with_is_onnx_runtimes(monkeypatch):
    """A QLinearConv of a pixel that is 0: its sums are its biases."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(exercise_checks, "judge", lambda _, *rest: found.append(rest))
        exercise_checks.my_requantize(None)
    reference, cases, _ = found[0]
    spread = torch.arange(-300, 300)
    large = 2**24 + torch.arange(200) * 98_305  # not all are float32 numbers
    examples = [arguments for arguments, _ in cases]
    for m, zero_point in ((0.5, 0), (0.5, 7), (0.25, 128), (0.3, 255), (1.7, 31)):
        examples.append((spread.int(), m, zero_point))
    for m in (2.0**-18, 2.0**-17, 3e-6):
        examples.append((torch.cat([large, -large]).int(), m, 101))
    ties = 0
    for acc, m, zero_point in examples:
        halves = acc.float() * m
        ties += int((halves - halves.floor() == 0.5).sum())
        constants = {
            "zero": np.uint8(0),
            "one": np.float32(1),
            "m": np.float32(m),
            "w": np.ones((len(acc), 1, 1, 1), np.uint8),
            "zero_point": np.uint8(zero_point),
            "acc": acc.numpy(),
        }
        inputs = ["x", "m", "zero", "w", "one", "zero", "one", "zero_point", "acc"]
        h, kind = onnx.helper, onnx.TensorProto.UINT8
        graph = h.make_graph(
            [h.make_node("QLinearConv", inputs, ["y"])],
            "requantize",
            [h.make_tensor_value_info("x", kind, [1, 1, 1, 1])],
            [h.make_tensor_value_info("y", kind, [1, len(acc), 1, 1])],
            [
                onnx.numpy_helper.from_array(np.asarray(value), name)
                for name, value in constants.items()
            ],
        )
        opset = [h.make_opsetid("", 13)]
        model = h.make_model(graph, opset_imports=opset, ir_version=8)
        session = runtime.InferenceSession(model.SerializeToString())
        (y,) = session.run(None, {"x": np.zeros((1, 1, 1, 1), np.uint8)})
        expected = reference(acc, m, zero_point).tolist()
        assert y.flatten().tolist() == expected, (m, zero_point)
    assert ties > 300
