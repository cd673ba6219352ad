"""Networks are read, not assumed: chains of many kinds, and what is refused."""

import random

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter, OpResolverType
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


def channels_first(codes):
    """Return uint8 codes, [N, channels, ...], of LiteRT's int8 ones."""
    codes = torch.from_numpy(codes).view(torch.uint8) ^ 128
    return codes.movedim(-1, 1)


def in_onnx_runtime(qnet, codes, path):
    mq.export_onnx(qnet, path)
    session = ort.InferenceSession(path)
    names = [port.name for port in session.get_outputs()]
    feed = {session.get_inputs()[0].name: codes.numpy()}
    found = session.run(names, feed)
    return dict(zip(names, map(torch.from_numpy, found), strict=True))


def in_litert(qnet, codes, path):
    mq.export_tflite(qnet, path)
    interpreter = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    nhwc = np.ascontiguousarray((codes ^ 128).view(torch.int8).movedim(1, -1).numpy())
    interpreter.resize_tensor_input(0, nhwc.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, nhwc)
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {
        d["name"]: channels_first(interpreter.get_tensor(d["index"])) for d in details
    }


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


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.end = nn.Conv2d(1, 1, 1), nn.Linear(784, 10)

    def forward(self, x):
        return self.end((x + self.conv(x)).flatten(1))


class Branch(Residual):
    def forward(self, x):
        return self.end((self.conv(x) if x.sum() > 0 else x).flatten(1))


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
    "BatchNorm2d, cannot .*Fold a batch norm": lambda: ended(conv(), nn.BatchNorm2d(2)),
    r"stride \(2, 2\)": lambda: ended(conv(stride=2)),
    "padding": lambda: ended(conv(padding=1)),
    "dilation": lambda: ended(conv(dilation=2)),
    "groups 2": lambda: ended(conv(), nn.Conv2d(2, 2, 1, groups=2)),
    "ceil_mode": lambda: ended(conv(), nn.MaxPool2d(3, ceil_mode=True)),
    "padding or dilation": lambda: ended(conv(), nn.MaxPool2d(2, padding=1)),
    "before the first layer": lambda: ended(nn.ReLU()),
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
    "only a chain": Residual,
    "branches or loops that depend on the data": Branch,
    "something else than conv1, Flatten, output": hooked,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_known_is_named(images, reason):
    net = REFUSED[reason]()
    with pytest.raises(ValueError, match=reason):
        mq.calibrate(net, images)


def test_images_that_do_not_fit_are_named(net, images):
    with pytest.raises(ValueError, match=r"shape \(8, 1, 20, 20\) do not fit"):
        mq.read_parts(net, images[..., :20, :20])
