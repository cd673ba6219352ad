"""Where an integer network breaks, and what to try. Notebook 11."""

from collections import namedtuple
from dataclasses import dataclass

import torch

from mnistq.errors import (
    energy,
    gain_again,
    grid_errors,
    mean_slope_scatter,
    narrower_range,
    step_errors,
    stored_weights,
    with_weights_of,
)
from mnistq.figures import ACCENT
from mnistq.layers import read_parts, run_parts
from mnistq.parts import Add, Average, Concat, Layer, tensor_groups
from mnistq.quantizers import QTensor, dequantize_tensor, snr_db
from mnistq.weights import quantize_weight

LIMIT = 9  # dB: a step that errs by more than a third of its signal breaks the network
GAIN = 2  # dB that a range measured again must bring
KINDS = {Add: "sum", Average: "average", Concat: "joined tensor"}
Row = namedtuple("Row", "name maker snr own codes clipped mean slope scatter")


@dataclass(frozen=True)
class Diagnosis:
    """What diagnose found.

    rows: for each tensor its name, as ranges have it, what made it (a layer's name,
    "the sum ...", "the image"), the signal-to-noise ratio against float in dB (snr) and
    of the error that its own step makes (own), the codes in use, the share that is
    clipped, and of the error x_hat - x its mean (in deviations of x), its slope
    (x_hat = slope * x + ..., 1 is none) and its scatter (in deviations of x). place:
    the name of the first tensor to mend, or None. remedy: "range", "bits", "ranges
    again", "per channel", "bias", "weights", "ReLU", "requantize", "arithmetic" or
    None. text: that in a sentence. points: x and x_hat at the place, or at the end.
    """

    rows: tuple
    place: str | None
    remedy: str | None
    text: str
    points: tuple

    def draw(self, figure):
        """Draw the ratios of all tensors, and x_hat against x at the place."""
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        names = [row.name for row in self.rows]
        numbers = range(len(names))
        colours = [ACCENT if n == self.place else "#a3a3a3" for n in names]
        ratios = [min(row.snr, 60) for row in self.rows]
        left.bar(numbers, ratios, color=colours, width=0.7)
        own = [min(row.own, 60) for row in self.rows]
        left.plot(numbers, own, "k_", markersize=12, markeredgewidth=2)
        left.axhline(LIMIT, color="k", linestyle=":")
        left.set_xticks(numbers, names, rotation=30, ha="right")
        top = max(2 * LIMIT, *ratios, *own) * 1.1
        left.set(ylabel="SNR (dB); dash: its own step", ylim=(min(0, *ratios), top))
        shown = self.place or names[-1]
        title = f"The first to mend: {shown}" if self.place else "Nothing breaks"
        left.set_title(title)
        x, x_hat = self.points
        right.plot(x, x_hat, ".", markersize=3, color=ACCENT if self.place else "k")
        ends = [float(x.min()), float(x.max())]
        right.plot(ends, ends, color="#a3a3a3", linestyle="-")
        right.set(xlabel="float", ylabel="from codes", title=shown)


def diagnose(net, qnet, images):
    """Return the Diagnosis of qnet, which quantize_net made of net, over images.

    Each step is given what the integer network gives it. What floats make of that,
    compared with the codes that leave, is the step's own error; it comes from rounded
    weights, from the bias, from values beyond the range, from the grid's steps, or from
    a step that computes something else, and the largest of these names the remedy. But
    before more bits are asked for: a range that is measured on the float network with
    rounded weights (with_weights_of) is named if GAIN dB more come through it.
    Raises ValueError for a network that is not qnet's, or unusable images.
    Taught in notebook 11.
    """
    parts = read_parts(net, images)
    if [p.output for p in parts] != [s.output for s in qnet.steps]:
        raise ValueError("qnet was not made of this network: its steps are others.")
    with torch.inference_mode():
        exact = run_parts(parts, images)
        codes = qnet.codes(images, tuple(exact))
        hats = {
            name: dequantize_tensor(QTensor(q, *qnet.grids[name]))
            for name, q in codes.items()
        }
        places = [_input_place(qnet, images, codes, hats)]
        for part, step in zip(parts, qnet.steps, strict=True):
            if not part.keeps_grid:
                places.append(_place(part, step, codes, hats))
    groups = tensor_groups(parts, Layer)
    rows = tuple(_row(place, groups[place.tensor], exact, hats) for place in places)
    broken = first_broken(rows, places)
    if broken is None:
        text = f"Nothing breaks: no tensor falls below {LIMIT} dB."
        return Diagnosis(rows, None, None, text, _points(exact, hats, places[-1]))
    remedy, text = place_remedy(places[broken], rows[broken])
    if not alone(rows[broken], places[broken]):
        text = f"{_together(rows, broken)} {text}"
    elif remedy in ("bits", "range"):
        later = len(rows) if remedy == "bits" else broken + 1
        pairs = list(zip(rows, places, strict=True))[broken:later]
        row = _to_measure_again(net, qnet, images, exact, pairs)
        if row is rows[broken]:
            remedy, text = "ranges again", _again_text(row.name)
        elif row is not None:
            text = f"{text} Or keep the bits: {_again_text(row.name)}"
    points = _points(exact, hats, places[broken])
    return Diagnosis(rows, rows[broken].name, remedy, text, points)


def _points(exact, hats, place):
    every = max(1, exact[place.tensor].numel() // 500)
    return tuple(t[place.tensor].flatten()[::every] for t in (exact, hats))


FIELDS = "tensor part step codes grid bits wanted meant made errors"
Place = namedtuple("Place", FIELDS)


def _input_place(qnet, images, codes, hats):
    name, grid = qnet.in_name, (qnet.in_scale, qnet.in_zero_point)
    errors = grid_errors(images, *grid, 0, 2**qnet.in_bits - 1)
    fields = codes[name], grid, qnet.in_bits, images, images, hats[name], errors
    return Place(name, None, None, *fields)


def _place(part, step, codes, hats):
    name, inputs = part.output, [hats[n] for n in part.inputs]
    grid, wanted = (step.out_scale, step.out_zero_point), part(*inputs)
    meant, errors = step_errors(part, step, inputs, hats[name])
    fields = codes[name], grid, step.out_bits, wanted, meant, hats[name], errors
    return Place(name, part, step, *fields)


def _row(place, name, exact, hats):
    x, x_hat = exact[place.tensor].double(), hats[place.tensor].double()
    return Row(
        name,
        _maker(place.part, name),
        snr_db(x, x_hat),
        snr_db(place.wanted, place.made),
        len(place.codes.unique()),
        float((place.errors["range"] != 0).float().mean()),
        *mean_slope_scatter(x, x_hat),
    )


def _maker(part, name):
    if isinstance(part, Layer):
        return part.name
    return "the image" if part is None else f"the {KINDS[type(part)]} {name}"


def first_broken(rows, places):
    """Return the number of the first row whose own step breaks, or None.

    If none does alone and many together do, it is the worst one up to where they do.
    """
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        if alone(row, place):
            return number
    for number, row in enumerate(rows):
        if row.snr < LIMIT:
            return min(range(number + 1), key=lambda n: rows[n].own)
    return None


def alone(row, place):
    """Return whether a step breaks by what it errs itself."""
    return row.own < LIMIT or computes_else(place)


def computes_else(place):
    """Return whether one code in a thousand is two steps from what it should be."""
    wrong = place.errors.get("arithmetic", torch.zeros(1)).abs() > 2.5 * place.grid[0]
    return float(wrong.float().mean()) > 1e-3


def _together(rows, worst):
    """Return in words where the errors of all steps together are too large."""
    place, name = next(row.name for row in rows if row.snr < LIMIT), rows[worst].name
    errs = f"Up to there {name} errs most itself."
    if name == place:
        errs = "It is also the one that errs most itself."
    return (
        f"No layer or sum alone falls below {LIMIT} dB, but their errors together do "
        f"at {place}. {errs}"
    )


def _to_measure_again(net, qnet, images, exact, pairs):
    """Return the first row of (row, place) pairs that breaks and gains by it."""
    with torch.inference_mode():
        parts = read_parts(with_weights_of(net, qnet), images)
        again = run_parts(parts, images)
    for row, place in pairs:
        x, x_again = exact[place.tensor], again[place.tensor]
        if row.own < LIMIT and gain_again(place, x, x_again) >= GAIN:
            return row
    return None


def _again_text(name):
    return (
        f"ranges[{name!r}] fits the float network, but rounding the weights has moved "
        "the values: measure it again on mq.with_weights_of(net, qnet), with these "
        "images."
    )


def place_remedy(place, row):
    """Return (remedy, a sentence) for the tensor at a place, by its largest error."""
    name, maker = row.name, row.maker
    cause = max(place.errors, key=lambda c: energy(place.errors[c]))
    cause = "arithmetic" if computes_else(place) else cause
    if cause == "range":
        low, high = (float(x) for x in (place.wanted.min(), place.wanted.max()))
        scale, zero = place.grid
        ends = scale * (0 - zero), scale * (2**place.bits - 1 - zero)
        return "range", (
            f"ranges[{name!r}] is [{ends[0]:.3g}, {ends[1]:.3g}] and clips "
            f"{row.clipped:.1%} of the values, which go from {low:.3g} to {high:.3g}: "
            "widen it."
        )
    if cause == "rounding":
        used = f"{name} uses {len(place.codes.unique())} of {2**place.bits} codes"
        low, high, better = narrower_range(place.wanted, place.grid, place.bits)
        if better:
            return "range", (
                f"{used}, and few values reach the outer ones: narrow ranges[{name!r}] "
                f"to about [{low:.2g}, {high:.2g}]."
            )
        return "bits", f"{used}, and more are needed: give it {_more(place.bits)}."
    if cause == "weights":
        return _weight_remedy(place, maker)
    if cause == "bias":
        return "bias", (
            f"The bias of {maker} moves {name} by more than rounding does: its codes "
            "are not round(bias / (in_scale * weight_scale))."
        )
    if _rounds_twice(place):
        return "requantize", (
            f"The fixed arithmetic of {maker} rounds twice, the first time to "
            f"1/{2 ** int(place.step.shift.min())} of a code, which {2**place.bits} "
            'codes feel: try requantize="float".'
        )
    if float(place.made.min()) < 0 and place.part.relu:
        return "ReLU", (
            f"{maker} lets codes below 0 pass, which the ReLU of the float network "
            "does not."
        )
    if not isinstance(place.part, Layer):
        return "arithmetic", (
            f"{name} is another {KINDS[type(place.part)]} than the float network's: "
            "look at its grid, and at those of what it is made of."
        )
    return "arithmetic", f"{maker} computes something else than the float network."


def _more(bits):
    return f"more than {bits} bit{'s' if bits > 1 else ''}"


def _rounds_twice(place):
    """Return whether some codes are off by one, after a coarse first rounding."""
    shift = getattr(place.step, "shift", None)
    if shift is None or not 0 < int(shift.min()) <= 4:
        return False
    steps = place.errors["arithmetic"].abs() / place.grid[0]
    return float(steps.max()) < 1.5 and float((steps > 0.5).float().mean()) < 0.5


def _weight_remedy(place, name):
    """Return (remedy, a sentence) for the weights of the layer of that name."""
    w, step = place.part.module.weight.detach(), place.step
    error = energy(stored_weights(step, w)[0] - w)
    per_channel = quantize_weight(w, step.weight_bits)
    least = energy(dequantize_tensor(per_channel) - w)
    one_scale = len(step.weight_scale.unique()) == 1 < len(w)
    if one_scale and least < error / 4:
        return "per channel", (
            f"{name} has one scale for all of its weights, and some channels have much "
            "smaller ones than others: quantize its weights per channel."
        )
    if error > 4 * least:
        return "weights", (
            f"The weights of {name} differ from the float network's by more than "
            f"rounding to {step.weight_bits} bits does: are they another network's?"
        )
    if step.weight_bits == 8:
        return "weights", (
            f"The weights of {name} are rounded too coarsely with 8 bits, the most "
            "there are: some are far larger than the others of their channel."
        )
    return "bits", (
        f"The weights of {name} are rounded too coarsely: give them "
        f"{_more(step.weight_bits)}."
    )
