"""Networks are read, not assumed: chains of many kinds, and what is refused."""

import random
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers import in_litert, in_onnx_runtime
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mnistq_helpers as mq

NAMES = ("conv1", "fc2", "output", "input", "a", "head", "body", "weight_", "x")


class Chain(nn.Module):
    """Modules and functions, one after the other; modules under nested names."""

    def __init__(self, works, nest):
        super().__init__()
        self.works = []
        for number, work in enumerate(works):
            if isinstance(work, nn.Module):
                home, name = self, NAMES[number % len(NAMES)]
                if nest and number % 3:  # two levels down
                    name = f"{name}{number}"
                    for level in ("block", "inner"):
                        if not hasattr(home, level):
                            home.add_module(level, nn.Module())
                        home = getattr(home, level)
                elif hasattr(home, name):
                    name = f"{name}{number}"
                home.add_module(name, work)
            self.works.append(work)

    def forward(self, x):
        for work in self.works:
            x = work(x)
        return x


RELU = (nn.ReLU(), F.relu, torch.relu, lambda x: x.relu())
FLATTEN = (
    nn.Flatten(),
    lambda x: torch.flatten(x, 1),
    lambda x: x.flatten(1),
    lambda x: x.view(x.size(0), -1),
    lambda x: x.reshape(x.shape[0], -1),
)


def random_works(pick):
    """Return the works of a chain that reads images [N, 1, 28, 28]."""
    works, channels, size = [], 1, [28, 28]
    for _ in range(pick.randint(0, 3)):
        kernel = [pick.randint(1, min(5, n)) for n in size]
        out = pick.randint(1, 9)
        works.append(nn.Conv2d(channels, out, kernel, bias=pick.random() < 0.7))
        channels, size = out, [n - k + 1 for n, k in zip(size, kernel, strict=True)]
        relu = [pick.choice(RELU)] if pick.random() < 0.8 else []
        pool = []
        for _ in range(pick.choice((0, 1, 1, 2))):
            kernel, stride = pick.randint(1, min(3, *size)), pick.randint(1, 3)
            options = {"kernel_size": kernel, "stride": stride}
            function = lambda x, options=options: F.max_pool2d(x, **options)  # noqa: E731
            pool.append(pick.choice((nn.MaxPool2d(**options), function)))
            size = [(n - kernel) // stride + 1 for n in size]
        both = [*relu, *pool] if pick.random() < 0.5 else [*pool, *relu]
        drop = [nn.Dropout(0.5)] if pick.random() < 0.3 else []
        works += both + drop
    if pick.random() < 0.9 or not works:
        works.append(pick.choice(FLATTEN))
        width = channels * size[0] * size[1]
        for _ in range(pick.randint(0 if channels > 1 else 1, 2)):
            out = pick.randint(2, 40)
            works.append(nn.Linear(width, out, bias=pick.random() < 0.7))
            works.append(pick.choice(RELU))
            width = out
        works.append(nn.Linear(width, 10))
        if pick.random() < 0.5:
            works.append(pick.choice((nn.LogSoftmax(1), lambda x: x.log_softmax(1))))
    return works


def random_chain(seed):
    """Return a chain in eval mode, all of it decided by seed."""
    pick = random.Random(seed)
    torch.manual_seed(seed)
    return Chain(random_works(pick), nest=pick.random() < 0.5).eval()


@pytest.fixture(scope="module")
def images():
    return mq.mnist(train=False)[0][:8]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from((8, 8, 4, 3, 1)), st.booleans())
def test_random_chains_are_the_same_in_both_runtimes(
    images, tmp_path_factory, seed, bits, per_channel
):
    net, folder = random_chain(seed), tmp_path_factory.mktemp("chain")
    ranges = mq.calibrate(net, images, "minmax")
    for requantize, run in (("float", in_onnx_runtime), ("fixed", in_litert)):
        options = {"per_channel": per_channel, "requantize": requantize}
        made = mq.quantize_net(net, ranges, bits, bits, **options)
        made.save(folder / "net.mnistq")
        qnet = mq.QuantizedNet.load(folder / "net.mnistq")
        codes = qnet.codes(images)
        for name, expected in made.codes(images).items():
            assert torch.equal(codes[name], expected)
        first, *later = codes
        entering = codes[first].reshape(images.shape)
        found = run(qnet, entering, folder / "net.file")
        assert list(found) == later
        for name in later:
            assert torch.equal(found[name].flatten(1), codes[name].flatten(1)), name
        logits = qnet(images)
        assert logits.shape == codes[later[-1]].shape


@pytest.mark.parametrize("seed", range(3))
def test_other_recipes_take_any_chain(images, seed):
    net = random_chain(seed)
    best = mq.quantize_best(net, images, 4, 4)
    assert best(images).shape == net(images).shape
    ranges = mq.calibrate(net, images, "minmax")
    qat = mq.QatNet(net, ranges, 4, 4).eval()
    exact = torch.log_softmax(qat.quantize("float")(images), 1)
    # Where a sum lies on a tie, another order of adding may choose the other code.
    assert (exact - qat(images)).abs().median() < 1e-4


class Example(nn.Module):
    """The network of PyTorch's own MNIST example."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def test_names_shapes_and_steps_are_the_networks_own(net, images):
    torch.manual_seed(0)
    example = Example()  # in train mode: its dropout is not run, its mode stays
    ranges = mq.calibrate(example, images)
    assert example.training
    assert list(ranges) == ["conv1", "conv2", "fc1", "fc2", "output"]
    shapes = mq.quantize_net(example, ranges).shapes
    assert [shapes[name] for name in ranges] == [
        (1, 28, 28),
        (32, 26, 26),
        (9216,),
        (128,),
        (10,),
    ]
    assert mq.read_layers(net) == dict(net.named_children())
    kinds = [type(part).__name__ for part in mq.read_parts(net)]
    assert kinds == ["Layer", "Layer", "Flatten", "Layer", "Layer"]


def test_the_tensor_that_enters_is_what_torch_hands_to_the_layer(net, images):
    for chain in (net, *map(random_chain, range(20))):
        seen, layers = {}, mq.read_layers(chain)
        for name, layer in layers.items():
            layer.register_forward_pre_hook(
                lambda _, x, name=name, seen=seen: seen.update({name: x[0]})
            )
        expected = chain(images)
        found = dict(seen)
        for layer in layers.values():
            layer._forward_pre_hooks.clear()
        entering = mq.activations(chain, images)
        *names, last = entering
        assert names == list(layers)
        for name in names:
            torch.testing.assert_close(entering[name], found[name])
        scores = entering[last]
        same = torch.allclose(scores, expected, atol=1e-5)
        assert same or torch.allclose(scores.log_softmax(1), expected, atol=1e-5)


def sequence(*works):
    return Chain([*works], nest=False)


class Joined(nn.Module):
    """The image and a convolution of it, joined by a function, and a linear layer."""

    def __init__(self, join):
        super().__init__()
        self.conv, self.end, self.join = nn.Conv2d(1, 1, 1), nn.LazyLinear(10), join
        self(torch.zeros(1, 1, 28, 28))

    def forward(self, x):
        return self.end(self.join(x, self.conv(x)).flatten(1))


class Two(Joined):
    def forward(self, x, y=None):
        return self.end(self.join(x, self.conv(x if y is None else y)).flatten(1))


class Both(Joined):
    def forward(self, x):
        return super().forward(x), x


def ended(*works):
    """Return a chain of works, flattening and a linear layer."""
    net = sequence(*works, nn.Flatten(), nn.LazyLinear(10))
    net(torch.zeros(1, 1, 28, 28))  # now it knows its width
    return net


def hooked():
    net = ended(nn.Conv2d(1, 2, 3))
    net.conv1.register_forward_hook(lambda module, x, y: 2 * y)
    return net


def poisoned():
    net = ended(conv())
    with torch.no_grad():
        net.conv1.weight[0, 0, 0, 0] = float("nan")
    return net


def twice():
    conv = nn.Conv2d(1, 1, 3)
    return ended(conv, conv)


def conv(**options):
    return nn.Conv2d(1, 2, 3, **options)


REFUSED = {
    "a Tanh, cannot": lambda: ended(conv(), nn.Tanh()),
    "sigmoid .*cannot be quantized": lambda: ended(conv(), torch.sigmoid),
    "conv1 has dilation": lambda: ended(conv(dilation=2)),
    "padding_mode 'reflect'": lambda: ended(conv(padding=1, padding_mode="reflect")),
    'padding "same" with a kernel of .4, 3.': lambda: ended(
        nn.Conv2d(1, 2, (4, 3), padding="same")
    ),
    "fc2, a BatchNorm1d, follows no Linear": lambda: sequence(
        nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10)
    ),
    "keeps no running statistics": lambda: ended(
        conv(), nn.BatchNorm2d(2, track_running_stats=False)
    ),
    "fc2 is used twice: give each use its own": lambda: ended(
        conv(), *[nn.BatchNorm2d(2)] * 2
    ),
    "fc2 clamps to -1.0..1.0: only": lambda: ended(conv(), nn.Hardtanh()),
    "a PReLU, cannot": lambda: ended(conv(), nn.PReLU()),
    "divisor_override": lambda: ended(conv(), nn.AvgPool2d(2, divisor_override=3)),
    "averages .26, 26. to .4, 4.": lambda: ended(conv(), nn.AdaptiveAvgPool2d(4)),
    "only the mean over an image": lambda: ended(conv(), lambda x: x.mean(1, True)),
    r"mul \(at mul\) cannot": lambda: Joined(lambda x, y: x * y),
    r"sub \(at sub\) cannot": lambda: Joined(lambda x, y: x - y),
    "add reads something else .*a constant": lambda: Joined(lambda x, y: y + 1),
    "add with alpha": lambda: Joined(lambda x, y: torch.add(x, y, alpha=2)),
    "add adds tensors of shapes .1, 28, 28. and .1, 1, 1.": lambda: Joined(
        lambda x, y: x + F.adaptive_avg_pool2d(y, 1)
    ),
    "cat along 2: only along 1": lambda: Joined(lambda x, y: torch.cat([x, y], 2)),
    "y is a second input": lambda: Two(torch.add),
    "returns more than one tensor": lambda: Both(torch.add),
    "returns a dict: return one tensor": lambda: sequence(
        *ended().works, lambda x: {"scores": x}
    ),
    "dropout is on in eval mode, too": lambda: ended(conv(), F.dropout),
    "a DataParallel: give the one in it, .module": lambda: nn.DataParallel(ended()),
    "a OptimizedModule: give the one in it, ._orig_mod": lambda: torch.compile(ended()),
    "give the one that was scripted": lambda: torch.jit.ScriptModule(),
    "ceil_mode": lambda: ended(conv(), nn.MaxPool2d(3, ceil_mode=True)),
    "padding or dilation": lambda: ended(conv(), nn.MaxPool2d(2, padding=1)),
    "no Conv2d or Linear": lambda: sequence(nn.Flatten()),
    "used twice": twice,
    "follows log_softmax": lambda: sequence(
        *ended().works, nn.LogSoftmax(1), nn.ReLU()
    ),
    "only flattening each image": lambda: sequence(
        lambda x: x.view(-1, 28), nn.Linear(28, 10)
    ),
    r"call_module \S+ to \(1, 1, 784\): only flatt": lambda: sequence(
        nn.Flatten(2), nn.Linear(784, 10)
    ),
    "along 0: use dim=1": lambda: sequence(*ended().works, nn.LogSoftmax(0)),
    r"weight contains NaN": poisoned,
    "a builtin_function_or_method: give an nn.Module": lambda: torch.relu,
    "flatten it first": lambda: sequence(nn.Linear(28, 10)),
    "branches or loops that depend on the data": lambda: Joined(
        lambda x, y: x if x.sum() > 0 else y
    ),
    "something else than conv1, Flatten, output": hooked,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_known_is_named(images, reason):
    net = REFUSED[reason]()
    with pytest.raises(ValueError, match=reason):
        mq.calibrate(net, images)


def test_other_ways_to_write_the_same_are_read(images):
    def scores(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch guesses dim=1
            return F.log_softmax(x)

    def dropout(x):
        return F.dropout2d(x, 0.5, False)

    works = [conv(), torch.relu_, dropout, lambda x: x.float(), nn.Flatten()]
    net = sequence(*works, nn.LazyLinear(10), scores)
    net(images)
    first, *_ = mq.read_parts(net, images)
    assert first.relu


def test_images_that_do_not_fit_are_named(net, images):
    with pytest.raises(ValueError, match=r"shape \(8, 1, 20, 20\) do not fit"):
        mq.read_parts(net, images[..., :20, :20])
