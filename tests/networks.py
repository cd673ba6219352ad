"""Random networks with branches, batch norms, strides and other sizes of images."""

import random

import torch
import torch.nn.functional as F
from torch import nn

import mnistq_helpers as mq

RELUS = (nn.ReLU, nn.ReLU6, lambda: nn.Hardtanh(0, 1.5), nn.Identity)


class Function(nn.Module):
    """A function of one tensor as a module, which torch.fx looks into."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Residual(nn.Module):
    """act(body(x) + skip(x)), written in one of several ways."""

    def __init__(self, body, skip, act, way):
        super().__init__()
        self.body, self.skip, self.act, self.way = body, skip, act, way

    def forward(self, x):
        y, z = self.body(x), self.skip(x)
        if self.way == "inplace":
            y += z
        else:
            y = y + z if self.way == "plus" else torch.add(y, z)
        return self.act(y)


class Together(nn.Module):
    """Branches of one tensor, concatenated, and act."""

    def __init__(self, branches, act):
        super().__init__()
        self.branches, self.act = nn.ModuleList(branches), act

    def forward(self, x):
        return self.act(torch.cat([branch(x) for branch in self.branches], 1))


def convolution(pick, channels, out, stride=1, groups=1, kernel=None):
    """Return a convolution that keeps the size at stride 1, and its batch norm."""
    kernel = kernel or pick.choice(((3, 3), (1, 1), (5, 3), (1, 3)))
    padding = tuple(k // 2 for k in kernel)
    bias = pick.random() < 0.5
    conv = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=bias)
    return [conv, nn.BatchNorm2d(out)] if pick.random() < 0.7 else [conv]


def act(pick):
    return pick.choice(RELUS)()


def plain_block(pick, channels):
    """A convolution with any stride, padding and groups, and perhaps pooling."""
    groups = pick.choice([g for g in range(1, channels + 1) if channels % g == 0])
    out, stride = groups * pick.randint(1, 3), (pick.randint(1, 2), pick.randint(1, 2))
    conv, *norm = convolution(pick, channels, out, stride, groups)
    conv.padding = tuple(pick.randint(0, 2) for _ in range(2))
    pool = []
    if pick.random() < 0.4:
        pool = [nn.MaxPool2d(2, pick.randint(1, 2))]
    return nn.Sequential(conv, *norm, act(pick), *pool), out


def residual_block(pick, channels):
    out, stride = pick.choice(((channels, 1), (pick.randint(1, 6), pick.randint(1, 2))))
    body = [*convolution(pick, channels, out, stride), act(pick)]
    body += convolution(pick, out, out)
    skip = nn.Identity()
    if (out, stride) != (channels, 1):
        skip = nn.Sequential(*convolution(pick, channels, out, stride, kernel=(1, 1)))
    way = pick.choice(("plus", "inplace", "add"))
    return Residual(nn.Sequential(*body), skip, act(pick), way), out


def early_block(pick, channels):
    """A ReLU before the convolution, perhaps with batch norm, reads what is added."""
    body = [nn.BatchNorm2d(channels)] if pick.random() < 0.5 else []
    body.append(pick.choice(RELUS[:3])())
    body += convolution(pick, channels, channels)
    return Residual(nn.Sequential(*body), nn.Identity(), act(pick), "plus"), channels


def separable_block(pick, channels):
    multiplier = pick.randint(1, 2)
    wide, out = multiplier * channels, pick.randint(1, 6)
    body = convolution(pick, channels, wide, pick.randint(1, 2), channels, (3, 3))
    body += [nn.ReLU6(), *convolution(pick, wide, out, kernel=(1, 1)), act(pick)]
    return nn.Sequential(*body), out


def together_block(pick, channels):
    widths = [pick.randint(1, 4) for _ in range(pick.randint(1, 3))]
    branches = [
        nn.Sequential(*convolution(pick, channels, width), act(pick))
        for width in widths
    ]
    kept = pick.choice(([nn.Identity()], [nn.AvgPool2d(1, 1)], []))
    return Together([*branches, *kept], act(pick)), sum(widths) + channels * len(kept)


def average_block(pick, channels):
    pools = (
        nn.AvgPool2d(2),
        nn.AvgPool2d((2, 1), (1, 1)),
        Function(lambda x: F.avg_pool2d(x, 2, stride=1)),
        nn.MaxPool2d((2, 1), (1, 2)),
    )
    return nn.Sequential(pick.choice(pools), act(pick)), channels


BLOCKS = (
    plain_block,
    residual_block,
    early_block,
    separable_block,
    together_block,
    together_block,
    average_block,
)


def head(pick, channels):
    """Return modules from images of so many channels to three scores."""
    means = (
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        Function(lambda x: x.mean((2, 3))),
        Function(lambda x: torch.mean(x, dim=[-1, -2], keepdim=True).flatten(1)),
        Function(lambda x: F.adaptive_avg_pool2d(x, (1, 1)).view(x.size(0), -1)),
        nn.Sequential(nn.Flatten(), nn.LazyLinear(channels), nn.ReLU()),
    )
    scores = [nn.Linear(channels, 3)]
    if pick.random() < 0.3:
        scores = [nn.Linear(channels, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout()]
        scores.append(nn.Linear(5, 3))
    return [pick.choice(means), *scores]


def random_branches(seed, blocks=BLOCKS):
    """Return (network in eval mode, images): all of it decided by seed."""
    pick = random.Random(seed)
    torch.manual_seed(seed)
    shape = pick.choice((1, 3)), pick.randint(10, 18), pick.randint(10, 18)
    images = torch.randn(5, *shape)
    works, channels = [], shape[0]
    for _ in range(pick.randint(1, 3)):
        while True:  # until images are left
            work, out = pick.choice(blocks)(pick, channels)
            try:
                nn.Sequential(*works, work).eval()(images[:1])
            except RuntimeError:
                continue
            break
        works, channels = [*works, work], out
    net = nn.Sequential(*works, *head(pick, channels)).eval()
    net(images)  # now it knows its width
    shake(net)
    return net, images


def shake(net):
    """Give batch norms statistics and factors at random, negative ones among them."""
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                for values in (norm.weight, norm.bias, norm.running_mean):
                    values.copy_(torch.randn(values.shape))
                norm.running_var.copy_(torch.rand(norm.running_var.shape) + 0.3)


def quantized(seed, requantize, blocks=BLOCKS):
    """Return (network, QuantizedNet, images); bits and channels go by the seed too."""
    net, images = random_branches(seed, blocks)
    ranges, pick = mq.calibrate(net, images, "minmax"), random.Random(seed)
    for name, (low, high) in ranges.items():
        # Below 0 also after a ReLU, so that the zero point is not 0; some is clipped.
        low, high = min(low, 0), max(high, 0) * (0.5 + pick.random())
        ranges[name] = (low - high * pick.choice((0, pick.random())), high)
    options = {"per_channel": seed % 2 == 0, "requantize": requantize}
    bits, shape = (8, 4, 3)[seed // 2 % 3], images.shape[1:]
    return (
        net,
        mq.quantize_net(net, ranges, bits, bits, in_shape=shape, **options),
        images,
    )
