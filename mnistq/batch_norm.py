"""Batch norm folded into the layer before it. Notebook 08 teaches the formula."""

import torch
from torch import nn

NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def fold_batch_norms(traced):
    """Fold each batch norm of a network, in place; return {name: what it became}.

    w' = w * gamma / sigma, b' = (b - mean) * gamma / sigma + beta, for each channel. A
    BatchNorm2d that follows no convolution becomes one of its own, of a single weight
    for each channel. What was a batch norm is now an Identity. traced: of torch.fx, in
    eval mode.
    Raises ValueError for a batch norm without statistics, or with nowhere to go.
    Source: Jacob et al. 2017, section 3.2. The formula is taught in notebook 08.
    """
    folded = {}
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    targets = [call.target for call in calls]
    for node in calls:
        norm = traced.get_submodule(node.target)
        if isinstance(norm, NORMS):
            if targets.count(node.target) > 1:
                raise ValueError(f"{node.target} is used twice: give each use its own.")
            alone = [t for t in targets if targets.count(t) == 1]
            changed = _folded(traced, node, norm, alone)
            for name, module in changed.items():
                traced.set_submodule(name, module)
            folded |= changed
    return folded


def _folded(traced, node, norm, alone):
    """Return {name: module} of what a batch norm at node changes; alone: used once."""
    factor, shift = _line(node.target, norm)
    before = node.args[0]
    if before.op == "call_module" and before.target in alone and len(before.users) == 1:
        layer = traced.get_submodule(before.target)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer = _fold(layer, factor, shift)
            return {before.target: layer, node.target: nn.Identity()}
    if isinstance(norm, nn.BatchNorm2d):
        return {node.target: _convolution(factor, shift)}
    raise ValueError(
        f"{node.target}, a BatchNorm1d, follows no Linear: only there it can be folded."
    )


def _line(name, norm):
    """Return (factor, shift): what a batch norm does is factor * x + shift."""
    if norm.running_mean is None:
        raise ValueError(
            f"{name} keeps no running statistics: it normalises each batch by itself, "
            "which depends on the data."
        )
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    factor = 1 / (variance + norm.eps).sqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    beta = 0 if norm.bias is None else norm.bias.detach().double()
    return factor, beta - mean * factor


def _fold(layer, factor, shift):
    """Return layer with factor * y + shift in place of its result y."""
    w = layer.weight.detach()
    bias = shift if layer.bias is None else shift + factor * layer.bias.detach()
    rows = factor.reshape(-1, *[1] * (w.dim() - 1))
    layer.weight = nn.Parameter((w.double() * rows).to(w.dtype))
    layer.bias = nn.Parameter(bias.to(w.dtype))
    return layer


def _convolution(factor, shift):
    """Return the convolution of a single weight for each channel that does the same."""
    channels = len(factor)
    conv = nn.Conv2d(channels, channels, 1, groups=channels).to(factor.device)
    with torch.no_grad():
        conv.weight.copy_(factor.reshape(-1, 1, 1, 1))
        conv.bias.copy_(shift)
    return conv
