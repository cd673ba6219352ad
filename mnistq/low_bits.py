"""Few bits without training: best scales, GPTQ, refitted scales. Notebook 07."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from mnistq.calibration import calibrate
from mnistq.integer import quantize_net
from mnistq.layers import read_parts, run_parts, without_batch_norms
from mnistq.parts import Layer, padding
from mnistq.quantizers import (
    QTensor,
    along_axis,
    bits_by_name,
    check_grid,
    check_tensor,
    code_range,
    dequantize_tensor,
)
from mnistq.weights import quantize_weight


def best_scale(rows, top, low, high, steps=80):
    """Return each row's scale with the least sum (scale * q - w)**2, q in low..high.

    Tries top * i / steps for i = 1 to steps. rows: float [out, n]; top, scale: [out].
    Source: Sung et al. 2015 (arXiv 1511.06488), section 3. Taught in notebook 07.
    """
    best, least = top, torch.full_like(top, math.inf)
    for i in range(1, steps + 1):
        s = (top * i / steps).unsqueeze(1)
        error = (s * (rows / s).round().clamp(low, high) - rows).square().sum(1)
        best = torch.where(error < least, s.squeeze(1), best)
        least = torch.minimum(error, least)
    return best


def mse_weight_scale(w, bits, steps=80):
    """Return each output channel's scale with the least sum (scale * q - w)**2.

    best_scale from quantize_weight's scale downwards; at 1 bit mean|w| is the answer.
    w: float [out, ...]; scale: float32 [out].
    Raises ValueError for an empty w, one with NaN or infinity, or bits not 1 to 8.
    Taught in notebook 07.
    """
    check_tensor(w, axis=0)
    bits_by_name(bits, ("w",))
    top = quantize_weight(w, bits).scale
    if bits == 1:
        return top
    return best_scale(w.flatten(1), top, *code_range(bits, signed=True), steps)


def gptq_codes(rows, u, scale, nearest):
    """Return rows' codes, column after column; later ones make up for earlier ones.

    rows: float [out, n]; u: of inverse_factor, [n, n]; nearest: rounds rows / scale.
    Source: Frantar et al. 2022 (arXiv 2210.17323), section 3. Taught in notebook 07.
    """
    codes = rows.clone()
    for i, column in enumerate(codes.T):  # a view: codes change with it
        q = nearest(column / scale)
        error = (column - scale * q) / u[i, i]
        codes[:, i + 1 :] -= error.outer(u[i, i + 1 :])
        codes[:, i] = q
    return codes


def gptq(w, h, bits, scale=None, damping=0.01):
    """Return QTensor of w whose codes make sum((w_hat - w) @ x)**2 small.

    Column after column of w is rounded, and its error is spread over the columns that
    are not yet rounded: w[j] -= error * U[i, j] / U[i, i], with U upper and U^T U the
    inverse of h + damping * mean(diag h) * I.
    w: float [out, ...], n numbers for each output; h: sum x x^T over the layer's
    inputs [n, n]; scale: positive [out], or None for mse_weight_scale's.
    Raises ValueError for NaN, an empty tensor, shapes that do not fit, bad bits or
    damping, or an h that is not positive definite even so.
    Source: Frantar et al. 2022 (arXiv 2210.17323), section 3. Taught in notebook 07.
    """
    scale = mse_weight_scale(w, bits) if scale is None else scale
    rows = w.flatten(1).double()
    u = inverse_factor(h, rows.shape[1], damping)
    s = along_axis(scale, rows, 0).double().flatten()
    check_grid(s, torch.zeros(1), 0, 0)
    low, high = code_range(bits, signed=True)

    def nearest(x):
        if bits == 1:
            return torch.where(x < 0, -1.0, 1.0).double()
        return x.round().clamp(low, high)

    codes = gptq_codes(rows, u, s, nearest).to(torch.int8).reshape(w.shape)
    return QTensor(codes, scale, torch.zeros(len(codes), dtype=torch.int32), 0)


def inverse_factor(h, n, damping):
    """Return upper U with U^T U = inverse of h + damping * mean(diag h) * I, [n, n].

    Raises ValueError as gptq does.
    Source: Frantar et al. 2022, section 3, step 3. Taught in notebook 07.
    """
    check_tensor(h)
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


def layer_rows(layer, x):
    """Return what each output of a layer sees: its weights' inputs, [positions, n].

    layer: a Conv2d or Linear; x: what enters it, [N, ...]; one row for each place of
    the kernel, or for each image of a fully connected layer. Of a single group.
    Taught in notebook 07.
    """
    if isinstance(layer, nn.Conv2d):
        settings = {"padding": padding(layer), "stride": layer.stride}
        windows = F.unfold(x, layer.kernel_size, **settings)
        return windows.transpose(1, 2).flatten(0, 1)
    return x


def refit_scale(w, q, h):
    """Return QTensor q with the scales (w h q) / (q h q), the best for its codes.

    Least squares on the layer's outputs; scales that are not positive stay as they are.
    w: float [out, ...]; h as in gptq. Taught in notebook 07.
    """
    rows, codes = w.flatten(1).double(), q.tensor.flatten(1).double()
    h = h.double()
    scale = ((rows @ h * codes).sum(1) / (codes @ h * codes).sum(1)).float()
    return q._replace(scale=torch.where(scale > 0, scale, q.scale))


def fit_layer(layer, x, x_hat, bits, round_codes=gptq, slope=True, mean=True):
    """Return (QTensor, bias): the layer fitted to inputs x_hat instead of x.

    h being the covariance of x_hat: codes by round_codes(w, h, bits); slope: scale =
    (w h q) / (q h q), the best for these codes; mean: bias b + w mean(x) - w_hat
    mean(x_hat). layer: a Conv2d or Linear, only read; x, x_hat: what layer_rows makes
    of its inputs in the float and in the integer network, [positions, n].
    Raises ValueError as gptq does. Taught in notebook 07.
    """
    w, centre = layer.weight.detach(), x_hat.mean(0)
    h = (x_hat - centre).T @ (x_hat - centre)
    q = round_codes(w, h, bits)
    q = refit_scale(w, q, h) if slope else q
    bias = torch.zeros(len(w)) if layer.bias is None else layer.bias.detach()
    if mean:
        wanted = w.flatten(1) @ x.mean(0)
        bias = bias + wanted - dequantize_tensor(q).flatten(1) @ centre
    return q, bias


def quantize_best(
    net, images, weight_bits, act_bits, requantize="fixed", fit=fit_layer
):
    """Return the QuantizedNet of the best recipe that needs no training.

    Ranges: least squared error. Then layer by layer: fit(layer, x, x_hat, bits), x
    being the float network's input and x_hat what the integer network so far computes.
    net is only read; its batch norms are folded first, and each group of a convolution
    is fitted by itself. images: training images, [N, channels, height, width], 1,000 or
    more; bits and requantize: see quantize_net.
    Raises ValueError for what quantize_net and calibrate refuse.
    Taught in notebook 07.
    """
    work, weights = without_batch_norms(net), {}
    ranges = calibrate(work, images, "mse", act_bits)
    parts, (*_, last) = read_parts(work, images), ranges
    layers = [part for part in parts if isinstance(part, Layer)]
    w_bits = bits_by_name(weight_bits, tuple(layer.name for layer in layers))
    a_bits = bits_by_name(act_bits, ranges, last)
    options = {"requantize": requantize, "in_shape": images.shape[1:]}
    with torch.no_grad():
        exact = run_parts(parts, images)
    for layer in layers:
        name, (entering,) = layer.name, layer.inputs
        qnet = quantize_net(work, ranges, w_bits, a_bits, weights=weights, **options)
        codes = qnet.codes(images, [entering])[entering]
        x_hat = dequantize_tensor(QTensor(codes, *qnet.grids[entering]))
        inputs = exact[entering], x_hat
        weights[name], bias = _fit_groups(layer.module, *inputs, w_bits[name], fit)
        layer.module.bias = nn.Parameter(bias)
    return quantize_net(work, ranges, w_bits, a_bits, weights=weights, **options)


def _fit_groups(layer, x, x_hat, bits, fit):
    """Return what fit makes of a layer, of each group of a convolution by itself."""
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return fit(layer, layer_rows(layer, x), layer_rows(layer, x_hat), bits)
    pairs = []
    for part in _groups_of(layer):
        each = [some.chunk(groups, 1)[len(pairs)] for some in (x, x_hat)]
        pairs.append(fit(part, *(layer_rows(part, some) for some in each), bits))
    weights, biases = zip(*pairs, strict=True)
    q = weights[0]._replace(
        tensor=torch.cat([w.tensor for w in weights]),
        scale=torch.cat([w.scale for w in weights]),
        zero_point=torch.cat([w.zero_point for w in weights]),
    )
    return q, torch.cat(biases)


def _groups_of(layer):
    """Return a convolution of its own for each group of a convolution."""
    made, groups = [], layer.groups
    biases = [None] * groups if layer.bias is None else layer.bias.chunk(groups)
    for weight, bias in zip(layer.weight.chunk(groups), biases, strict=True):
        shape = weight.shape[1], len(weight), layer.kernel_size, layer.stride
        part = nn.Conv2d(*shape, padding(layer), device="meta")  # draws nothing
        part.weight = nn.Parameter(weight)
        part.bias = None if bias is None else nn.Parameter(bias)
        made.append(part)
    return made
