"""What a step of an integer network errs by itself, and why. Notebook 11."""

import math

import torch

from mnistq.calibration import range_mse
from mnistq.formats import rounded_net
from mnistq.parts import Layer
from mnistq.quantizers import along_axis, calc_scale_zero_point


def step_errors(part, step, inputs, made):
    """Return (what it means to put out, {cause: error tensor}) of one step.

    The first is computed in floats from rounded weights; the errors say where what the
    step errs by itself comes from. inputs: the float tensors that its codes stand for;
    made: what its output's do.
    """
    wanted = part(*inputs)
    errors = {"weights": torch.zeros(1), "bias": torch.zeros(1)}
    meant = wanted
    if isinstance(part, Layer):
        weight, bias = part.module.weight, part.module.bias
        w_hat, b_hat = stored_weights(step, weight)

        def computed(w, b):
            return part.finish(part.accumulate(*inputs, w, b))

        errors["weights"] = computed(w_hat, bias) - wanted
        errors["bias"] = computed(weight, b_hat) - wanted
        meant = computed(w_hat, b_hat)
    grid = step.out_scale, step.out_zero_point, 0, 2**step.out_bits - 1
    errors |= grid_errors(wanted, *grid)
    errors["arithmetic"] = made - meant - sum(grid_errors(meant, *grid).values())
    return meant, errors


def stored_weights(step, like):
    """Return (weight, bias) in floats, of a layer's step; like: a float weight."""
    scale = along_axis(step.weight_scale, step.weight, 0)
    weight = (step.weight * scale).reshape(like.shape)
    return weight, step.bias * step.in_scale * step.weight_scale


def grid_errors(x, scale, zero_point, low, high):
    """Return {"range", "rounding"}: the errors of codes low..high for x.

    Beyond the range is what lies more than half a step beyond its last codes.
    """
    ends = [scale * (q - zero_point) for q in (low, high)]
    inside = x.clamp(ends[0] - scale / 2, ends[1] + scale / 2)
    rounded = (scale * torch.round(inside / scale)).clamp(*ends)
    return {"range": inside - x, "rounding": rounded - inside}


def narrower_range(x, grid, bits):
    """Return (low, high) of least squared error, and whether it halves a wider one's.

    grid: (scale, zero_point) that x is rounded to so far.
    """
    low, high = range_mse(x, bits)
    own = calc_scale_zero_point(low, high, bits)
    now, then = (
        energy(sum(grid_errors(x, *each, 0, 2**bits - 1).values()))
        for each in (grid, own)
    )
    return low, high, own[0] < grid[0] and then < now / 2


def energy(error):
    return float(error.double().square().sum())


def mean_slope_scatter(x, x_hat):
    """Return the error's mean, slope and scatter, as a Diagnosis has them."""
    spread = x.std(correction=0).clamp(min=1e-12)
    slope = ((x - x.mean()) * (x_hat - x_hat.mean())).mean() / spread**2
    mean = (x_hat.mean() - x.mean()) / spread
    scatter = (x_hat - x_hat.mean() - slope * (x - x.mean())).std(correction=0) / spread
    return float(mean), float(slope), float(scatter)


def through_db(x, x_hat):
    """Return in dB how much of x comes through in x_hat, at any mean and slope."""
    _, slope, scatter = mean_slope_scatter(x.double(), x_hat.double())
    return 20 * math.log10(max(abs(slope), 1e-6) / max(scatter, 1e-6))


def gain_again(place, x, x_again):
    """Return by how many dB more comes through a range that is measured again.

    On x_again, the values of the float network with rounded weights, rather than on x,
    its own values, or as it is. What is rounded is what this step really takes.
    """
    bits = place.bits

    def through(*grid):
        errors = grid_errors(place.meant, *grid, 0, 2**bits - 1)
        return through_db(place.wanted, place.meant + sum(errors.values()))

    own, again = (
        through(*calc_scale_zero_point(*range_mse(values, bits), bits))
        for values in (x, x_again)
    )
    return again - max(through(*place.grid), own)


def with_weights_of(net, qnet):
    """Return a copy of net with the weights and biases that qnet's codes stand for.

    mq.calibrate measures ranges again on it, where diagnose asks for that. Its batch
    norms are folded.
    """
    stored = {n: stored_weights(step, step.weight) for n, step in qnet.layers.items()}
    copied = rounded_net(net, {name: weight for name, (weight, _) in stored.items()})
    for name, (_, bias) in stored.items():
        layer = copied.get_submodule(name)
        if layer.bias is not None:
            layer.bias.data = bias
    return copied
