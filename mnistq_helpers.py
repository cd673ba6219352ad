"""What the mnistq notebooks share; each section may use those above it, never below.

1. data and the float network   2. quantizers   3. calibration
4. the integer network          5. pictures and widgets
"""

import copy
import hashlib
import html
import io
import json
import math
import os
import shutil
import tempfile
import timeit
from collections import namedtuple
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.error import URLError

import ipywidgets as W
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import nn
from torchvision import datasets
from torchvision.datasets.utils import check_integrity
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parent
COMMITTED = ROOT / "data" / "mnist_float.pt"  # the network every notebook starts from
MINE = ROOT / "runs" / "mnist_float.pt"  # the one that you train in notebook 01
SHIFTED = ROOT / "data" / "mnist_float_shifted.pt"  # trained on with shifted images
SHA256 = {
    COMMITTED: "c10a959df4cf2a82cb64ee2f10060364ea0af398be320920e94d41db02fa871b",
    SHIFTED: "fdf48d610256ab08e8fbee7595eea1729c54ff47d544904c6a9f4e23ac34b14d",
}
LOW_BITS = ROOT / "data" / "low_bits"  # networks that tools/train_low_bits.py made
MEAN, STD = 0.1307, 0.3081  # of all pixels of the 60,000 training images
LAYERS = ("conv1", "conv2", "fc1", "fc2")
# One image's shape at each activation, and each layer's kernel, seen as a convolution.
SHAPES = {
    "conv1": (1, 28, 28),
    "conv2": (20, 12, 12),
    "fc1": (50, 4, 4),
    "fc2": (500,),
    "output": (10,),
}
KERNELS = {
    "conv1": (1, 5, 5),
    "conv2": (20, 5, 5),
    "fc1": (50, 4, 4),
    "fc2": (500, 1, 1),
}
MAGIC = b"mnistq network 1\n"  # how a file of QuantizedNet.save begins

# ------------------------------------------------------------------------------
# 1. Data and the float network
# ------------------------------------------------------------------------------


def mnist(train):
    """Return MNIST as (images, labels), x = (pixel / 255 - MEAN) / STD.

    images: float32 [N, 1, 28, 28]; labels: int64 [N]; N: 60,000 if train, else 10,000.
    Unpacks into a temporary folder, so that a read-only checkout will do and an
    interrupted run leaves nothing half-written.
    Raises ValueError for a damaged file, or a missing one that cannot be downloaded.
    Source: LeCun, Cortes, Burges, "The MNIST database". Taught in notebook 01.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for name, md5 in datasets.MNIST.resources:
            packed = ROOT / "data" / "MNIST" / "raw" / name
            if packed.exists() and not check_integrity(packed, md5):
                raise ValueError(
                    f"{packed} is damaged (its MD5 is not {md5}): delete it and run "
                    "this again to download it, or restore it with git checkout."
                )
            if packed.exists():
                shutil.copy(packed, raw)
        try:
            dataset = datasets.MNIST(folder, train=train, download=True)
        except (RuntimeError, URLError) as error:
            raise ValueError(
                f"A file of MNIST is missing in {ROOT / 'data' / 'MNIST' / 'raw'} and "
                "could not be downloaded: restore it with git checkout, or connect to "
                f"a network. ({error})"
            ) from error
    images = (dataset.data.unsqueeze(1) / 255 - MEAN) / STD
    return images, dataset.targets


class Net(nn.Module):
    """The article's network: 28x28 -> 20x12x12 -> 50x4x4 = 800 -> 500 -> 10.

    conv1 1->20 and conv2 20->50 are 5x5 with ReLU and 2x2 max pooling, fc1 has ReLU.
    forward: float32 [N, 1, 28, 28] -> log-probabilities [N, 10]. Taught in notebook 01.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x):  # (N, 1, 28, 28)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 20, 12, 12)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 50, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (N, 500)
        return F.log_softmax(self.fc2(x), dim=1)  # (N, 10)


def train(net, images, labels, epochs=10, test=None):
    """Train net in place as the article does: SGD, v <- 0.5 v + grad, w <- w - lr v.

    lr 0.01, momentum 0.5, batches of 64 in a new random order each epoch (torch's
    global seed decides it). test: (images, labels), or None. All on the net's device.
    Returns a list with a dict for each epoch: "loss", the mean of the negative
    log-likelihood over the epoch, and "accuracy" on test in [0, 1].
    Taught in notebook 01.
    """
    net.to(memory_format=torch.channels_last)  # only for speed
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)
    history = []
    for epoch in range(1, epochs + 1):
        net.train()
        total = 0.0
        order = torch.randperm(len(images)).split(64)
        # It moves once in 100 steps: a notebook drops messages past the thousandth.
        name = f"epoch {epoch} of {epochs}"
        for batch in tqdm(order, name, miniters=100, maxinterval=1e9):
            optimizer.zero_grad()
            loss = F.nll_loss(net(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        history.append({"loss": float(total / len(images))})
        net.eval()
        if test is not None:
            history[-1]["accuracy"] = evaluate(net, *test)
    return history


def evaluate(model, images, labels):
    """Return the accuracy of model in [0, 1]: the share of argmax(scores) == label.

    model: any callable from images [N, 1, 28, 28] to scores [N, 10].
    Raises ValueError if there are no images, or not one label for each.
    Taught in notebook 01.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels: give at least one image, "
            "and one label for each."
        )
    with torch.inference_mode():
        parts = zip(images.split(500), labels.split(500), strict=True)
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
    return correct / len(images)


def load_net(path=COMMITTED):
    """Return the trained Net in path, in eval mode.

    path: mq.COMMITTED or mq.SHIFTED, whose SHA-256 is checked, or mq.MINE, written by
    notebook 01.
    Loads tensors only (weights_only), never code. Raises ValueError for a file that is
    missing, altered, or not a checkpoint of Net. Taught in notebook 01.
    """
    path = Path(path)
    remedy = (
        "restore it with git checkout"
        if path in SHA256
        else "run notebook 01 to train and save it, or use mq.COMMITTED"
    )
    if not path.exists():
        raise ValueError(f"{path} is missing: {remedy}.")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256.get(path, digest):
        raise ValueError(f"{path} was altered (its SHA-256 is {digest}): {remedy}.")
    net = Net()
    try:
        net.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    except Exception as error:  # torch raises half a dozen kinds for a bad file
        raise ValueError(f"{path} is not a checkpoint of Net: {remedy}.") from error
    return net.eval()


# ------------------------------------------------------------------------------
# 2. Quantizers
# ------------------------------------------------------------------------------

# tensor: the codes; scale and zero_point: numbers, or one for each index along axis.
QTensor = namedtuple("QTensor", "tensor scale zero_point axis", defaults=[None])


def code_range(bits, signed=False):
    """Return (qmin, qmax) = (0, 2**bits - 1), minus 2**(bits-1) if signed.

    Raises ValueError unless bits is a whole number from 1 to 16. Taught in notebook 02.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ValueError(f"bits is {bits!r}: give a whole number from 1 to 16.")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def calc_scale_zero_point(min_val, max_val, bits=8, signed=False, symmetric=False):
    """Return (scale: float, zero_point: int) of the grid x = scale * (q - zero_point).

    The range is first widened to contain 0, which must be exact.
    affine:    scale = (max - min) / (qmax - qmin)
               zero_point = round(qmin - min / scale)
    symmetric: scale = max(|min|, |max|) / (qmax - zero_point)
               zero_point = 0 if signed, else 2**(bits-1)
               At 1 bit no code lies above zero_point, and 1/2 takes the 0's place.
    A range of only 0 has scale 1. Raises ValueError for NaN, infinity, or min > max.
    Source: Jacob et al. 2017, section 2.1 and equation 13. Taught in notebook 02.
    """
    qmin, qmax = code_range(bits, signed)
    low, high = float(min_val), float(max_val)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"the range [{low}, {high}] is not finite: remove NaN and inf."
        )
    if low > high:
        raise ValueError(f"min {low} is above max {high}: swap them.")
    low, high = min(low, 0.0), max(high, 0.0)
    middle = (qmin + qmax + 1) // 2
    if symmetric:
        scale = max(-low, high) / max(qmax - middle, 0.5)
    else:
        scale = (high - low) / (qmax - qmin)
    if scale == 0:
        return 1.0, middle if symmetric else qmin
    scale = max(scale, torch.finfo(torch.float32).tiny)  # below it float32 loses digits
    zero_point = middle if symmetric else round(qmin - low / scale)
    return scale, min(max(zero_point, qmin), qmax)


def quantize_tensor(
    x, bits=8, scale=None, zero_point=None, signed=False, symmetric=False, axis=None
):
    """Return QTensor with codes q = clamp(round(x / scale) + zero_point, qmin, qmax).

    Rounds half to even. x: float tensor, not empty, finite. scale and zero_point: two
    numbers, or with axis (per channel) two 1-d tensors; without them, own_grid(x).
    Codes: uint8, or int8 if signed, up to 8 bits; int32 above.
    Raises ValueError for NaN, infinity, an empty tensor, or a grid that does not fit x.
    Source: Jacob et al. 2017, equation 1. Taught in notebook 02.
    """
    qmin, qmax = code_range(bits, signed)
    _check_tensor(x, axis)
    if scale is None and zero_point is None:
        scale, zero_point = own_grid(x, bits, signed, symmetric, axis)
    s, z = _broadcast(scale, x, axis), _broadcast(zero_point, x, axis)
    _check_grid(s, z, qmin, qmax)
    q = (torch.round(x / s) + z).clamp(qmin, qmax)
    code_type = torch.int32 if bits > 8 else torch.int8 if signed else torch.uint8
    return QTensor(q.to(code_type), scale, zero_point, axis)  # clamped first, cast last


def own_grid(x, bits=8, signed=False, symmetric=False, axis=None):
    """Return scale and zero_point from x's own minimum and maximum.

    Two numbers; with axis (per channel) two 1-d tensors, float32 and int32, with one
    entry for each slice of x along axis.
    Source: Krishnamoorthi 2018 (arXiv 1806.08342), section 2. Taught in notebook 02.
    """
    if axis is None:
        return calc_scale_zero_point(x.min(), x.max(), bits, signed, symmetric)
    rows = x.movedim(axis, 0).flatten(1)  # (channels, everything else)
    grids = [
        calc_scale_zero_point(row.min(), row.max(), bits, signed, symmetric)
        for row in rows
    ]
    scales, zero_points = zip(*grids, strict=True)
    return torch.tensor(scales), torch.tensor(zero_points, dtype=torch.int32)


def dequantize_tensor(q):
    """Return the float32 tensor x_hat = scale * (q - zero_point) of a QTensor.

    Source: Jacob et al. 2017, equation 1. Taught in notebook 02.
    """
    s = _broadcast(q.scale, q.tensor, q.axis)
    return s * (q.tensor - _broadcast(q.zero_point, q.tensor, q.axis))


class StraightThrough(torch.autograd.Function):
    """x_hat forwards, dL/dx = dL/dx_hat backwards: as if rounding were the identity.

    apply(x, x_hat), of one shape. Source: Bengio et al. 2013 (arXiv 1308.3432),
    section 4. Taught in notebook 07.
    """

    @staticmethod
    def forward(ctx, x, x_hat):
        return x_hat.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class FakeQuantize(torch.autograd.Function):
    """x_hat = dequantize_tensor(quantize_tensor(x)) forwards; learned scale backwards.

    apply(x, scale, zero_point, bits, signed, axis), with quantize_tensor's shapes.
    dL/dx     = dL/dx_hat where round(x / scale) + zero_point is a code, else 0
    dL/dscale = sum(dL/dx_hat * (x_hat - x) / scale), x being 0 where it is clipped,
                divided by sqrt(qmax * values that share the scale)
    Source: Esser et al. 2019 (arXiv 1902.08153), section 2. Taught in notebook 07.
    """

    @staticmethod
    def forward(ctx, x, scale, zero_point, bits, signed, axis):
        q = quantize_tensor(x, bits, scale, zero_point, signed, axis=axis)
        x_hat = dequantize_tensor(q)
        ctx.save_for_backward(x, scale, x_hat)
        ctx.grid = zero_point, code_range(bits, signed), axis
        return x_hat

    @staticmethod
    def backward(ctx, grad):
        x, scale, x_hat = ctx.saved_tensors
        zero_point, (qmin, qmax), axis = ctx.grid
        s, z = _broadcast(scale, x, axis), _broadcast(zero_point, x, axis)
        q = torch.round(x / s) + z
        inside = (q >= qmin) & (q <= qmax)
        slope = grad * (x_hat - torch.where(inside, x, 0)) / s
        rest = [i for i in range(x.dim()) if i != axis]
        factor = math.sqrt(max(qmax, 1) * x.numel() / scale.numel())
        grads = [torch.where(inside, grad, 0), slope.sum(rest) / factor]
        return *grads, None, None, None, None


def snr_db(x, x_hat):
    """Return the signal-to-noise ratio 10 * log10(sum x**2 / sum (x - x_hat)**2) in dB.

    Infinite where x_hat equals x. Taught in notebook 02.
    """
    noise = (x - x_hat).double().square().sum()
    return float(10 * torch.log10(x.double().square().sum() / noise))


def _check_tensor(x, axis=None):
    if x.numel() == 0:
        raise ValueError(f"the tensor of shape {tuple(x.shape)} is empty.")
    if not x.is_floating_point():
        raise ValueError(f"the tensor is {x.dtype}: give floats.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the tensor contains NaN or infinity: remove them first.")
    if axis is not None and not 0 <= axis < x.dim():
        raise ValueError(f"shape {tuple(x.shape)} has no axis {axis}.")


def _check_grid(scale, zero_point, qmin, qmax):
    usable = torch.isfinite(scale) & (scale > 0)
    if not bool(usable.all()):
        bad = float(scale[~usable][0])
        raise ValueError(f"the scale {bad} must be positive and finite.")
    fits = (zero_point >= qmin) & (zero_point <= qmax)
    fits = fits & (zero_point == zero_point.round())
    if not bool(fits.all()):
        bad = float(zero_point[~fits][0])
        raise ValueError(f"zero_point {bad:g} must be an integer, {qmin} to {qmax}.")


def _broadcast(value, x, axis):
    """Return value as float32 on x's device, shaped to go with x along axis."""
    if value is None:
        raise ValueError("give scale and zero_point both, or neither.")
    value = torch.as_tensor(value, dtype=torch.float32, device=x.device)
    expected = () if axis is None else (x.shape[axis],)
    if value.shape != expected:
        raise ValueError(
            f"scale or zero_point of shape {tuple(value.shape)} with axis {axis} does "
            f"not fit a tensor of shape {tuple(x.shape)}: {expected} is needed."
        )
    return value.reshape([-1 if i == axis else 1 for i in range(x.dim())])


# ------------------------------------------------------------------------------
# 3. Calibration
# ------------------------------------------------------------------------------


def activations(net, images):
    """Return {"conv1": images, "conv2": ..., "fc1": ..., "fc2": ..., "output": logits}.

    Each name holds the float tensor that ENTERS that layer, after ReLU and pooling.
    Source: the article's gatherStats. Taught in notebook 03.
    """
    entering = {"conv1": images}  # (N, 1, 28, 28)
    entering["conv2"] = F.max_pool2d(F.relu(net.conv1(images)), 2)  # (N, 20, 12, 12)
    x = F.max_pool2d(F.relu(net.conv2(entering["conv2"])), 2)
    entering["fc1"] = x.flatten(1)  # (N, 800)
    entering["fc2"] = F.relu(net.fc1(entering["fc1"]))  # (N, 500)
    entering["output"] = net.fc2(entering["fc2"])  # (N, 10)
    return entering


def range_mean(x, bits=8):
    """Return the mean over samples of each sample's (min, max): the article's choice.

    x: (N, ...). bits is not used. Source: the article. Taught in notebook 03.
    """
    flat = x.flatten(1)  # (N, everything else)
    return float(flat.amin(1).mean()), float(flat.amax(1).mean())


def range_minmax(x, bits=8):
    """Return (min, max) over all values: nothing that was seen is clipped.

    bits is not used. Source: Krishnamoorthi 2018, section 2.5. Taught in notebook 03.
    """
    return float(x.min()), float(x.max())


def range_ema(x, bits=8, decay=0.9, batch=50):
    """Return the moving average ema <- decay * ema + (1 - decay) * new of batch ranges.

    x: (N, ...), taken in batches in its order; the first batch starts the average.
    bits is not used. Source: Jacob et al. 2017, section 3.1. Taught in notebook 03.
    """
    first, *rest = x.split(batch)
    low, high = range_minmax(first)
    for part in rest:
        low = decay * low + (1 - decay) * float(part.min())
        high = decay * high + (1 - decay) * float(part.max())
    return low, high


def range_percentile(x, bits=8, percent=99.9):
    """Return the (100 - percent)-th and percent-th percentiles of all values.

    bits is not used. Source: McKinstry et al. 2018 (arXiv 1809.04191), section 3.
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

    Source: Sung et al. 2015 (arXiv 1511.06488), section 3. Taught in notebook 03.
    """
    _, qmax = code_range(bits)
    scale, zero_point = calc_scale_zero_point(low, high, bits)
    q = (torch.round(centers / scale) + zero_point).clamp(0, qmax)
    return float((counts * (scale * (q - zero_point) - centers) ** 2).sum())


def range_mse(x, bits=8, steps=100):
    """Return the range (low, high) within [min, max] with the least clipping_error.

    Tries steps sizes for high, then for low with the best high.
    Source: Sung et al. 2015, section 3. Taught in notebook 03.
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
    best, threshold = math.inf, bins
    for end in range(max(128, levels), bins + 1, 8):
        group = torch.arange(end) * levels // end
        kept = counts[:end]
        mass = torch.zeros(levels).double().index_add(0, group, kept)
        filled = torch.zeros(levels).double().index_add(0, group, (kept > 0).double())
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


def calibrate(net, images, method="mean", bits=8):
    """Return {"conv1": (min, max), "conv2": ..., "fc1": ..., "fc2", "output"}.

    The range of the tensor that enters each layer, and of the logits, over images
    [N, 1, 28, 28]. method: a key of RANGE_METHODS; bits (for "mse" and "entropy"): one
    int, which leaves the logits at 8, or a dict by those names.
    Raises ValueError for another method, bad bits, or unusable images.
    Source: Jacob et al. 2017, section 3; the article. Taught in notebook 03.
    """
    if method not in RANGE_METHODS:
        raise ValueError(
            f"method is {method!r}: use one of {', '.join(RANGE_METHODS)}."
        )
    _check_images(images)
    bits = _bits_by_name(bits, (*LAYERS, "output"))
    with torch.inference_mode():
        entering = activations(net, images)
    return {name: RANGE_METHODS[method](x, bits[name]) for name, x in entering.items()}


def _check_images(images):
    if tuple(images.shape[1:]) != (1, 28, 28):
        raise ValueError(f"images of shape {tuple(images.shape)}: use [N, 1, 28, 28].")
    _check_tensor(images)


def _bits_by_name(bits, names):
    """Return {name: bits}; "output" keeps 8 bits unless a dict names it."""
    if not isinstance(bits, dict):
        bits = {name: 8 if name == "output" else bits for name in names}
    elif set(bits) - set(names) or set(names) - set(bits) - {"output"}:
        raise ValueError(f"bits are for {sorted(bits)}: name {', '.join(names)}.")
    for name, value in bits.items():
        code_range(value)
        if value > 8:
            raise ValueError(
                f"{name} has {value} bits: the network's codes hold 1 to 8."
            )
    return {name: bits.get(name, 8) for name in names}


# ------------------------------------------------------------------------------
# 4. The integer network
# ------------------------------------------------------------------------------


def quantize_weight(w, bits=8, per_channel=True):
    """Return QTensor of a layer's weights: symmetric, signed, zero_point 0.

    scale = max|w| / (2**(bits-1) - 1), for each output channel or for the whole tensor.
    At 1 bit the codes are -1 and +1 and scale is mean|w|, which minimises the squared
    error. w: float [out, ...]. Source: Krishnamoorthi 2018, section 2; 1 bit: Rastegari
    et al. 2016 (arXiv 1603.05279), equation 6. Taught in notebook 04.
    """
    axis = 0 if per_channel else None
    if bits > 1:
        return quantize_tensor(w, bits, signed=True, symmetric=True, axis=axis)
    magnitude = w.abs().flatten(1).mean(1) if per_channel else w.abs().mean()
    scale = magnitude.clamp(min=torch.finfo(torch.float32).tiny)
    codes = torch.where(w < 0, -1, 1).to(torch.int8)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return QTensor(codes, scale, zero_point, axis)


def quantize_multiplier(m):
    """Return (m0, shift) with m0 * 2**-31 * 2**-shift nearest to m.

    m0: int in [2**30, 2**31), so 31 significant bits; shift: int in [-30, 31], negative
    for m >= 1. An m0 that rounds up to 2**31 is halved. Raises ValueError for m that is
    not positive and finite, or lies outside [2**-32, 2**30).
    Source: Jacob et al. 2017, equation 6. Taught in notebook 05.
    """
    m = float(m)
    if not (math.isfinite(m) and m > 0):
        raise ValueError(f"the multiplier {m} must be positive and finite.")
    fraction, exponent = math.frexp(m)  # m = fraction * 2**exponent, fraction < 1
    m0 = math.floor(fraction * 2**31 + 0.5)
    if m0 == 2**31:
        m0, exponent = 2**30, exponent + 1
    if not -31 <= exponent <= 30:
        raise ValueError(f"the multiplier {m} must be at least 2**-32, below 2**30.")
    return m0, -exponent


def high_multiply(a, b):
    """Return (a * b + 2**30) >> 31: the upper half of 2ab, rounded, ties upwards.

    a: int32 or int64 tensor within int32's range; b: the same, or an int. int64.
    2**31 (both -2**31, the one product too large for int32) becomes 2**31 - 1.
    Source: gemmlowp, SaturatingRoundingDoublingHighMul. Taught in notebook 05.
    """
    product = a.long() * b
    return product.add_(2**30).bitwise_right_shift_(31).clamp_(max=2**31 - 1)


def rounding_shift(x, shift):
    """Return x / 2**shift rounded to the nearest integer, ties away from 0.

    x: int64 tensor; shift: int from 0 to 31, or int64 tensor that broadcasts with x.
    Source: gemmlowp, RoundingDivideByPOT. Taught in notebook 05.
    """
    shift = torch.as_tensor(shift)
    down = torch.maximum(x >> 63, -shift)  # -1 for a negative x, if it is shifted
    return down.add_(x).add_((1 << shift) >> 1).bitwise_right_shift_(shift)


def multiply_by_quantized_multiplier(acc, m0, shift):
    """Return acc * m0 * 2**-31 * 2**-shift in int32, with gemmlowp's two roundings.

    acc: int32 tensor; m0, shift: quantize_multiplier's, or tensors that broadcast with
    acc. Equals LiteRT's reference kernels. For a negative shift acc is first multiplied
    by 2**-shift; what leaves int32 there, which they leave undefined, saturates.
    Source: Jacob et al. 2017, section 2.2; gemmlowp. Taught in notebook 05.
    """
    if acc.dtype != torch.int32:
        raise ValueError(f"the accumulators are {acc.dtype}: give int32.")
    shift = torch.as_tensor(shift, dtype=torch.int64)
    if bool((shift < 0).any()):
        left = (-shift).clamp(min=0)
        acc = (acc.long() << left).clamp_(-(2**31), 2**31 - 1)
    high = high_multiply(acc, m0)
    return rounding_shift(high, shift.clamp(min=0)).to(torch.int32)


@cache
def int_mm_is_exact():
    """Return whether torch._int_mm is exact here: tried once, on full-range codes.

    Without VNNI, x86 processors add pairs of products in 16 bits, which saturate.
    Taught in notebook 05.
    """
    for n, k, m in ((1, 64, 1), (64, 64, 64), (20, 25, 300), (50, 501, 40)):
        for step in (0, 73):  # 0: the largest product everywhere
            a = (127 - torch.arange(n * k) * step % 256).to(torch.int8)
            b = (127 - torch.arange(k * m) * step % 251).to(torch.int8)
            a, b = a.reshape(n, k), b.reshape(k, m)
            try:
                found = torch._int_mm(a, b)
            except (AttributeError, RuntimeError):  # not a public function
                return False
            if not torch.equal(found.long(), a.long() @ b.long()):
                return False
    return True


@cache
def int_mm_is_quick():
    """Return whether torch._int_mm takes less than 4 times as long as float32 here.

    Timed once. Where it has no kernel of its own, as on a processor with AVX2 alone, it
    took 8 to 31 times as long. The answer decides about time only: both are exact.
    Taught in notebook 05.
    """
    a, b = (torch.ones(n, 512, dtype=torch.int8) for n in (64, 512))
    products = lambda: torch._int_mm(a, b), lambda: a.float() @ b.float()
    whole, carried = (min(timeit.repeat(f, number=1)) for f in products)
    return whole < 4 * carried


def int_matmul(a, b):
    """Return the int32 product a @ b, exact on every processor.

    a: int8 [n, k]; b: int8 [k, m]. torch._int_mm where it is exact and quick; elsewhere
    the codes are carried in float32 if k * 2**14 <= 2**24, so that it holds every sum,
    and in float64 if not. Raises ValueError for other types or shapes, or k >= 2**17,
    where int32 could overflow. Taught in notebook 05.
    """
    if a.dtype != torch.int8 or b.dtype != torch.int8:
        raise ValueError(f"the factors are {a.dtype} and {b.dtype}: give int8.")
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"the factors have shapes {shapes}: give [n, k] and [k, m].")
    terms = a.shape[1]
    if terms >= 2**17:
        raise ValueError(f"a sum of {terms} products may leave int32: split it.")
    # With one term it misreads a transposed b.
    if terms > 1 and int_mm_is_exact() and int_mm_is_quick():
        return torch._int_mm(a, b)
    carrier = torch.float32 if terms * 2**14 <= 2**24 else torch.float64
    return (a.to(carrier) @ b.to(carrier)).to(torch.int32)


@dataclass(frozen=True)
class QuantizedLayer:
    """What one layer needs at run time, all of it known before the first image.

    weight: int8 [out, ...]; weight_scale: float32 [out]; bias: int32 [out], in units of
    in_scale * weight_scale; in_scale * weight_scale / out_scale as int32 m0 and shift
    [out] ("fixed"), or as float32 multiplier [out] ("float"), the other being None;
    low..high: the codes that may leave the layer. Activations are int8, code - 128, and
    have the batch last: so all that is copied is contiguous. Taught in notebook 05.
    """

    weight: torch.Tensor
    weight_bits: int
    weight_scale: torch.Tensor
    bias: torch.Tensor
    in_zero_point: int
    multiplier: torch.Tensor | None
    m0: torch.Tensor | None
    shift: torch.Tensor | None
    out_scale: float
    out_zero_point: int
    low: int
    high: int
    pool: bool

    @cached_property
    def folded_bias(self):
        """bias - (in_zero_point - 128) * sum(weight), int32: the rest of equation 7."""
        sums = self.weight.flatten(1).sum(1, dtype=torch.int32)
        return self.bias - (self.in_zero_point - 128) * sums

    def accumulate(self, a):
        """Return acc = sum(weight * (q - in_zero_point)) + bias in int32.

        a: int8 q - 128, [in, H, W, N] or [in, N]. acc: [out, ..., N], after pooling,
        which commutes with requantization because that is monotone.
        Source: Jacob et al. 2017, equation 7. Taught in notebook 05.
        """
        size = a.shape[-1:]
        if self.weight.dim() == 4:
            k = self.weight.shape[2]
            windows = a.unfold(1, k, 1).unfold(2, k, 1)  # (in, H, W, N, k, k), a view
            size = windows.shape[1:4]
            a = windows.permute(0, 4, 5, 1, 2, 3)
        matrix = self.weight.flatten(1)  # (out, in * k * k)
        acc = int_matmul(matrix, a.reshape(matrix.shape[1], -1))
        acc = acc.reshape(len(matrix), *size)
        if self.pool:
            acc = torch.maximum(acc[:, 0::2], acc[:, 1::2])
            acc = torch.maximum(acc[:, :, 0::2], acc[:, :, 1::2])
        return acc.add_(_first_axis(self.folded_bias, acc))

    def requantize(self, acc):
        """Return int8 clamp(round(acc * M) + out_zero_point, low, high) - 128.

        "fixed": multiply_by_quantized_multiplier, as in LiteRT's reference kernels.
        "float": multiplies in float32 and rounds half to even, as ONNX Runtime does.
        Source: Jacob et al. 2017, equation 5. Taught in notebook 05.
        """
        if self.multiplier is None:
            m0, shift = _first_axis(self.m0, acc), _first_axis(self.shift, acc)
            q = multiply_by_quantized_multiplier(acc, m0, shift)
        else:
            q = (acc * _first_axis(self.multiplier, acc)).round_()
        zero = self.out_zero_point  # added after the clamp, where nothing can overflow
        q = q.clamp_(self.low - zero, self.high - zero).add_(zero - 128)
        return q.to(torch.int8)


def _first_axis(values, acc):
    return values.reshape(-1, *[1] * (acc.dim() - 1))


class QuantizedNet:
    """A Net whose layers, input and logits are integer codes; made by quantize_net.

    net(images float32 [N, 1, 28, 28]) -> logits float32 [N, 10]. Taught in notebook 04.
    """

    def __init__(self, layers, in_bits, in_scale, in_zero_point):
        self.layers = layers  # {"conv1": QuantizedLayer, ...}
        self.in_bits, self.in_scale, self.in_zero_point = (
            in_bits,
            in_scale,
            in_zero_point,
        )

    def __call__(self, images):
        last = self.layers["fc2"]
        grid = (last.out_scale, last.out_zero_point)
        _check_images(images)
        codes = [dict(self._steps(batch))["output"] for batch in images.split(50)]
        return dequantize_tensor(QTensor(_unsigned(torch.cat(codes, 1)), *grid))

    def codes(self, images):
        """Return {"conv1": uint8 codes entering conv1, ..., "output": logits' codes}.

        Shapes as in the float network, batch first.
        Raises ValueError for images of another shape, empty or not finite.
        """
        _check_images(images)
        parts = [dict(self._steps(batch)) for batch in images.split(50)]
        return {
            name: _unsigned(torch.cat([p[name] for p in parts], -1))
            for name in parts[0]
        }

    def _steps(self, images):
        """Yield (name, int8 codes - 128 entering that layer), batch last."""
        q = quantize_tensor(images, self.in_bits, self.in_scale, self.in_zero_point)
        a = (q.tensor ^ 128).view(torch.int8).movedim(0, -1).contiguous()
        yield "conv1", a  # (1, 28, 28, N)
        for name, following in zip(LAYERS, (*LAYERS[1:], "output"), strict=True):
            layer = self.layers[name]
            a = layer.requantize(layer.accumulate(a))
            if following == "fc1":
                a = a.flatten(0, 2)  # (50, 4, 4, N) -> (800, N)
            yield following, a

    @property
    def nbytes(self):
        """Bytes to store it: packed weights, int32 biases, multipliers, grids.

        Each output channel has a multiplier: int32 m0 and a shift of one byte, or a
        float32. Each of the five activation tensors has a float32 scale and a zero
        point of one byte.
        """
        packed = sum(
            math.ceil(layer.weight.numel() * layer.weight_bits / 8)
            for layer in self.layers.values()
        )
        outputs = sum(
            len(layer.bias) * (4 + (4 if layer.m0 is None else 4 + 1))
            for layer in self.layers.values()
        )
        return packed + outputs + (len(self.layers) + 1) * (4 + 1)

    @property
    def requantize(self):
        """The arithmetic between layers, "fixed" or "float"; see quantize_net."""
        return "float" if self.layers["fc2"].m0 is None else "fixed"

    def save(self, path):
        """Write the network to one file, which load reads.

        MAGIC, the SHA-256 of all that follows, a line of JSON (bits and grids), then
        for each layer packed weights, float32 weight scales, int32 biases, all little
        endian. Taught in notebook 08.
        """
        steps = list(self.layers.values())
        grids = [(self.in_scale, self.in_zero_point)]
        grids += [(step.out_scale, step.out_zero_point) for step in steps]
        act_bits = [self.in_bits, *(step.high.bit_length() for step in steps)]
        header = {
            "requantize": self.requantize,
            "weight_bits": {n: step.weight_bits for n, step in self.layers.items()},
            "act_bits": dict(zip(SHAPES, act_bits, strict=True)),
            "grids": dict(zip(SHAPES, grids, strict=True)),
        }
        body = json.dumps(header).encode() + b"\n"
        for step in steps:
            bits = step.weight_bits
            codes = step.weight.to(torch.int16) + 2 ** (bits - 1)
            codes = codes >> (bits == 1)  # there -1 and 1 become 0 and 2, and now 0, 1
            body += pack_codes(codes, bits).numpy().tobytes()
            body += step.weight_scale.numpy().astype("<f4").tobytes()
            body += step.bias.numpy().astype("<i4").tobytes()
        write_whole(path, MAGIC + hashlib.sha256(body).digest() + body)

    @classmethod
    def load(cls, path, requantize=None):
        """Return the network that save wrote. Nothing in the file is ever executed.

        requantize: "fixed" or "float"; without it, what the network was saved with.
        Raises ValueError for a file that is missing, not of this format, truncated,
        altered, or that describes no network. Taught in notebook 08.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path} is missing: write it with QuantizedNet.save.")
        with path.open("rb") as file:
            content = file.read(2**20)  # more than twice the largest network
        body = content[len(MAGIC) + 32 :]
        if not content.startswith(MAGIC):
            raise ValueError(f"{path} is not a file that QuantizedNet.save wrote.")
        if MAGIC + hashlib.sha256(body).digest() + body != content:
            raise ValueError(f"{path} was truncated or altered: save it again.")
        try:
            return cls._from_body(body, requantize)
        except Exception as error:  # whatever a stranger may have put there
            raise ValueError(f"{path} describes no network: {error}") from error

    @classmethod
    def _from_body(cls, body, requantize):
        line, _, rest = body.partition(b"\n")
        header, rest = json.loads(line), io.BytesIO(rest)
        weight_bits = _bits_by_name(header["weight_bits"], LAYERS)
        act_bits = _bits_by_name(header["act_bits"], tuple(SHAPES))
        grids, layers = {}, {}
        for name in SHAPES:
            scale, zero_point = header["grids"][name]
            grids[name] = (float(scale), int(zero_point))
            _check_grid(*map(torch.tensor, grids[name]), *code_range(act_bits[name]))
        for name, following in zip(LAYERS, (*LAYERS[1:], "output"), strict=True):
            out, bits = SHAPES[following][0], weight_bits[name]
            count = out * math.prod(KERNELS[name])
            packed = _take(rest, "u1", math.ceil(count * bits / 8))
            codes = unpack_codes(packed, bits, count).to(torch.int16) << (bits == 1)
            shape = KERNELS[name] if name.startswith("conv") else (count // out,)
            weight = (codes - 2 ** (bits - 1)).to(torch.int8).reshape(out, *shape)
            scale, bias = _take(rest, "<f4", out), _take(rest, "<i4", out)
            _check_grid(scale, torch.zeros(out), 0, 0)
            layers[name] = quantized_layer(
                name,
                QTensor(weight, scale, None),
                bits,
                bias,
                grids[name],
                grids[following],
                act_bits[following],
                requantize or header["requantize"],
            )
        if rest.read(1):
            raise ValueError("it is longer than its network.")
        return cls(layers, act_bits["conv1"], *grids["conv1"])


def _unsigned(a):
    """Return uint8 codes, batch first, from int8 codes - 128, batch last."""
    return (a.view(torch.uint8) ^ 128).movedim(-1, 0)


def quantized_layer(
    name, weight, weight_bits, bias, in_grid, out_grid, out_bits, requantize
):
    """Return the QuantizedLayer of weight, a QTensor with one scale for each output.

    bias: whole numbers; grids: (scale, zero_point). Raises ValueError where an
    accumulator could leave int32. Taught in notebook 05.
    """
    if requantize not in ("fixed", "float"):
        raise ValueError(f'requantize is {requantize!r}: use "fixed" or "float".')
    (in_scale, in_zero), (out_scale, out_zero) = in_grid, out_grid
    sums = weight.tensor.flatten(1).abs().sum(1, dtype=torch.int64)
    largest = float((bias.double().abs() + sums * 256).max())
    if not largest < 2**31:
        raise ValueError(
            f"{name}'s accumulators could reach {largest:.3g}, beyond int32: widen the "
            f"range of {name}, whose scale is {in_scale:.3g}."
        )
    # float32, in this order, because that is what ONNX Runtime computes.
    scales = [torch.tensor(in_scale), weight.scale, torch.tensor(out_scale)]
    multiplier, m0, shift = scales[0] * scales[1] / scales[2], None, None
    if requantize == "fixed":
        # float64, because that is what LiteRT computes; below 2**-32 all is 0.
        real = scales[0].double() * scales[1].double() / scales[2].double()
        pairs = [quantize_multiplier(max(m, 2**-32)) for m in real.tolist()]
        m0, shift = torch.tensor(pairs, dtype=torch.int32).T
        multiplier = None
    return QuantizedLayer(
        weight=weight.tensor,
        weight_bits=weight_bits,
        weight_scale=weight.scale,
        bias=bias.to(torch.int32),
        in_zero_point=in_zero,
        multiplier=multiplier,
        m0=m0,
        shift=shift,
        out_scale=out_scale,
        out_zero_point=out_zero,
        low=0 if name == "fc2" else out_zero,  # ReLU: x >= 0 is q >= zero_point
        high=code_range(out_bits)[1],
        pool=name.startswith("conv"),
    )


def quantize_net(
    net,
    ranges,
    weight_bits=8,
    act_bits=8,
    per_channel=True,
    requantize="fixed",
    weights=None,
):
    """Return the QuantizedNet of net; net itself is only read.

    weights: quantize_weight; activations: unsigned affine grids over ranges, which
    calibrate returns; bias: round(b / (in_scale * weight_scale)) in int32.
    weight_bits, act_bits: 1 to 8, one int or a dict by layer name; one int for act_bits
    holds for the input too; the logits keep 8 bits unless "output" is named.
    requantize: "fixed", integers only, as LiteRT's reference kernels; "float", float32
    multiply and round half to even, as ONNX Runtime.
    weights: {layer name: QTensor} to use as they are, signed with zero_point 0 and
    weight_bits bits; quantize_weight makes those of the layers it does not name.
    Raises ValueError for bits, ranges, weights or a requantize it cannot use, and where
    an accumulator could leave int32.
    Source: Jacob et al. 2017, sections 2.2 to 2.4; the article. Taught in notebook 04.
    """
    if requantize not in ("fixed", "float"):
        raise ValueError(f'requantize is {requantize!r}: use "fixed" or "float".')
    names = (*LAYERS, "output")
    _check_ranges(ranges)
    weight_bits, act_bits = (
        _bits_by_name(weight_bits, LAYERS),
        _bits_by_name(act_bits, names),
    )
    if weights is not None and set(weights) - set(LAYERS):
        raise ValueError(
            f"weights are for {sorted(weights)}: name {', '.join(LAYERS)}."
        )
    grids = {n: calc_scale_zero_point(*ranges[n], act_bits[n]) for n in names}
    layers = {}
    for name, following in zip(LAYERS, names[1:], strict=True):
        source = getattr(net, name)
        w = (weights or {}).get(name)
        if w is None:
            w = quantize_weight(source.weight.detach(), weight_bits[name], per_channel)
        _check_weight(name, w, weight_bits[name], source.weight.shape)
        w_scale = torch.as_tensor(w.scale).expand(len(w.tensor))
        # float32, in this order, because that is what ONNX Runtime computes.
        acc_scale = torch.tensor(grids[name][0]) * w_scale
        bias = torch.round(source.bias.detach().double() / acc_scale.double())
        layers[name] = quantized_layer(
            name,
            QTensor(w.tensor, w_scale, None),
            weight_bits[name],
            bias,
            grids[name],
            grids[following],
            act_bits[following],
            requantize,
        )
    return QuantizedNet(layers, act_bits["conv1"], *grids["conv1"])


def article_grid(low_high, bits, bugs):
    """Return the published code's (scale, zero_point) of a range.

    bugs: a set of letters, those of notebook 04's table that are left in.
    Taught in notebook 04.
    """
    (low, high), qmax = low_high, 2**bits - 1
    if "d" not in bugs:
        low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / qmax  # bug f: 0 for a constant tensor
    zero_point = min(max(-low / scale, 0.0), qmax)
    return scale, int(zero_point) if "c" in bugs else round(zero_point)


def article_quantize(x, bits, bugs):
    """Return the published code's (codes as floats, scale, zero_point).

    Taught in notebook 04.
    """
    low_high = float(x.min()), float(x.max())
    scale, zero_point = article_grid(low_high, bits, bugs)
    q = torch.round(x / scale + zero_point).clamp(0, 2**bits - 1)
    return q, scale, zero_point


def article_layer(x, x_grid, layer, next_range, bits, bugs, last=False):
    """Return the published code's (output, its grid) of a layer. Taught in notebook 04.

    x: the codes that enter, on x_grid; next_range: of what leaves; last: the logits.
    """
    act_bits = 8 if "i" in bugs or last else bits
    q_w, w_scale, w_zero = article_quantize(layer.weight.detach(), bits, bugs)
    q_b, b_scale, b_zero = article_quantize(layer.bias.detach(), bits, bugs)
    y_scale, y_zero = article_grid(next_range, act_bits, bugs)
    w = (x_grid[0] * w_scale / y_scale) * (q_w - w_zero)
    b = (b_scale / y_scale) * (q_b + b_zero if "a" in bugs else q_b - b_zero)
    if w.dim() == 4:
        w = w.to(memory_format=torch.channels_last)  # only for speed
        y = F.conv2d(x - x_grid[1], w, b) + y_zero
        y = F.max_pool2d(y, 2)  # commutes with all that follows
    else:
        y = F.linear(x.flatten(1) - x_grid[1], w, b) + y_zero
    if "b" not in bugs:
        y = torch.round(y).clamp(0, 2**act_bits - 1)
    if not last:
        y = y.clamp(min=0 if "e" in bugs else y_zero)
    return y, (y_scale, y_zero)


def article_ranges(net, images, bugs):
    """Return the published code's ranges: calibrate's means, 64 times too wide if "h".

    Rounded to two decimals, so that they are the same everywhere.
    Taught in notebook 04.
    """
    times = 64 if "h" in bugs else 1  # divided by batches, not by pictures
    return {
        name: (round(times * low, 2), round(times * high, 2))
        for name, (low, high) in calibrate(net, images, "mean").items()
    }


def article_forward(net, ranges, images, bits, bugs):
    """Return the logits of the published forward pass with a set of its bugs.

    ranges: article_ranges. Source: the article, whose bugs have letters from a to l.
    Taught in notebook 04.
    """
    in_bits = 8 if "i" in bugs else bits
    grid = article_grid(ranges["conv1"], in_bits, bugs)
    x = torch.round(images / grid[0] + grid[1]).clamp(0, 2**in_bits - 1)
    for name, following in (("conv1", "conv2"), ("conv2", "fc1"), ("fc1", "fc2")):
        layer = getattr(net, name)
        x, grid = article_layer(x, grid, layer, ranges[following], bits, bugs)
    if "l" in bugs:
        return net.fc2(grid[0] * (x - grid[1]))
    output, grid = article_layer(
        x, grid, net.fc2, ranges["output"], bits, bugs, last=True
    )
    return grid[0] * (output - grid[1])


class MovingRange(nn.Module):
    """Fake quantization on the range ema <- decay * ema + (1 - decay) * batch's range.

    Only in train mode the range moves, and for the first delay batches nothing is
    quantized. bits; low, high: the first range. grid_range() returns (low, high).
    Source: Jacob et al. 2017, section 3.1. Taught in notebook 07.
    """

    def __init__(self, bits, low, high, delay=0, decay=0.99):
        super().__init__()
        self.bits, self.delay, self.decay = bits, delay, decay
        self.register_buffer("ends", torch.tensor([low, high]))

    def forward(self, x):
        if self.training:
            batch = torch.stack(x.detach().aminmax())
            self.ends.lerp_(batch, 1 - self.decay)
            self.delay -= 1
            if self.delay >= 0:
                return x
        scale, zero_point = calc_scale_zero_point(*self.ends, self.bits)
        grid = (torch.tensor(scale, device=x.device), zero_point)
        return FakeQuantize.apply(x, *grid, self.bits, False, None)

    def grid_range(self):
        return tuple(self.ends.tolist())


class LearnedStep(nn.Module):
    """Fake quantization whose scale is learned; zero_point 0, for x >= 0.

    bits; low (not used), high: the range to start from. grid_range() returns (0, high).
    Source: Esser et al. 2019, section 2. Taught in notebook 07.
    """

    def __init__(self, bits, low, high):
        super().__init__()
        self.bits = bits
        scale, _ = calc_scale_zero_point(0, high, bits)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return FakeQuantize.apply(x, self.scale, 0, self.bits, False, None)

    def grid_range(self):
        high = float(self.scale.detach()) * code_range(self.bits)[1]
        return 0.0, high


class QatNet(nn.Module):
    """A Net that computes in floats what its QuantizedNet will compute in integers.

    net: a Net, copied; ranges: calibrate's; weight_bits, act_bits: 1 to 8, the input
    and the logits keeping 8; activation: LearnedStep or MovingRange, made as
    activation(bits, low, high) for what enters conv2, fc1 and fc2. The weights' scales
    are learned, one for each output, from 2 * mean|w| / sqrt(qmax) on; at 1 bit they
    are mean|w|. forward: images -> log-probabilities [N, 10].
    Source: Jacob et al. 2017, section 3; Esser et al. 2019. Taught in notebook 07.
    """

    def __init__(self, net, ranges, weight_bits, act_bits, activation=LearnedStep):
        super().__init__()
        _check_ranges(ranges)
        for bits in (weight_bits, act_bits):
            _bits_by_name(dict.fromkeys(LAYERS, bits), LAYERS)
        self.net = copy.deepcopy(net)
        self.weight_bits, self.act_bits = weight_bits, act_bits
        self.enter = nn.ModuleDict(
            {n: activation(act_bits, *ranges[n]) for n in ("conv2", "fc1", "fc2")}
        )
        self.enter["output"] = MovingRange(8, *ranges["output"])
        self.in_range = ranges["conv1"]
        self.steps = nn.ParameterDict()
        if weight_bits > 1:
            _, qmax = code_range(weight_bits, signed=True)
            for n in LAYERS:
                size = getattr(net, n).weight.detach().abs().flatten(1).mean(1)
                self.steps[n] = nn.Parameter(2 * size / math.sqrt(qmax))

    def parameters_of(self, name):
        """Return a layer's weight and bias on their grids."""
        layer, bits = getattr(self.net, name), self.weight_bits
        w, b = layer.weight, layer.bias
        if name in self.steps:
            w_scale = self.steps[name]
            w_hat = FakeQuantize.apply(
                w, w_scale, torch.zeros_like(w_scale), bits, True, 0
            )
        else:
            q = quantize_weight(w.detach(), bits)
            w_scale, w_hat = q.scale, StraightThrough.apply(w, dequantize_tensor(q))
        ends, in_bits = self.in_range, 8
        if name in self.enter:
            ends, in_bits = self.enter[name].grid_range(), self.act_bits
        in_scale, _ = calc_scale_zero_point(*ends, in_bits)
        acc_scale = in_scale * w_scale.detach()
        b_hat = torch.round(b.detach() / acc_scale) * acc_scale
        return w_hat, StraightThrough.apply(b, b_hat)

    def forward(self, x):  # (N, 1, 28, 28)
        _check_images(x)
        scale, zero_point = calc_scale_zero_point(*self.in_range)
        x = dequantize_tensor(quantize_tensor(x, 8, scale, zero_point))
        for name, following in zip(LAYERS, (*LAYERS[1:], "output"), strict=True):
            w_hat, b_hat = self.parameters_of(name)
            if w_hat.dim() == 4:
                x = F.max_pool2d(F.conv2d(x, w_hat, b_hat), 2)
            else:
                x = F.linear(x.flatten(1), w_hat, b_hat)
            x = self.enter[following](x if following == "output" else F.relu(x))
        return F.log_softmax(x, dim=1)

    def quantize(self, requantize="fixed"):
        """Return the QuantizedNet on the same grids."""
        weights = {}
        for n in LAYERS:
            w = getattr(self.net, n).weight.detach()
            if n in self.steps:
                step = self.steps[n].detach()
                grid = (self.weight_bits, step, torch.zeros_like(step))
                weights[n] = quantize_tensor(w, *grid, signed=True, axis=0)
        ranges = {n: step.grid_range() for n, step in self.enter.items()}
        ranges["conv1"] = self.in_range
        acts = dict.fromkeys(LAYERS, self.act_bits) | {"conv1": 8}
        return quantize_net(
            self.net,
            ranges,
            self.weight_bits,
            acts,
            requantize=requantize,
            weights=weights,
        )


def fine_tune(
    model, images, labels, epochs=2, lr=0.03, shift=0, teacher=None, test=None
):
    """Train model in place by SGD with momentum 0.9 and lr falling to 0 on a cosine.

    model: a QatNet or a Net; batches of 128 in a random order (torch's global seed).
    shift: each image moves by up to so many pixels, at random, each time it is seen.
    teacher: a Net whose probabilities are learned in place of the labels.
    Returns a list with a dict for each epoch: "losses" of the batches, "loss", their
    mean over the images, and "accuracy" on test.
    Source: Esser et al. 2019, section 3; Hinton et al. 2015 (arXiv 1503.02531).
    Taught in notebook 07.
    """
    model.to(memory_format=torch.channels_last)  # only for speed
    batches = math.ceil(len(images) / 128)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    padded = F.pad(images, [shift] * 4, value=float(images.min()))
    history = []
    for epoch in range(1, epochs + 1):
        model.train()
        losses, order = [], torch.randperm(len(images)).split(128)
        name = f"epoch {epoch} of {epochs}"
        for batch in tqdm(order, name, miniters=100, maxinterval=1e9):
            x = random_crops(padded[batch], 28)
            if teacher is None:
                loss = F.nll_loss(model(x), labels[batch])
            else:
                with torch.no_grad():
                    wanted = teacher(x)
                loss = F.kl_div(
                    model(x), wanted, reduction="batchmean", log_target=True
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
            losses.append(loss.detach())
        losses = torch.stack(losses).tolist()
        total = sum(v * len(batch) for v, batch in zip(losses, order, strict=True))
        history.append({"losses": losses, "loss": total / len(images)})
        model.eval()
        if test is not None:
            history[-1]["accuracy"] = evaluate(model, *test)
    return history


def random_crops(x, size):
    """Return a size x size window of each image of x [N, 1, H, W], at a random place.

    Taught in notebook 07.
    """
    top, left = torch.randint(0, x.shape[-1] - size + 1, (2, len(x), 1, 1))
    rows, columns = torch.arange(size)[:, None] + top, torch.arange(size) + left
    return x[torch.arange(len(x))[:, None, None], 0, rows, columns].unsqueeze(1)


def _check_ranges(ranges):
    names = (*LAYERS, "output")
    if set(ranges) != set(names):
        raise ValueError(f"ranges are for {sorted(ranges)}: give {', '.join(names)}.")
    for low, high in ranges.values():
        calc_scale_zero_point(low, high)


def _check_weight(name, w, bits, shape):
    codes, zeros = w.tensor, torch.as_tensor(w.zero_point)
    low, high = code_range(bits, signed=True) if bits > 1 else (-1, 1)
    inside = low <= int(codes.min()) and int(codes.max()) <= high
    inside = inside and (bits > 1 or bool(codes.all()))  # one bit holds no 0
    if codes.dtype != torch.int8 or codes.shape != shape or not inside:
        raise ValueError(
            f"{name}'s codes are {codes.dtype} {tuple(codes.shape)} from "
            f"{int(codes.min())} to {int(codes.max())}: give int8 {tuple(shape)} from "
            f"{low} to {high}, as {bits} bits hold."
        )
    if bool(zeros.any()):
        raise ValueError(f"{name}'s weights have a zero point other than 0.")
    _check_grid(_broadcast(w.scale, codes, w.axis), torch.zeros(1), 0, 0)


def mse_weight_scale(w, bits, steps=80):
    """Return each output channel's scale with the least sum (scale * q - w)**2.

    Tries top * i / steps for i = 1 to steps, top being quantize_weight's scale; at 1
    bit mean|w| is the answer. w: float [out, ...]; scale: float32 [out].
    Raises ValueError for an empty w, one with NaN or infinity, or bits not 1 to 8.
    Source: Sung et al. 2015 (arXiv 1511.06488), section 3. Taught in notebook 06.
    """
    _check_tensor(w, axis=0)
    _bits_by_name(bits, ("w",))
    best = quantize_weight(w, bits).scale
    if bits == 1:
        return best
    low, high = code_range(bits, signed=True)
    rows, top = w.flatten(1), best
    least = torch.full_like(top, math.inf)
    for i in range(1, steps + 1):
        s = (top * i / steps).unsqueeze(1)
        error = (s * (rows / s).round().clamp(low, high) - rows).square().sum(1)
        best = torch.where(error < least, s.squeeze(1), best)
        least = torch.minimum(error, least)
    return best


def gptq(w, h, bits, scale=None, damping=0.01):
    """Return QTensor of w whose codes make sum((w_hat - w) @ x)**2 small.

    Column after column of w is rounded, and its error is spread over the columns that
    are not yet rounded: w[j] -= error * U[i, j] / U[i, i], with U upper and U^T U the
    inverse of h + damping * mean(diag h) * I.
    w: float [out, ...], n numbers for each output; h: sum x x^T over the layer's
    inputs [n, n]; scale: positive [out], or None for mse_weight_scale's.
    Raises ValueError for NaN, an empty tensor, shapes that do not fit, bad bits or
    damping, or an h that is not positive definite even so.
    Source: Frantar et al. 2022 (arXiv 2210.17323), section 3. Taught in notebook 06.
    """
    scale = mse_weight_scale(w, bits) if scale is None else scale
    codes = w.flatten(1).double()  # (out, n), rounded from the left to the right
    u = inverse_factor(h, codes.shape[1], damping)
    s = _broadcast(scale, codes, 0).double().flatten()
    _check_grid(s, torch.zeros(1), 0, 0)
    low, high = code_range(bits, signed=True)
    for i, column in enumerate(codes.T):  # a view: codes change with it
        q = (column / s).round().clamp(low, high)
        if bits == 1:
            q = torch.where(column < 0, -1.0, 1.0).double()
        error = (column - s * q) / u[i, i]
        codes[:, i + 1 :] -= error.outer(u[i, i + 1 :])
        codes[:, i] = q
    zero_point = torch.zeros(len(codes), dtype=torch.int32)
    return QTensor(codes.to(torch.int8).reshape(w.shape), scale, zero_point, 0)


def inverse_factor(h, n, damping):
    """Return upper U with U^T U = inverse of h + damping * mean(diag h) * I, [n, n].

    Raises ValueError as gptq does.
    Source: Frantar et al. 2022, section 3, step 3. Taught in notebook 06.
    """
    _check_tensor(h)
    if tuple(h.shape) != (n, n):
        raise ValueError(f"h has shape {tuple(h.shape)}: give ({n}, {n}).")
    if not 0 <= damping < math.inf:
        raise ValueError(f"damping is {damping}: give 0 or more, like 0.01.")
    h = h.double()
    h = h + damping * h.diagonal().mean().clamp(min=1e-12) * torch.eye(n)
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
        return torch.linalg.cholesky(inverse, upper=True)
    except RuntimeError as error:
        raise ValueError("h is not positive definite: raise damping.") from error


def layer_rows(name, x):
    """Return what each output of a layer sees: its weights' inputs, [positions, n].

    x: what enters the layer, [N, ...]; one row for each place of the kernel, or for
    each image of a fully connected layer. Taught in notebook 06.
    """
    if name.startswith("conv"):
        return F.unfold(x, 5).transpose(1, 2).flatten(0, 1)
    return x.flatten(1)


def quantize_best(net, images, weight_bits, act_bits, requantize="fixed"):
    """Return the QuantizedNet of the best recipe that needs no training.

    Ranges: least squared error. Then layer by layer, x being the float network's input
    and x_hat what the integer network so far computes, h the covariance of x_hat:
    codes by gptq; scale = (w h q) / (q h q), the best for these codes; bias
    b + w mean(x) - w_hat mean(x_hat). net is only read. images: training images,
    [N, 1, 28, 28], 1,000 or more; bits and requantize: see quantize_net.
    Raises ValueError for what quantize_net and calibrate refuse.
    Taught in notebook 06.
    """
    ranges = calibrate(net, images, "mse", act_bits)
    w_bits = _bits_by_name(weight_bits, LAYERS)
    a_bits = _bits_by_name(act_bits, tuple(SHAPES))
    work, weights = copy.deepcopy(net), {}
    args = (work, ranges, w_bits, a_bits, True, requantize, weights)
    with torch.no_grad():
        exact = activations(net, images)
        for name in LAYERS:
            grid = calc_scale_zero_point(*ranges[name], a_bits[name])
            codes = quantize_net(*args).codes(images)[name]
            x_hat = layer_rows(name, dequantize_tensor(QTensor(codes, *grid)))
            layer, mean = getattr(work, name), x_hat.mean(0)
            h = (x_hat - mean).T @ (x_hat - mean)
            q = gptq(layer.weight, h, w_bits[name])
            weights[name] = refit_scale(layer.weight, q, h)
            w_hat = dequantize_tensor(weights[name]).flatten(1)
            wanted = layer.weight.flatten(1) @ layer_rows(name, exact[name]).mean(0)
            layer.bias += wanted - w_hat @ mean
    return quantize_net(*args)


def refit_scale(w, q, h):
    """Return QTensor q with the scales (w h q) / (q h q), the best for its codes.

    Least squares on the layer's outputs; scales that are not positive stay as they are.
    w: float [out, ...]; h as in gptq. Taught in notebook 06.
    """
    rows, codes = w.flatten(1).double(), q.tensor.flatten(1).double()
    h = h.double()
    scale = ((rows @ h * codes).sum(1) / (codes @ h * codes).sum(1)).float()
    return q._replace(scale=torch.where(scale > 0, scale, q.scale))


def _take(stream, kind, count):
    """Return the next count numbers of a stream, of a numpy type in little endian."""
    data = stream.read(count * np.dtype(kind).itemsize)
    values = np.frombuffer(data, kind, count)  # raises ValueError if too few are left
    return torch.from_numpy(values.astype(kind.replace("<", "=")))


def pack_codes(codes, bits):
    """Return codes without gaps between them, in ceil(n * bits / 8) bytes.

    codes: 0 to 2**bits - 1, any shape; bits: 1 to 8; the first code takes the lowest
    bits of the first byte. uint8, 1-d. Raises ValueError for codes that do not fit.
    Taught in notebook 08.
    """
    _, qmax = code_range(bits)
    flat = codes.flatten().to(torch.int64).numpy()
    if qmax > 255 or flat.min(initial=0) < 0 or flat.max(initial=0) > qmax:
        raise ValueError(f"these codes or bits = {bits} do not fit: 8 bits at most.")
    fields = (flat[:, None] >> np.arange(bits) & 1).astype(np.uint8)  # (n, bits)
    return torch.from_numpy(np.packbits(fields, bitorder="little"))


def unpack_codes(packed, bits, count):
    """Return the count codes, uint8, that pack_codes packed.

    Raises ValueError if packed is not as long as they are. Taught in notebook 08.
    """
    code_range(bits)
    if bits > 8 or len(packed) != math.ceil(count * bits / 8):
        raise ValueError(f"{len(packed)} bytes are not {count} codes of {bits} bits.")
    fields = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little")
    codes = (fields.reshape(count, bits) << np.arange(bits)).sum(1)
    return torch.from_numpy(codes.astype(np.uint8))


def write_whole(path, content):
    """Write bytes to a temporary name, then rename: path never holds half a file."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def export_onnx(qnet, path):
    """Write qnet as an ONNX file: the same codes in ONNX Runtime, bit for bit.

    Input "conv1", outputs "conv2", "fc1", "fc2" and "output": uint8 codes in the shapes
    of qnet.codes, but fc1's as [N, 50, 4, 4]; any number of images. Needs onnx.
    Raises ValueError unless requantize is "float", which is what QLinearConv does.
    Source: ONNX operators, version 13. Taught in notebook 08.
    """
    from onnx import checker

    _check_requantize(qnet, "float", "ONNX")
    nodes, source = [], "conv1"
    constants = onnx_grid("conv1", qnet.in_scale, qnet.in_zero_point)
    for name, following in zip(LAYERS, (*LAYERS[1:], "output"), strict=True):
        layer = qnet.layers[name]
        constants |= onnx_constants(name, following, layer)
        new, source = onnx_nodes(name, following, layer, source)
        nodes += new
    model = onnx_model(nodes, constants)
    checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString())


def onnx_grid(name, scale, zero_point):
    """Return {name: constant} of an activation's grid. Taught in notebook 08."""
    return {
        f"{name}.scale": np.array(scale, np.float32),
        f"{name}.zero_point": np.array(zero_point, np.uint8),
    }


def onnx_constants(name, following, layer):
    """Return {name: constant} of a layer, and of the grid that it computes.

    Weights are code + 128 in uint8: products of uint8 and uint8 are exact everywhere,
    those of uint8 and int8 saturate on x86 without VNNI. Taught in notebook 08.
    """
    kernel = layer.weight.reshape(-1, *KERNELS[name]).to(torch.int16) + 128
    constants = {
        f"{name}.weight": kernel.to(torch.uint8).numpy(),
        f"{name}.weight.scale": layer.weight_scale.numpy(),
        f"{name}.weight.zero_point": np.array(128, np.uint8),
        f"{name}.bias": layer.bias.numpy(),
    }
    if (layer.low, layer.high) != (0, 255):  # QLinearConv saturates at these by itself
        constants[f"{name}.low"] = np.array(layer.low, np.uint8)
        constants[f"{name}.high"] = np.array(layer.high, np.uint8)
    return constants | onnx_grid(following, layer.out_scale, layer.out_zero_point)


def onnx_nodes(name, following, layer, source):
    """Return (nodes of a layer, name of its codes before flattening).

    A fully connected layer is a convolution whose kernel covers its whole input.
    Taught in notebook 08.
    """
    from onnx.helper import make_node

    x, w, y = (
        [f"{grid}.scale", f"{grid}.zero_point"]
        for grid in (name, f"{name}.weight", following)
    )
    inputs = [source, *x, f"{name}.weight", *w, *y, f"{name}.bias"]
    nodes = [make_node("QLinearConv", inputs, [f"{name}.conv"])]
    if (layer.low, layer.high) != (0, 255):
        limits = [f"{name}.low", f"{name}.high"]
        nodes.append(make_node("Clip", [f"{name}.conv", *limits], [f"{name}.clip"]))
    last = list(nodes[-1].output)
    if not layer.pool:
        return [*nodes, make_node("Flatten", last, [following])], last[0]
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return [*nodes, make_node("MaxPool", last, [following], **pool)], following


def onnx_model(nodes, constants):
    """Return the ONNX model from conv1's codes to all others. Taught in notebook 08."""
    from onnx import TensorProto, helper, numpy_helper

    ports = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *shape])
        for name, shape in SHAPES.items()
    ]
    tensors = [numpy_helper.from_array(c, name) for name, c in constants.items()]
    graph = helper.make_graph(nodes, "mnistq", ports[:1], ports[1:], tensors)
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def _check_requantize(qnet, mode, engine):
    if qnet.requantize != mode:
        raise ValueError(
            f"{engine} cannot round as requantize={qnet.requantize!r} does: use "
            f"quantize_net(..., requantize={mode!r})."
        )


def export_tflite(qnet, path):
    """Write qnet as a .tflite file: the same codes in LiteRT, bit for bit.

    That is in its reference kernels (BUILTIN_REF); its default ones round as "float".
    Input "conv1", outputs "conv2", "fc1", "fc2" and "output": int8, code - 128, images
    as [N, height, width, channels], any number of them after resize_tensor_input.
    Needs the package ai-edge-litert.
    Raises ValueError unless requantize is "fixed", which is what these kernels do.
    Source: TensorFlow Lite's schema.fbs, version 3. Taught in notebook 08.
    """
    from ai_edge_litert import schema_py_generated as schema

    _check_requantize(qnet, "fixed", "LiteRT")
    graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
    model = schema.ModelT(version=3, subgraphs=[graph], operatorCodes=[])
    model.buffers = [schema.BufferT()]  # number 0 is empty: no constant
    grid = (qnet.in_scale, qnet.in_zero_point - 128)
    source = tflite_tensor(model, "conv1", (1, 28, 28, 1), grid)
    graph.inputs.append(source)
    for name, following in zip(LAYERS, (*LAYERS[1:], "output"), strict=True):
        layer, in_scale = qnet.layers[name], grid[0]
        grid = (layer.out_scale, layer.out_zero_point - 128)
        source = tflite_convolution(model, name, layer, source, in_scale, grid)
        source = tflite_output(model, name, following, layer, source, grid)
    write_whole(path, tflite_bytes(model))


def tflite_tensor(model, name, shape, grid, data=None):
    """Add a tensor, constant if data (int8, int32) is given; return its number.

    grid: (scale, zero_point), or (scales,) of a tensor with one for each channel along
    axis 0 and zero points 0. Taught in notebook 08.
    """
    from ai_edge_litert import schema_py_generated as schema

    scale = np.atleast_1d(np.float32(grid[0]))
    zeros = np.full(len(scale), grid[1] if len(grid) > 1 else 0)
    quantization = schema.QuantizationParametersT(scale=scale, zeroPoint=zeros)
    tensor = schema.TensorT(name=name, shape=list(shape), quantization=quantization)
    tensor.type = schema.TensorType.INT8
    if data is None:
        tensor.shapeSignature = [-1, *shape[1:]]  # any number of images
    else:
        if data.dtype == np.int32:
            tensor.type = schema.TensorType.INT32
        tensor.buffer = len(model.buffers)
        data = np.frombuffer(data.tobytes(), np.uint8)
        model.buffers.append(schema.BufferT(data=data))
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def tflite_operator(model, kind, inputs, output, options):
    """Add an operator of a kind from tensors to a tensor; return its output.

    Each kind has versions; these are the first for such int8. Taught in notebook 08.
    """
    from ai_edge_litert import schema_py_generated as schema

    versions = {"CONV_2D": 3, "MINIMUM": 2, "MAX_POOL_2D": 2, "SQUEEZE": 1}
    code = schema.OperatorCodeT(version=versions[kind])
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = code.builtinCode  # read by older runtimes
    model.operatorCodes.append(code)
    operator = schema.OperatorT(inputs=inputs, outputs=[output], builtinOptions=options)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    union = type(options).__name__.removesuffix("T")
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, union)
    model.subgraphs[0].operators.append(operator)
    return output


def tflite_convolution(model, name, layer, source, in_scale, grid):
    """Add a layer's CONV_2D with its ReLU; return the number of its output.

    A fully connected layer is a convolution whose kernel covers its whole input: the
    reference kernel of FULLY_CONNECTED multiplies in float64 and rounds once.
    Taught in notebook 08.
    """
    from ai_edge_litert import schema_py_generated as schema

    scale, bias = layer.weight_scale.numpy(), layer.bias.numpy()
    kernel = layer.weight.reshape(-1, *KERNELS[name]).permute(0, 2, 3, 1).numpy()
    acc_scale = np.float32(in_scale) * scale
    inputs = [
        source,
        tflite_tensor(model, f"{name}.weight", kernel.shape, (scale,), kernel),
        tflite_tensor(model, f"{name}.bias", bias.shape, (acc_scale,), bias),
    ]
    size = SHAPES[name][1] - 4 if layer.pool else 1
    output = tflite_tensor(model, f"{name}.conv", (1, size, size, len(bias)), grid)
    options = schema.Conv2DOptionsT(schema.Padding.VALID, 1, 1)  # strides of 1
    if layer.low > 0:  # int8 saturates at code 0 by itself
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return tflite_operator(model, "CONV_2D", inputs, output, options)


def tflite_output(model, name, following, layer, x, grid):
    """Add the clamp to layer.high and pooling or flattening, marked as output.

    Returns the number of the tensor that the next layer reads. Taught in notebook 08.
    """
    from ai_edge_litert import schema_py_generated as schema

    channels, *size = SHAPES[following]
    if layer.high < 255:
        shape = model.subgraphs[0].tensors[x].shape
        limit = np.array([layer.high - 128], np.int8)
        inputs = [x, tflite_tensor(model, f"{name}.high", (1,), grid, limit)]
        x = tflite_tensor(model, f"{name}.clip", shape, grid)
        options = schema.MaximumMinimumOptionsT()
        tflite_operator(model, "MINIMUM", inputs, x, options)
    output = tflite_tensor(model, following, (1, *size, channels), grid)
    model.subgraphs[0].outputs.append(output)
    if not layer.pool:
        options = schema.SqueezeOptionsT(squeezeDims=[1, 2])
        tflite_operator(model, "SQUEEZE", [x], output, options)
        return x
    options = schema.Pool2DOptionsT(schema.Padding.VALID, 2, 2, 2, 2)
    return tflite_operator(model, "MAX_POOL_2D", [x], output, options)


def tflite_bytes(model):
    """Return the file's content, in which arrays start at multiples of 16 bytes.

    The schema asks for that of the buffers. Taught in notebook 08.
    """
    import flatbuffers

    class Aligned(flatbuffers.Builder):
        def StartVector(self, size, count, alignment):
            return super().StartVector(size, count, max(alignment, 16))

    builder = Aligned(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# ------------------------------------------------------------------------------
# 5. Pictures and widgets
# ------------------------------------------------------------------------------


class Panel(W.VBox):
    """Controls, a line of text and a picture: text = draw(figure, **values).

    draw gets an empty matplotlib Figure of size inches and returns the text shown above
    it. controls: ipywidgets with a value, by the name of draw's argument. ahead: dicts
    of values whose pictures are drawn now, once, so that they are shown at once. An
    error in draw is raised now, and shown in the panel when a control moves.
    Attributes: controls (dict), text (W.HTML), image (W.Image).
    Used from notebook 02 on.
    """

    def __init__(self, draw, size=(9, 3), ahead=(), **controls):
        self.draw, self.size, self.controls = draw, size, controls
        self.text = W.HTML(layout=W.Layout(min_height="3em"))
        width, height = (f"{72 * inches:.0f}px" for inches in size)
        # The height is fixed so that the page does not jump while a picture is redrawn.
        layout = W.Layout(width=width, height=height, object_fit="contain")
        self.image = W.Image(format="png", layout=layout)
        self.drawn = [(values, self._drawing(values)) for values in ahead]
        for control in controls.values():
            if hasattr(control, "style"):
                control.style.description_width = "initial"
            control.observe(self._moved, names="value")
        self._redraw()
        wrap = W.Layout(flex_flow="row wrap")  # many switches side by side
        row = W.HBox([*controls.values()], layout=wrap)
        super().__init__([row, self.text, self.image])

    def _drawing(self, values):
        """Return (PNG, text as HTML)."""
        figure = Figure(figsize=self.size, dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        text = self.draw(figure, **values)
        for axis in figure.axes:
            axis.minorticks_off()  # unlabelled, yet half a millisecond each
        canvas.draw()  # Figure.savefig would lay everything out twice
        png = io.BytesIO()
        quick = {"compress_level": 1}  # larger, sooner
        imsave(png, canvas.buffer_rgba(), format="png", pil_kwargs=quick)
        return png.getvalue(), html.escape(text)

    def _redraw(self):
        values = {name: control.value for name, control in self.controls.items()}
        found = [drawing for known, drawing in self.drawn if known == values]
        drawing = found[0] if found else self._drawing(values)
        self.image.value, self.text.value = drawing

    def _moved(self, change):
        try:
            self._redraw()
        except Exception as error:  # the browser would drop it unseen
            problem = html.escape(f"{type(error).__name__}: {error}")
            self.text.value = f"<b>This setting failed.</b> {problem}"

    def __repr__(self):  # what a reader sees where nothing runs
        names = self.controls.items()
        labels = ", ".join(getattr(c, "description", "") or n for n, c in names)
        return f"[interactive: {labels}; run the notebook to move it]"


def bits_slider(draw, bits=8, low=1, high=8, size=(9, 3)):
    """Return a Panel with one slider, bits from low to high: text = draw(figure, bits).

    Its pictures are drawn now; run the cell again if what draw reads has changed.
    Used from notebook 02 on.
    """
    slider = W.IntSlider(bits, low, high, description="bits")
    return Panel(draw, size, [{"bits": b} for b in range(low, high + 1)], bits=slider)
