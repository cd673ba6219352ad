"""A layer's weights and bias as integers. Notebook 04."""

import torch

from mnistq.quantizers import (
    QTensor,
    along_axis,
    check_grid,
    code_range,
    quantize_tensor,
)


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


def layer_weight(part, bits, per_channel, in_scale, given):
    """Return QTensor of a layer's weights: those given, or quantize_weight's."""
    w = given
    if w is None:
        w = quantize_weight(part.module.weight.detach().cpu(), bits, per_channel)
        w = _with_room_for_bias(w, part.module, bits, in_scale)
    check_weight(part.name, w, bits, part.module.weight.shape)
    return w


def rounded_bias(bias, in_scale, weight_scale):
    """Return the bias as whole numbers of accumulator units, float64 [out]."""
    if bias is None:
        return torch.zeros(len(weight_scale), dtype=torch.float64)
    # float32, in this order, because that is what ONNX Runtime computes.
    acc_scale = torch.tensor(in_scale, dtype=torch.float32) * weight_scale
    return torch.round(bias.detach().cpu().double() / acc_scale.double())


def _with_room_for_bias(w, module, bits, in_scale):
    """Return w with larger scales for silent filters: bias at most 2**30 units of it.

    Silent: no weight reaches a millionth of the layer's largest, as after pruning. A
    scale of such a filter's own would leave its bias no room in int32.
    """
    if module.bias is None:
        return w
    x = module.weight.detach().cpu()
    largest = x.flatten(1).abs().amax(1)
    silent = largest <= largest.max() * 1e-6
    least = module.bias.detach().cpu().abs() / (in_scale * 2**30)
    if w.axis is None:
        largest, silent, least = largest.max(), silent.all(), least.max()
    own = torch.as_tensor(w.scale)
    own = own.where((largest > 0) | (least == 0), 0)  # quantize_weight's 1 for zeros
    scale = torch.maximum(own, least).where(silent, w.scale)
    if bool((scale == w.scale).all()):
        return w
    if bits == 1:  # signs alone
        return w._replace(scale=scale)
    zeros = torch.zeros_like(scale)
    return quantize_tensor(x, bits, scale, zeros, signed=True, axis=w.axis)


def check_weight(name, w, bits, shape):
    """Raise ValueError unless w is a QTensor of int8 codes of shape and bits."""
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
    check_grid(along_axis(w.scale, codes, w.axis), torch.zeros(1), 0, 0)
