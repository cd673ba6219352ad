"""The network on codes: against numpy's integers, and what is refused."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from helpers import GOOD, LAYERS, NAMES

import mnistq_helpers as mq


def by_the_book(net, ranges, images, weight_bits, act_bits, per_channel):
    """The codes entering each layer and of the logits, in numpy, from the text alone.

    Rounding is "float": int64 accumulators by a plain sum over the kernel's positions,
    float32 multiplier.
    """

    def grid(name):
        bits = 8 if name == "output" else act_bits
        low, high = (float(v) for v in ranges[name])
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / (2**bits - 1)
        zero = min(max(round(-low / scale), 0), 2**bits - 1)
        return np.float32(scale), zero, 2**bits - 1

    scale, zero, qmax = grid("conv1")
    x = np.clip(np.rint(images.numpy() / scale) + zero, 0, qmax).astype(np.int64)
    codes = {"conv1": x}
    for name, following in itertools.pairwise(NAMES):
        w = getattr(net, name).weight.detach().numpy()
        b = getattr(net, name).bias.detach().numpy().astype(np.float64)
        size = np.abs(w).reshape(len(w), -1)
        if weight_bits == 1:
            s_w = size.mean(1, dtype=np.float32) if per_channel else size.mean()
            s_w = np.float32(s_w)
            q_w = np.where(w < 0, -1, 1).astype(np.int64)
        else:
            largest = size.max(1) if per_channel else size.max()
            s_w = (largest.astype(np.float64) / (2 ** (weight_bits - 1) - 1)).astype(
                np.float32
            )
            shape = (-1, *[1] * (w.ndim - 1)) if per_channel else ()
            q_w = np.rint(w / s_w.reshape(shape)).astype(np.int64)
        s_acc = (scale * s_w).astype(np.float32)
        bias = np.rint(b / s_acc.astype(np.float64)).astype(np.int64)
        x = x - zero
        if w.ndim == 4:
            side = x.shape[2] - 4
            acc = np.zeros((len(x), len(w), side, side), np.int64)
            for i in range(5):
                for j in range(5):
                    window = x[:, :, i : i + side, j : j + side]
                    acc += np.einsum("nchw,oc->nohw", window, q_w[:, :, i, j])
            acc += bias.reshape(1, -1, 1, 1)
        else:
            acc = x.reshape(len(x), -1) @ q_w.T + bias
        next_scale, zero, qmax = grid(following)
        multiplier = np.broadcast_to((s_acc / next_scale).astype(np.float32), len(w))
        multiplier = multiplier.reshape(-1, *[1] * (acc.ndim - 2))
        y = np.rint(acc.astype(np.float32) * multiplier) + zero
        y = np.clip(y, 0 if following == "output" else zero, qmax).astype(np.int64)
        if w.ndim == 4:  # pooled after requantization, where the helper pools before
            n, c, h, _ = y.shape
            y = y.reshape(n, c, h // 2, 2, h // 2, 2).max((3, 5))
        codes[following] = x = y.reshape(len(y), -1) if following == "fc1" else y
        scale = next_scale
    return codes, scale, zero


def assert_by_the_book(net, ranges, images, *bits):
    qnet = mq.quantize_net(net, ranges, *bits, requantize="float")
    expected, scale, zero = by_the_book(net, ranges, images, *bits)
    ours = qnet.codes(images)
    assert list(ours) == list(NAMES)
    for name in NAMES:
        assert ours[name].dtype == torch.uint8
        shaped = ours[name].reshape(expected[name].shape).long()
        assert torch.equal(shaped, torch.from_numpy(expected[name])), name
    logits = scale * (expected["output"] - zero).astype(np.float32)
    assert torch.equal(qnet(images), torch.from_numpy(logits))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize("act_bits", [1, 2, 4, 8])
def test_codes_equal_plain_integers(
    net, ranges, test_set, weight_bits, act_bits, per_channel
):
    assert_by_the_book(net, ranges, test_set[0][:8], weight_bits, act_bits, per_channel)


def test_accumulators_beyond_24_bits_are_exact(random_net, test_set):
    """Weights that are all large: float32 could not hold the sums of 800 products."""
    with torch.no_grad():
        for parameter in random_net.parameters():
            parameter.copy_(parameter.sign() * 0.1 + 1)
    ranges = dict.fromkeys(NAMES, (0.0, 1.0)) | {"conv1": (-1.0, 1.0)}
    assert_by_the_book(random_net, ranges, test_set[0][:4].abs(), 8, 8, True)


def test_bits_by_name(net, ranges, test_set):
    images = test_set[0][:50]
    one = mq.quantize_net(net, ranges, 4, 5)
    weights = dict.fromkeys(LAYERS, 4)
    acts = dict.fromkeys(LAYERS, 5)
    same = mq.quantize_net(net, ranges, weights, acts)
    assert torch.equal(one(images), same(images))
    named = mq.quantize_net(net, ranges, weights, acts | {"output": 3})
    assert int(named.codes(images)["output"].max()) <= 7
    assert int(one.codes(images)["output"].max()) > 7


def test_the_float_network_is_only_read(net, ranges, test_set):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    qnet = mq.quantize_net(net, ranges)
    qnet(test_set[0][:10])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_from_outside_are_used_as_they_are(bits, random_net, test_set):
    images, outside = test_set[0][:5], {}
    for name in ("conv2", "fc2"):
        w = mq.quantize_weight(getattr(random_net, name).weight.detach(), bits)
        outside[name] = w._replace(tensor=-w.tensor)
    ranges = dict.fromkeys(NAMES, (-4.0, 4.0))
    qnet = mq.quantize_net(random_net, ranges, bits, weights=outside)
    with torch.no_grad():
        for name in outside:
            getattr(random_net, name).weight.neg_()
    mirrored = mq.quantize_net(random_net, ranges, bits)
    assert torch.equal(qnet.layers["conv2"].weight, mirrored.layers["conv2"].weight)
    assert torch.equal(qnet(images), mirrored(images))


def test_fixed_is_the_default_and_reads_mnist(net, ranges, test_set):
    qnet = mq.quantize_net(net, ranges)
    assert all(layer.multiplier is None for layer in qnet.layers.values())
    images, labels = test_set[0][:2000], test_set[1][:2000]
    floats = mq.quantize_net(net, ranges, requantize="float")
    assert all(layer.m0 is None for layer in floats.layers.values())
    assert mq.evaluate(qnet, images, labels) >= mq.evaluate(net, images, labels) - 0.002
    found, others = qnet.codes(images), floats.codes(images)
    for name in NAMES:
        difference = (found[name].int() - others[name].int()).abs()
        assert int(difference.max()) <= 2


def test_batches_do_not_matter(net, ranges, test_set):
    qnet, images = mq.quantize_net(net, ranges), test_set[0][:230]
    logits = qnet(images)
    assert torch.equal(logits, torch.cat([qnet(x) for x in images.split(1)]))
    codes = qnet.codes(images)
    last = qnet.codes(images[200:])
    assert all(torch.equal(codes[n][200:], last[n]) for n in NAMES)
    shapes = {n: tuple(c.shape[1:]) for n, c in codes.items()}
    assert list(shapes.values()) == [
        (1, 28, 28),
        (20, 12, 12),
        (800,),
        (500,),
        (10,),
    ]


def test_a_network_is_changed_by_replacing_its_steps(net, ranges, test_set):
    qnet, images = mq.quantize_net(net, ranges), test_set[0][:5]
    steps = [
        replace(step, bias=step.bias * 0)
        if isinstance(step, mq.QuantizedLayer)
        else step
        for step in qnet.steps
    ]
    other = replace(qnet, steps=tuple(steps))
    assert not torch.equal(other(images), qnet(images))
    assert other.names == qnet.names == NAMES and list(other.layers) == list(LAYERS)
    assert torch.equal(other.codes(images)["conv1"], qnet.codes(images)["conv1"])
    assert (qnet.in_shape, qnet.in_bits, qnet.requantize) == ((1, 28, 28), 8, "fixed")
    with pytest.raises(FrozenInstanceError):
        qnet.in_bits = 4


def test_one_bit_holds_minus_one_and_one(random_net):
    """The codes of 0 and of what is not negative are 1; mean|w| counts all."""
    w = torch.tensor([[0.0, 0.5, -1.5], [0.0, 0.0, 0.0], [-0.0, -1e-30, 3.0]])
    q = mq.quantize_weight(w, 1)
    assert q.tensor.tolist() == [[1, 1, -1], [1, 1, 1], [1, -1, 1]]
    assert q.tensor.dtype == torch.int8 and q.axis == 0
    assert q.scale[[0, 2]].tolist() == pytest.approx([2 / 3, 1])
    assert 0 < float(q.scale[1]) < 1e-37  # a scale must be positive
    assert q.zero_point.tolist() == [0, 0, 0]
    whole = mq.quantize_weight(w, 1, per_channel=False)
    assert torch.equal(whole.tensor, q.tensor) and whole.axis is None
    assert float(whole.scale) == pytest.approx(5 / 9) and int(whole.zero_point) == 0
    with torch.no_grad():
        random_net.fc2.weight[0, :100] = 0
        random_net.conv1.weight[1] = 0
    qnet = mq.quantize_net(random_net, GOOD, 1)
    for layer in qnet.layers.values():
        assert set(layer.weight.unique().tolist()) == {-1, 1}


@pytest.mark.parametrize("bits", range(2, 9))
def test_more_bits_are_symmetric_to_their_largest_weight(bits):
    w = torch.tensor([[0.0, 0.5, -1.5], [0.0, 0.0, 0.0], [-0.25, 0.125, 3.0]])
    q, top = mq.quantize_weight(w, bits), 2 ** (bits - 1) - 1
    assert q.scale.tolist() == pytest.approx([1.5 / top, 1, 3 / top])
    assert q.tensor[:, 2].tolist() == [-top, 0, top] and not bool(q.zero_point.any())
    whole = mq.quantize_weight(w, bits, per_channel=False)
    assert whole.scale == pytest.approx(3 / top) and whole.axis is None
    if bits == 8:
        assert torch.equal(mq.quantize_weight(w).tensor, q.tensor)
        assert torch.equal(mq.quantize_weight(w).scale, q.scale)


def test_8_bits_lose_at_most_a_tenth_of_a_point(net, ranges, test_set):
    accuracy = mq.evaluate(mq.quantize_net(net, ranges), *test_set)
    assert accuracy >= mq.evaluate(net, *test_set) - 0.001


def test_nbytes(net, ranges):
    """Weights at their bits, 4 + 4 bytes for each of 580 outputs, 5 for each tensor."""
    weights = (20 * 25, 50 * 500, 500 * 800, 10 * 500)
    rest = 580 * (4 + 4) + 5 * 5
    for bits in range(1, 9):
        qnet = mq.quantize_net(net, ranges, bits, requantize="float")
        packed = sum(math.ceil(n * bits / 8) for n in weights)
        assert qnet.nbytes == packed + rest
    float_bytes = sum(p.numel() * 4 for p in net.parameters())
    assert float_bytes / mq.quantize_net(net, ranges).nbytes > 3.9


def weighted(net, bits=4, **change):
    """quantize_net with fc2's own weights, some of their fields changed."""
    w = mq.quantize_weight(net.fc2.weight.detach(), bits)._replace(**change)
    return mq.quantize_net(net, GOOD, bits, weights={"fc2": w})


@pytest.mark.parametrize("method", ["__call__", "codes"])
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(1, 784), "use .N, 1, 28, 28."),
        (torch.zeros(2, 28, 28), "use .N, 1, 28, 28."),
        (torch.zeros(2, 1, 28, 27), "use .N, 1, 28, 28."),
        (torch.zeros(0, 1, 28, 28), "empty"),
        (torch.full((1, 1, 28, 28), math.inf), "NaN or infinity"),
        (torch.full((1, 1, 28, 28), math.nan), "NaN or infinity"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), "give floats"),
    ],
)
def test_images_that_do_not_fit_are_refused(random_net, method, images, words):
    qnet = mq.quantize_net(random_net, GOOD)
    with pytest.raises(ValueError, match=words):
        getattr(qnet, method)(images)
    one = torch.zeros(3, 1, 28, 28)
    one[1, 0, 5, 5] = math.nan  # in one of many
    with pytest.raises(ValueError, match="NaN"):
        getattr(qnet, method)(one)


def changed(code, bits):
    """quantize_net with one code of fc2's own weights changed."""

    def call(net):
        w = mq.quantize_weight(net.fc2.weight.detach(), bits)
        w.tensor[4, 7] = code
        return mq.quantize_net(net, GOOD, bits, weights={"fc2": w})

    return call


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: mq.quantize_net(n, {"conv1": (0, 1)}), "give conv1, conv2"),
        (lambda n: mq.quantize_net(n, GOOD | {"fc1": (2, 1)}), "fc1: .*swap"),
        (lambda n: mq.quantize_net(n, GOOD | {"fc1": (0, 1e39)}), "fc1.*float32"),
        (lambda n: mq.quantize_net(n, GOOD | {"fc1": (-1e39, 0)}), "fc1.*float32"),
        (lambda n: mq.quantize_net(n, GOOD, np.int64(9)), "1 to 8"),
        (lambda n: mq.quantize_net(n, GOOD, np.bool_(1)), "from 1 to 16"),
        (lambda n: mq.quantize_net(n, GOOD | {"fc1": (0, float("inf"))}), "not finite"),
        (lambda n: mq.quantize_net(n, GOOD, weight_bits=0), "from 1 to 16"),
        (lambda n: mq.quantize_net(n, GOOD, weight_bits=9), "1 to 8"),
        (lambda n: mq.quantize_net(n, GOOD, act_bits=2.5), "from 1 to 16"),
        (lambda n: mq.quantize_net(n, GOOD, act_bits={"conv1": 8}), "name conv1"),
        (lambda n: mq.quantize_net(n, GOOD, weight_bits={"conv3": 8}), "name conv1"),
        (lambda n: mq.quantize_net(n, GOOD, requantize="int"), "requantize is 'int'"),
        (lambda n: weighted(n, tensor=torch.full((10, 500), 8).char()), "-8 to 7"),
        (lambda n: weighted(n, tensor=torch.full((10, 500), -9).char()), "-8 to 7"),
        (lambda n: weighted(n, 1, tensor=torch.zeros(10, 500).char()), "1 bits hold"),
        (changed(8, 4), "-8 to 7"),
        (changed(-9, 4), "-8 to 7"),
        (changed(2, 2), "from -2 to 1, as 2 bits"),
        (changed(0, 1), "from -1 to 1, as 1 bits"),
        (changed(2, 1), "from -1 to 1, as 1 bits"),
        (changed(-2, 1), "from -1 to 1, as 1 bits"),
        (lambda n: weighted(n, tensor=torch.ones(10, 500)), "give int8"),
        (lambda n: weighted(n, tensor=torch.ones(500, 10).char()), "10, 500"),
        (lambda n: weighted(n, zero_point=torch.arange(10)), "zero point other"),
        (lambda n: mq.quantize_net(n, GOOD, weights={"fc3": None}), "name conv1"),
        (lambda n: weighted(n, scale=torch.zeros(10)), "positive and finite"),
        (lambda n: weighted(n, scale=torch.ones(11)), "does not fit"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(net, call, words):
    with pytest.raises(ValueError, match=words):
        call(net)


@pytest.mark.parametrize(("bits", "code"), [(4, 7), (4, -8), (2, -2), (1, -1), (1, 1)])
def test_the_codes_at_the_ends_are_allowed(random_net, bits, code):
    assert int(changed(code, bits)(random_net).layers["fc2"].weight[4, 7]) == code


def test_a_network_with_nan_is_refused(random_net):
    with torch.no_grad():
        random_net.fc1.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        mq.quantize_net(random_net, GOOD)


def test_numpys_whole_numbers_are_bits(net, ranges, test_set):
    images = test_set[0][:20]
    qnet = mq.quantize_net(net, ranges, np.int64(4), np.uint8(3))
    assert torch.equal(qnet(images), mq.quantize_net(net, ranges, 4, 3)(images))
    assert type(qnet.in_bits) is int and type(qnet.layers["fc1"].weight_bits) is int


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("requantize", ["fixed", "float"])
def test_torchs_default_type_does_not_matter(
    requantize, net, ranges, test_set, float64_by_default, tmp_path
):
    images = test_set[0][:20]
    qnet = mq.quantize_net(net, ranges, requantize=requantize)
    export = mq.export_tflite if requantize == "fixed" else mq.export_onnx
    export(qnet, tmp_path / "float64")
    torch.set_default_dtype(torch.float32)
    wanted = mq.quantize_net(net, ranges, requantize=requantize)
    assert torch.equal(qnet(images), wanted(images))
    export(wanted, tmp_path / "float32")
    assert (tmp_path / "float64").read_bytes() == (tmp_path / "float32").read_bytes()


@pytest.mark.parametrize("value", [0.0, 1e-20, 1e-9])
@pytest.mark.parametrize(
    ("bits", "per_channel"),  # one scale for a layer and 1 bit: no code is 0
    [(8, True), (4, True), (2, True), (1, True), (8, False), (2, False)],
)
@pytest.mark.parametrize("requantize", ["fixed", "float"])
def test_a_silent_channel_gives_its_bias(
    value, bits, per_channel, requantize, test_set
):
    """Weights of (nearly) 0, whose own scale would leave the bias no room in int32."""
    net, images = mq.load_net(), test_set[0][:20]
    for name in ("conv1", "conv2", "fc1", "fc2"):
        layer = net.get_submodule(name)
        with torch.no_grad():
            layer.weight[3] = value
            layer.bias[3] = 0.7
    qnet = mq.quantize_net(
        net, mq.calibrate(net, images), bits, 8, per_channel, requantize
    )
    codes = qnet.codes(images)
    for layer in qnet.layers.values():
        wanted = round(0.7 / layer.out_scale) + layer.out_zero_point
        channel = codes[layer.output if layer.output in codes else "fc1"]
        channel = channel.reshape(20, len(layer.weight), -1)[:, 3]
        assert channel.unique().tolist() == [wanted]
