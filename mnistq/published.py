"""The published code, its mistakes switched on one by one. Notebook 05."""

import torch
import torch.nn.functional as F

from mnistq.calibration import calibrate
from mnistq.layers import read_parts
from mnistq.parts import Flatten, Layer, MaxPool


def article_grid(low_high, bits, bugs):
    """Return the published code's (scale, zero_point) of a range.

    bugs: a set of words, those of notebook 05's table that are left in.
    Taught in notebook 05.
    """
    (low, high), qmax = low_high, 2**bits - 1
    if "gap" not in bugs:
        low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / qmax  # "constant": may be 0
    zero_point = min(max(-low / scale, 0.0), qmax)
    return scale, int(zero_point) if "cut" in bugs else round(zero_point)


def article_quantize(x, bits, bugs):
    """Return the published code's (codes as floats, scale, zero_point).

    Taught in notebook 05.
    """
    low_high = float(x.min()), float(x.max())
    scale, zero_point = article_grid(low_high, bits, bugs)
    q = torch.round(x / scale + zero_point).clamp(0, 2**bits - 1)
    return q, scale, zero_point


def article_layer(x, x_grid, layer, next_range, bits, bugs, last=False):
    """Return the published code's (output, its grid) of a layer. Taught in notebook 05.

    x: the codes that enter, on x_grid; layer: a Layer of read_parts; next_range: of
    what leaves; last: the logits.
    """
    act_bits = 8 if "eight" in bugs or last else bits
    q_w, w_scale, w_zero = article_quantize(layer.module.weight.detach(), bits, bugs)
    q_b, b_scale, b_zero = article_quantize(layer.module.bias.detach(), bits, bugs)
    y_scale, y_zero = article_grid(next_range, act_bits, bugs)
    w = (x_grid[0] * w_scale / y_scale) * (q_w - w_zero)
    b = (b_scale / y_scale) * (q_b + b_zero if "sign" in bugs else q_b - b_zero)
    if w.dim() == 4:
        w = w.to(memory_format=torch.channels_last)  # only for speed
    y = layer.accumulate(x - x_grid[1], w, b) + y_zero
    if layer.pool is not None:
        y = F.max_pool2d(y, *layer.pool)  # commutes with all that follows
    if "raw" not in bugs:
        y = torch.round(y).clamp(0, 2**act_bits - 1)
    if layer.relu:
        y = y.clamp(min=0 if "relu" in bugs else y_zero)
    return y, (y_scale, y_zero)


def article_ranges(net, images, bugs):
    """Return the published code's ranges: calibrate's means, times 64 if "wide".

    Rounded to two decimals, so that they are the same everywhere.
    Taught in notebook 05.
    """
    times = 64 if "wide" in bugs else 1  # divided by batches, not by pictures
    return {
        name: (round(times * low, 2), round(times * high, 2))
        for name, (low, high) in calibrate(net, images, "mean").items()
    }


def article_forward(net, ranges, images, bits, bugs):
    """Return (logits, {name: what enters a layer}) of the published forward pass.

    ranges: article_ranges; bugs: the words of those that are left in. Source: the
    article (Chahal 2019). Taught in notebook 05.
    """
    in_bits = 8 if "eight" in bugs else bits
    first, *following = ranges.values()
    grid = article_grid(first, in_bits, bugs)
    x = torch.round(images / grid[0] + grid[1]).clamp(0, 2**in_bits - 1)
    entering = {}
    parts = read_parts(net)
    if not all(isinstance(part, Layer | MaxPool | Flatten) for part in parts):
        raise ValueError("the published code knows chains of layers and pooling alone.")
    for part in parts:
        if not isinstance(part, Layer):
            x = part(x)
            continue
        entering[part.name] = x
        next_range, *following = following
        last = not following
        if last and "last" in bugs:
            return part(grid[0] * (x - grid[1])), entering
        x, grid = article_layer(x, grid, part, next_range, bits, bugs, last)
    return grid[0] * (x - grid[1]), entering
