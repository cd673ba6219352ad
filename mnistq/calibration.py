"""Which range? Six ways to choose it from examples. Notebook 03."""

import numpy as np
import torch

from mnistq.data import IMAGE_SHAPE
from mnistq.layers import activations
from mnistq.quantizers import (
    bits_by_name,
    calc_scale_zero_point,
    check_images,
    code_range,
)


def range_mean(x, bits=8):
    """Return the mean over samples of each sample's (min, max): the article's choice.

    x: (N, ...). bits is not used. Source: the article. Taught in notebook 03.
    """
    flat = x.flatten(1)  # (N, everything else)
    return float(flat.amin(1).mean()), float(flat.amax(1).mean())


def range_minmax(x, bits=8):
    """Return (min, max) over all values: nothing that was seen is clipped.

    bits is not used. Taught in notebook 03.
    """
    return float(x.min()), float(x.max())


def range_ema(x, bits=8, decay=0.9, batch=50):
    """Return the moving average ema <- decay * ema + (1 - decay) * new of batch ranges.

    x: (N, ...), taken in n batches in its order. The first one starts the average and
    keeps the weight decay**(n - 1), the last one has 1 - decay. bits is not used.
    Source: Jacob et al. 2017 (arXiv 1712.05877). Taught in notebook 03.
    """
    first, *rest = x.split(batch)
    low, high = range_minmax(first)
    for part in rest:
        low = decay * low + (1 - decay) * float(part.min())
        high = decay * high + (1 - decay) * float(part.max())
    return low, high


def range_percentile(x, bits=8, percent=99.9):
    """Return the (100 - percent)-th and percent-th percentiles of all values.

    bits is not used. Source: McKinstry et al. 2018 (arXiv 1809.04191).
    Taught in notebook 03.
    """
    low, high = np.percentile(x.detach().numpy(), [100 - percent, percent])
    return float(low), float(high)


def histogram(x, bins=2048):
    """Return (counts, centers) of the values of x that are not 0, in equal bins.

    float64 [bins] each, over [min(x, 0), max(x, 0)]. Zeros are left out because the
    grid holds them exactly, whatever the range. Taught in notebook 03.
    """
    low, high = range_minmax(x)
    limits = (min(low, 0.0), max(high, 0.0))
    counts, edges = np.histogram(x[x != 0].detach().numpy(), bins, limits)
    return torch.tensor(counts).double(), torch.tensor(edges[:-1] + edges[1:]) / 2


def clipping_error(counts, centers, low, high, bits):
    """Return sum of counts * (x_hat - x)**2 for a histogram on the grid of (low, high).

    Source: Sung et al. 2015 (arXiv 1511.06488). Taught in notebook 03.
    """
    _, qmax = code_range(bits)
    scale, zero_point = calc_scale_zero_point(low, high, bits)
    q = (torch.round(centers / scale) + zero_point).clamp(0, qmax)
    return float((counts * (scale * (q - zero_point) - centers) ** 2).sum())


def range_mse(x, bits=8, steps=100):
    """Return the range (low, high) within [min, max] with the least clipping_error.

    Tries steps sizes for high, then for low with the best high.
    Source: Sung et al. 2015. Taught in notebook 03.
    """
    counts, centers = histogram(x)
    low, high = range_minmax(x)
    low, high = min(low, 0.0), max(high, 0.0)  # as every grid does
    shrink = [i / steps for i in range(steps, 0, -1)]
    highs = [high * s for s in shrink]
    high = min(highs, key=lambda h: clipping_error(counts, centers, low, h, bits))
    lows = [low * s for s in shrink]
    low = min(lows, key=lambda v: clipping_error(counts, centers, v, high, bits))
    return low, high


def range_entropy(x, bits=8, bins=2048):
    """Return the range (0, t) whose histogram keeps its shape best on the grid.

    For each t the bins up to t, with all that lies above added to the last (P), are
    compared with the same bins merged into 2**bits levels (Q) by the Kullback-Leibler
    divergence sum P * log(P / Q). Made for what follows a ReLU: a tensor with negative
    values (the input, the logits) keeps its minimum and maximum.
    Source: Migacz, "8-bit inference with TensorRT", GTC 2017. Taught in notebook 03.
    """
    low, high = range_minmax(x)
    if low < 0:
        return low, high
    counts, _ = histogram(x, bins)
    levels = 2**bits
    best, threshold = np.inf, bins
    for end in range(max(128, levels), bins + 1, 8):
        group = torch.arange(end) * levels // end
        kept = counts[:end]
        mass = torch.zeros(levels).double().index_add(0, group, kept)
        some = (kept > 0).double()
        filled = torch.zeros(levels).double().index_add(0, group, some)
        q = torch.where(kept > 0, (mass / filled)[group], 0)
        p = kept.clone()
        p[-1] += counts[end:].sum()
        p, q = p / p.sum(), q / q.sum()
        divergence = float((p * (p / q).log())[p > 0].sum())
        if divergence < best:
            best, threshold = divergence, end
    return low, high * threshold / bins


RANGE_METHODS = {
    "mean": range_mean,
    "minmax": range_minmax,
    "ema": range_ema,
    "percentile": range_percentile,
    "mse": range_mse,
    "entropy": range_entropy,
}


def choose_ranges(entering, method="mean", bits=8):
    """Return {name: (min, max)} of the tensors {name: x}, the last of them the logits.

    method: a key of RANGE_METHODS; bits (for "mse" and "entropy"): one int, which
    leaves the logits at 8, or a dict by those names.
    Raises ValueError for another method or bad bits. Taught in notebook 03.
    """
    if method not in RANGE_METHODS:
        raise ValueError(
            f"method is {method!r}: use one of {', '.join(RANGE_METHODS)}."
        )
    *_, last = entering
    bits = bits_by_name(bits, tuple(entering), last)
    find = RANGE_METHODS[method]
    return {name: find(x.cpu(), bits[name]) for name, x in entering.items()}


def calibrate(net, images, method="mean", bits=8):
    """Return {"conv1": (min, max), "conv2": ..., "fc1": ..., "fc2", "output"}.

    The range of the tensor that enters each layer, of the logits, and of whatever else
    needs a grid, over images [N, channels, height, width]. method, bits: as in
    choose_ranges. Raises ValueError for another method, bad bits, unusable images, or a
    network that cannot be read.
    Source: Jacob et al. 2017; the article. Taught in notebook 03.
    """
    check_images(images, IMAGE_SHAPE if images.dim() != 4 else images.shape[1:])
    with torch.inference_mode():
        entering = activations(net, images)
    return choose_ranges(entering, method, bits)
