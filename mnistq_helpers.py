"""What the mnistq notebooks share; each section may use those above it, never below.

1. data and the float network   2. quantizers   3. calibration
4. the integer network          5. pictures and widgets
"""

import hashlib
import html
import io
import math
import shutil
import tempfile
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import ipywidgets as W
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn
from torchvision import datasets
from torchvision.datasets.utils import check_integrity
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parent
COMMITTED = ROOT / "data" / "mnist_float.pt"  # the network every notebook starts from
MINE = ROOT / "runs" / "mnist_float.pt"  # the one that you train in notebook 01
COMMITTED_SHA256 = "c10a959df4cf2a82cb64ee2f10060364ea0af398be320920e94d41db02fa871b"
MEAN, STD = 0.1307, 0.3081  # of all pixels of the 60,000 training images
LAYERS = ("conv1", "conv2", "fc1", "fc2")

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
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)
    history = []
    for epoch in range(1, epochs + 1):
        net.train()
        total = 0.0
        order = torch.randperm(len(images)).split(64)
        for batch in tqdm(order, desc=f"epoch {epoch} of {epochs}"):
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

    path: mq.COMMITTED, whose SHA-256 is checked, or mq.MINE, written by notebook 01.
    Loads tensors only (weights_only), never code. Raises ValueError for a file that is
    missing, altered, or not a checkpoint of Net. Taught in notebook 01.
    """
    path = Path(path)
    remedy = (
        "restore it with git checkout"
        if path == COMMITTED
        else "run notebook 01 to train and save it, or use mq.COMMITTED"
    )
    if not path.exists():
        raise ValueError(f"{path} is missing: {remedy}.")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if path == COMMITTED and digest != COMMITTED_SHA256:
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
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError(f"scale {scale.tolist()} must be positive and finite.")
    fits = (zero_point >= qmin) & (zero_point <= qmax)
    if not bool((fits & (zero_point == zero_point.round())).all()):
        raise ValueError(
            f"zero_point {zero_point.tolist()} must be an integer, {qmin} to {qmax}."
        )


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
    shrink = [i / steps for i in range(steps, 0, -1)]
    highs = [high * s for s in shrink] if high > 0 else [high]
    high = min(highs, key=lambda h: clipping_error(counts, centers, low, h, bits))
    lows = [low * s for s in shrink] if low < 0 else [low]
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


@dataclass(frozen=True)
class QuantizedLayer:
    """What one layer needs at run time, all of it known before the first image.

    weight: int8 [out, ...]; bias: int32 [out], in units of in_scale * weight_scale;
    multiplier: float32 [out], in_scale * weight_scale / out_scale; low..high: the codes
    that may leave the layer; carrier: float type that holds its accumulators exactly.
    Taught in notebook 04.
    """

    weight: torch.Tensor
    weight_bits: int
    bias: torch.Tensor
    in_zero_point: int
    multiplier: torch.Tensor
    out_scale: float
    out_zero_point: int
    low: int
    high: int
    carrier: torch.dtype
    pool: bool

    def accumulate(self, q):
        """Return acc = sum(weight * (q - in_zero_point)) + bias, exact integers.

        q: codes [N, in, H, W] or [N, in]. acc: [N, out, ...] in carrier, after pooling,
        which commutes with requantization because that is monotone.
        Source: Jacob et al. 2017, equations 4 and 11. Taught in notebook 04.
        """
        x = q.to(self.carrier) - self.in_zero_point
        w, b = self.weight.to(self.carrier), self.bias.to(self.carrier)
        if w.dim() == 4:  # channels last: pooling is 4 times as fast
            acc = F.conv2d(x, w.to(memory_format=torch.channels_last), b)
        else:
            acc = F.linear(x.flatten(1), w, b)
        return F.max_pool2d(acc, 2) if self.pool else acc

    def requantize(self, acc):
        """Return codes clamp(round(acc * multiplier) + out_zero_point, low, high).

        Multiplies in float32 and rounds half to even, as ONNX Runtime and FBGEMM do.
        Source: Jacob et al. 2017, equation 5. Taught in notebook 04.
        """
        multiplier = self.multiplier.reshape(-1, *[1] * (acc.dim() - 2))
        q = torch.round(acc.float() * multiplier) + self.out_zero_point
        return q.clamp(self.low, self.high).to(torch.uint8)


def exact_carrier(weight, bias, in_zero_point, in_bits):
    """Return torch.float32 if every accumulator stays below 2**24 in it, else float64.

    Bound: max|q - in_zero_point| * sum|weight| + |bias|, at its largest over outputs;
    below 2**24 float32 holds every integer. Taught in notebook 04.
    """
    reach = max(in_zero_point, 2**in_bits - 1 - in_zero_point)
    sums = weight.flatten(1).abs().sum(1, dtype=torch.int64) * reach + bias.long().abs()
    return torch.float32 if int(sums.max()) < 2**24 else torch.float64


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
        return dequantize_tensor(QTensor(self.codes(images)["output"], *grid))

    def codes(self, images):
        """Return {"conv1": uint8 codes entering conv1, ..., "output": logits' codes}.

        Raises ValueError for images of another shape, empty or not finite.
        """
        _check_images(images)
        grid = (self.in_bits, self.in_scale, self.in_zero_point)
        parts = []
        for batch in images.split(250):  # small enough for the processor's cache
            codes = {"conv1": quantize_tensor(batch, *grid).tensor}
            for name, following in zip(LAYERS, (*LAYERS[1:], "output"), strict=True):
                layer = self.layers[name]
                codes[following] = layer.requantize(layer.accumulate(codes[name]))
            codes["fc1"] = codes["fc1"].flatten(1)
            parts.append(codes)
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    @property
    def nbytes(self):
        """Bytes to store it: packed weights, int32 biases, float32 multipliers, grids.

        Each layer has one multiplier per output channel, and each of the five
        activation tensors a float32 scale and a zero point of one byte.
        """
        packed = sum(
            math.ceil(layer.weight.numel() * layer.weight_bits / 8)
            for layer in self.layers.values()
        )
        outputs = sum(len(layer.bias) for layer in self.layers.values())
        return packed + outputs * (4 + 4) + (len(self.layers) + 1) * (4 + 1)


def quantize_net(
    net, ranges, weight_bits=8, act_bits=8, per_channel=True, requantize="float"
):
    """Return the QuantizedNet of net; net itself is only read.

    weights: quantize_weight; activations: unsigned affine grids over ranges, which
    calibrate returns; bias: round(b / (in_scale * weight_scale)) in int32.
    weight_bits, act_bits: 1 to 8, one int or a dict by layer name; one int for act_bits
    holds for the input too; the logits keep 8 bits unless "output" is named.
    requantize: "float", float32 multiply and round half to even.
    Raises ValueError for bits, ranges or a requantize it cannot use.
    Source: Jacob et al. 2017, sections 2.2 to 2.4; the article. Taught in notebook 04.
    """
    if requantize != "float":
        raise ValueError(f'requantize is {requantize!r}: only "float" is known.')
    names = (*LAYERS, "output")
    if set(ranges) != set(names):
        raise ValueError(f"ranges are for {sorted(ranges)}: give {', '.join(names)}.")
    weight_bits, act_bits = (
        _bits_by_name(weight_bits, LAYERS),
        _bits_by_name(act_bits, names),
    )
    grids = {n: calc_scale_zero_point(*ranges[n], act_bits[n]) for n in names}
    layers = {}
    for name, following in zip(LAYERS, names[1:], strict=True):
        source = getattr(net, name)
        w = quantize_weight(source.weight.detach(), weight_bits[name], per_channel)
        (in_scale, in_zero), (out_scale, out_zero) = grids[name], grids[following]
        # float32, in this order, because that is what ONNX Runtime computes.
        acc_scale = torch.tensor(in_scale) * torch.as_tensor(w.scale)
        bias = torch.round(source.bias.detach().double() / acc_scale.double())
        bias = bias.clamp(-(2**31), 2**31 - 1).to(torch.int32)
        layers[name] = QuantizedLayer(
            weight=w.tensor,
            weight_bits=weight_bits[name],
            bias=bias,
            in_zero_point=in_zero,
            multiplier=(acc_scale / torch.tensor(out_scale)).expand(len(bias)),
            out_scale=out_scale,
            out_zero_point=out_zero,
            low=0 if name == "fc2" else out_zero,  # ReLU: x >= 0 is q >= zero_point
            high=code_range(act_bits[following])[1],
            carrier=exact_carrier(w.tensor, bias, in_zero, act_bits[name]),
            pool=name.startswith("conv"),
        )
    return QuantizedNet(layers, act_bits["conv1"], *grids["conv1"])


# ------------------------------------------------------------------------------
# 5. Pictures and widgets
# ------------------------------------------------------------------------------


class Panel(W.VBox):
    """Controls, a line of text and a picture: text = draw(figure, **values).

    draw gets an empty matplotlib Figure of size inches and returns the text shown above
    it. controls: ipywidgets with a value, by the name of draw's argument. An error in
    draw is raised at the first drawing, and shown in the panel when a control moves.
    Attributes: controls (dict), text (W.HTML), image (W.Image).
    Used from notebook 02 on.
    """

    def __init__(self, draw, size=(9, 3), **controls):
        self.draw, self.size, self.controls = draw, size, controls
        self.text = W.HTML(layout=W.Layout(min_height="3em"))
        width, height = (f"{72 * inches:.0f}px" for inches in size)
        # The height is fixed so that the page does not jump while a picture is redrawn.
        layout = W.Layout(width=width, height=height, object_fit="contain")
        self.image = W.Image(format="png", layout=layout)
        for control in controls.values():
            control.style.description_width = "initial"
            control.observe(self._moved, names="value")
        self._redraw()
        super().__init__([*controls.values(), self.text, self.image])

    def _redraw(self):
        figure = Figure(figsize=self.size, dpi=100, layout="constrained")
        values = {name: control.value for name, control in self.controls.items()}
        text = self.draw(figure, **values)
        png = io.BytesIO()
        figure.savefig(png)
        self.image.value, self.text.value = png.getvalue(), html.escape(text)

    def _moved(self, change):
        try:
            self._redraw()
        except Exception as error:  # the browser would drop it unseen
            problem = html.escape(f"{type(error).__name__}: {error}")
            self.text.value = f"<b>This setting failed.</b> {problem}"

    def __repr__(self):  # what a reader sees where nothing runs
        labels = ", ".join(c.description or n for n, c in self.controls.items())
        return f"[interactive: {labels}; run the notebook to move it]"


def bits_slider(draw, bits=8, low=1, high=8, size=(9, 3), live=True):
    """Return a Panel with one slider, bits from low to high: text = draw(figure, bits).

    live: redraw while the slider is dragged; give False if draw takes over 100 ms.
    Used from notebook 02 on.
    """
    slider = W.IntSlider(bits, low, high, description="bits", continuous_update=live)
    return Panel(draw, size, bits=slider)
