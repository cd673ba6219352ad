"""Training that rounds: fake quantization, learned steps. Notebook 08."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from mnistq.data import IMAGE_SHAPE, ROOT
from mnistq.integer import check_ranges, quantize_net
from mnistq.layers import read_parts, tensor_names, without_batch_norms
from mnistq.network import evaluate
from mnistq.parts import Layer, tensor_groups
from mnistq.quantizers import (
    along_axis,
    bits_by_name,
    calc_scale_zero_point,
    check_images,
    code_range,
    dequantize_tensor,
    quantize_tensor,
)
from mnistq.weights import quantize_weight

LOW_BITS = ROOT / "data" / "low_bits"  # networks that tools/train_low_bits.py made


class StraightThrough(torch.autograd.Function):
    """x_hat forwards, dL/dx = dL/dx_hat backwards: as if rounding were the identity.

    apply(x, x_hat), of one shape. Source: Bengio et al. 2013 (arXiv 1308.3432),
    section 4. Taught in notebook 08.
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
    Source: Esser et al. 2019 (arXiv 1902.08153), section 2. Taught in notebook 08.
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
        s, z = along_axis(scale, x, axis), along_axis(zero_point, x, axis)
        q = torch.round(x / s) + z
        inside = (q >= qmin) & (q <= qmax)
        slope = grad * (x_hat - torch.where(inside, x, 0)) / s
        rest = [i for i in range(x.dim()) if i != axis]
        factor = math.sqrt(max(qmax, 1) * x.numel() / scale.numel())
        grads = [torch.where(inside, grad, 0), slope.sum(rest) / factor]
        return *grads, None, None, None, None


class MovingRange(nn.Module):
    """Fake quantization on the range ema <- decay * ema + (1 - decay) * batch's range.

    Only in train mode the range moves, and for the first delay batches nothing is
    quantized. bits; low, high: the first range. grid_range() returns (low, high).
    Source: Jacob et al. 2017, section 3.1. Taught in notebook 08.
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
    Source: Esser et al. 2019, section 2. Taught in notebook 08.
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
    """A network that computes in floats what its QuantizedNet will do in integers.

    net: what read_parts can read, copied, its batch norms folded before training;
    ranges: calibrate's; weight_bits, act_bits: 1 to 8, the input and the logits keeping
    8; activation: LearnedStep or MovingRange, made as activation(bits, low, high) for
    each tensor between input and logits that comes from a ReLU; else MovingRange. The
    weights' scales are learned, one for each output, from 2 * mean|w| / sqrt(qmax) on;
    at 1 bit they are mean|w|.
    forward: images [N, *in_shape] -> log-probabilities [N, 10].
    Source: Jacob et al. 2017, section 3; Esser et al. 2019. Taught in notebook 08.
    """

    def __init__(
        self,
        net,
        ranges,
        weight_bits,
        act_bits,
        activation=LearnedStep,
        in_shape=IMAGE_SHAPE,
    ):
        super().__init__()
        self.net, self.in_shape = without_batch_norms(net), tuple(in_shape)
        self.parts = read_parts(self.net, in_shape=in_shape)
        self.groups = tensor_groups(self.parts, Layer)
        first, *_, last = names = tensor_names(self.parts)
        check_ranges(ranges, names)
        bits_by_name({"weights": weight_bits, "codes": act_bits}, ("weights", "codes"))
        self.weight_bits, self.act_bits = weight_bits, act_bits
        self.first, self.last, self.in_range = first, last, ranges[first]
        self.enter, self.steps = nn.ModuleDict(), nn.ParameterDict()
        for part in self.parts:
            name = self.groups[part.output]
            if not part.keeps_grid:
                kind = activation if part.relu and name != last else MovingRange
                bits = 8 if name == last else act_bits
                self.enter[_key(name)] = kind(bits, *ranges[name])
        layers = [part for part in self.parts if isinstance(part, Layer)]
        for layer in layers if weight_bits > 1 else []:
            _, qmax = code_range(weight_bits, signed=True)
            size = layer.module.weight.detach().abs().flatten(1).mean(1)
            self.steps[_key(layer.name)] = nn.Parameter(2 * size / math.sqrt(qmax))

    def parameters_of(self, layer):
        """Return a Layer's weight and bias (or None) on their grids."""
        w, b = layer.module.weight, layer.module.bias
        w_scale = self.steps.get(_key(layer.name))
        if w_scale is not None:
            zero = torch.zeros_like(w_scale)
            w_hat = FakeQuantize.apply(w, w_scale, zero, self.weight_bits, True, 0)
        else:
            q = quantize_weight(w.detach(), self.weight_bits)
            w_scale, w_hat = q.scale, StraightThrough.apply(w, dequantize_tensor(q))
        if b is None:
            return w_hat, None
        ends, in_bits, entering = self.in_range, 8, self.groups[layer.inputs[0]]
        if entering != self.first:
            ends = self.enter[_key(entering)].grid_range()
            in_bits = self.act_bits
        in_scale, _ = calc_scale_zero_point(*ends, in_bits)
        acc_scale = in_scale * w_scale.detach()
        b_hat = torch.round(b.detach() / acc_scale) * acc_scale
        return w_hat, StraightThrough.apply(b, b_hat)

    def forward(self, x):
        check_images(x, self.in_shape)
        scale, zero_point = calc_scale_zero_point(*self.in_range)
        x = dequantize_tensor(quantize_tensor(x, 8, scale, zero_point))
        tensors = {self.parts[0].inputs[0]: x}
        for part in self.parts:
            inputs = [tensors[name] for name in part.inputs]
            if isinstance(part, Layer):
                y = part.accumulate(*inputs, *self.parameters_of(part))
                y = part.finish(y)
            else:
                y = part(*inputs)
            if not part.keeps_grid:
                y = self.enter[_key(self.groups[part.output])](y)
            tensors[part.output] = y
        return F.log_softmax(y, dim=1)

    def quantize(self, requantize="fixed"):
        """Return the QuantizedNet on the same grids."""
        weights, ranges = {}, {self.first: self.in_range}
        for layer in self.parts:
            if isinstance(layer, Layer) and _key(layer.name) in self.steps:
                step = self.steps[_key(layer.name)].detach()
                grid = (self.weight_bits, step, torch.zeros_like(step))
                w = layer.module.weight.detach()
                weights[layer.name] = quantize_tensor(w, *grid, signed=True, axis=0)
        names = tensor_names(self.parts)
        for name, step in zip(names[1:], self.enter.values(), strict=True):
            ranges[name] = step.grid_range()
        acts = dict.fromkeys(names, self.act_bits) | {self.first: 8, self.last: 8}
        return quantize_net(
            self.net,
            ranges,
            self.weight_bits,
            acts,
            requantize=requantize,
            weights=weights,
            in_shape=self.in_shape,
        )


def _key(name):
    """Return a layer's name as a key that torch's dicts of modules allow."""
    return name.replace(".", "/")


def fine_tune(
    model, images, labels, epochs=2, lr=0.03, shift=0, teacher=None, test=None
):
    """Train model in place by SGD with momentum 0.9 and lr falling to 0 on a cosine.

    model: a QatNet, or a network that returns log-probabilities; batches of 128 in a
    random order (torch's global seed).
    shift: each image moves by up to so many pixels, at random, each time it is seen.
    teacher: a Net whose probabilities are learned in place of the labels.
    Returns a list with a dict for each epoch: "losses" of the batches, "loss", their
    mean over the images, and "accuracy" on test.
    Source: Esser et al. 2019, section 3; Hinton et al. 2015 (arXiv 1503.02531).
    Taught in notebook 08.
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
            x = random_crops(padded[batch], images.shape[2])
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
    """Return a window of each image of x [N, channels, H, W], at a random place.

    size: its height; it is as much narrower than the image as it is lower.
    Taught in notebook 08.
    """
    spare = x.shape[2] - size
    top, left = torch.randint(0, spare + 1, (2, len(x), 1, 1))
    rows, columns = torch.arange(size)[:, None] + top, torch.arange(x.shape[3] - spare)
    images = torch.arange(len(x))[:, None, None]
    return x[images, :, rows, columns + left].movedim(-1, 1)
