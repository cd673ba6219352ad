"""Residual, separable and joined networks: both runtimes give the same codes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import in_litert, in_onnx_runtime, tflite_multiply
from networks import Together, quantized, random_branches, shake
from test_c_file import CHECKED, in_c
from test_mnistq_file import join, refused, split
from torch import nn

import mnistq_helpers as mq

SEEDS = range(40)
RUNTIMES = {"float": in_onnx_runtime, "fixed": in_litert}


@pytest.mark.parametrize("requantize", RUNTIMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_tensors_codes_are_the_runtimes(seed, requantize, tmp_path):
    _, made, images = quantized(seed, requantize)
    made.save(tmp_path / "net.mnistq")
    qnet = mq.QuantizedNet.load(tmp_path / "net.mnistq")
    assert qnet.nbytes == made.nbytes and qnet.shapes == made.shapes
    codes = made.codes(images, [made.in_name, *made.names])
    for name, loaded in qnet.codes(images).items():
        assert torch.equal(codes[name], loaded)
    entering = codes.pop(qnet.in_name)
    found = RUNTIMES[requantize](qnet, entering, tmp_path / "net.file")
    assert set(found) == set(codes)
    for name, expected in codes.items():
        assert torch.equal(found[name].flatten(1), expected.flatten(1)), name


def test_the_random_networks_hold_every_kind_of_step():
    made = [quantized(seed, "fixed")[1] for seed in SEEDS]
    steps = [step for qnet in made for step in qnet.steps]
    kinds = {type(step).__name__.removeprefix("Quantized") for step in steps}
    assert kinds == {"Layer", "Average", "Add", "Concat", "MaxPool", "Flatten"}
    layers = [step for step in steps if isinstance(step, mq.QuantizedLayer)]
    groups = [(s.groups, len(s.weight), s.weight.shape[1] * s.groups) for s in layers]
    assert any(1 < g < inputs for g, _, inputs in groups)
    assert any(1 < g == inputs < out for g, out, inputs in groups)  # a multiplier
    assert len({step.stride for step in layers}) == 4
    assert len({step.padding for step in layers}) > 5
    padded = [s for s in layers if any(s.padding)]
    assert len({s.in_zero_point for s in padded}) > 10
    for kind in (mq.QuantizedAdd, mq.QuantizedConcat, mq.QuantizedAverage):
        some = [step for step in steps if isinstance(step, kind)]
        assert any(s.low > 0 for s in some) and any(s.low == 0 for s in some)
        assert {s.out_bits for s in some} == {8, 4, 3}
    own = [s for s in steps if not s.keeps_grid]
    capped = {type(s) for s in own if s.high < 2**s.out_bits - 1}  # by a ReLU6
    assert capped >= {mq.QuantizedLayer, mq.QuantizedAdd, mq.QuantizedAverage}
    windows = {s.window[0] for s in steps if isinstance(s, mq.QuantizedAverage)}
    assert {(1, 1), (2, 2), (2, 1)} <= windows and len(windows) > 5
    adds = [s for s in steps if isinstance(s, mq.QuantizedAdd)]
    assert any(one < other for (one, _), (other, _) in (s.in_grids for s in adds))
    assert any(one > other for (one, _), (other, _) in (s.in_grids for s in adds))
    joined = [s for s in steps if isinstance(s, mq.QuantizedConcat)]
    assert {len(s.inputs) for s in joined} >= {1, 2, 3, 4}


@pytest.mark.parametrize("seed", range(12))
def test_the_parts_compute_what_the_network_computes(seed):
    net, images = random_branches(seed)
    with torch.inference_mode():
        *_, last = mq.activations(net, images).values()
        torch.testing.assert_close(last, net(images), rtol=1e-4, atol=1e-4)
    shape = images.shape[1:]
    fine = mq.calibrate(net, images, "minmax")
    error = mq.quantize_net(net, fine, in_shape=shape)(images) - net(images)
    coarse = mq.quantize_net(net, fine, 3, 3, in_shape=shape)(images) - net(images)
    assert error.square().mean() < 0.1 * coarse.square().mean()


# -- each kind of step against plain Python ------------------------------------------


def every_pair():
    """Return two int8 images [1, 256, 256, 1] that hold every pair of codes."""
    codes = torch.arange(-128, 128).to(torch.int8)
    one, other = torch.meshgrid(codes, codes, indexing="ij")
    return one[None, ..., None], other[None, ..., None]


GRIDS = [  # of two terms and of their sum
    ((0.031, 7), (0.0127, 200), (0.04, 90)),
    ((0.0004, 0), (0.9, 255), (1.1, 128)),
    ((0.02, 128), (0.02, 128), (0.02, 128)),
    ((1.7, 3), (0.33, 250), (0.021, 11)),
]


def adder(requantize, grids, low=0, high=255):
    out_scale, out_zero = grids[-1]
    return mq.quantized_add(
        requantize,
        inputs=("a", "b"),
        output="sum",
        in_grids=grids[:-1],
        out_scale=out_scale,
        out_zero_point=out_zero,
        out_bits=8,
        low=low,
        high=high,
    )


@pytest.mark.parametrize("grids", GRIDS)
def test_a_sum_is_litert_s_in_plain_integers(grids):
    step = adder("fixed", grids)
    found = step(*every_pair())[0, ..., 0].numpy()
    (s1, z1), (s2, z2), (s3, z3) = ((float(np.float32(s)), z) for s, z in grids)
    twice = 2 * max(s1, s2)
    pairs = [mq.quantize_multiplier(s / twice) for s in (s1, s2)]
    out = mq.quantize_multiplier(twice / (2**20 * s3))
    terms = [
        [tflite_multiply((q - z) * 2**20, *pair) for q in range(256)]
        for z, pair in zip((z1, z2), pairs, strict=True)
    ]
    for q1, q2 in itertools.product(range(256), repeat=2):
        y = tflite_multiply(terms[0][q1] + terms[1][q2], *out) + z3
        assert found[q1, q2] == min(max(y, 0), 255) - 128


@pytest.mark.parametrize("grids", GRIDS)
def test_a_sum_in_floats_rounds_each_of_four_times(grids):
    found = adder("float", grids, 20, 230)(*every_pair())[0, ..., 0].numpy()
    (s1, z1), (s2, z2), (s3, z3) = ((np.float32(s), z) for s, z in grids)
    q = np.arange(256)
    one = (q - z1).astype(np.float32) * (s1 / s3)
    other = (q - z2).astype(np.float32) * (s2 / s3)
    y = np.rint(one[:, None] + other[None]) + z3
    assert (found == np.clip(y, 20, 230) - 128).all()


def test_a_sum_that_is_far_finer_than_its_terms_is_refused():
    with pytest.raises(ValueError, match="too fine for its terms'"):
        adder("fixed", ((1.0, 0), (1.0, 0), (1e-6, 0)))


def test_an_average_by_hand():
    """Ties go to even in floats and upwards, of a half, in integers."""
    rows = [[1, 2], [9, 9], [2, 3], [9, 9], [-1, -2], [9, 9], [-2, -3]]
    a = torch.tensor(rows, dtype=torch.int8).reshape(1, 7, 2, 1)
    for requantize, expected in (("fixed", [2, 3, -1, -2]), ("float", [2, 2, -2, -2])):
        step = mq.quantized_average(
            requantize,
            ((1, 2), (2, 1)),
            inputs=("x",),
            output="y",
            in_grids=((1.0, 128),),
            out_scale=1.0,
            out_zero_point=128,
            out_bits=8,
            low=0,
            high=255,
        )
        means = step(a)  # of 1.5, 2.5, -1.5 and -2.5
        assert step.shape((1, 7, 2)) == (1, 4, 1) == tuple(means.shape[:3])
        assert means.flatten().tolist() == expected
        assert torch.equal(step.as_layer(1)(a), means)


# -- names, files, other recipes ------------------------------------------------------


class Small(nn.Module):
    """Two convolutions, the second added to what enters it, and the mean."""

    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.cat([torch.relu(x + self.conv(x)), x], dim=1)
        return torch.log_softmax(self.fc(y.mean((2, 3))), 1)


@pytest.fixture(scope="module")
def small():
    """Return (a Small with batch norm at random, images [N, 3, 12, 10])."""
    torch.manual_seed(1)
    net = Small().eval()
    shake(net)
    return net, torch.randn(40, 3, 12, 10)


def test_a_tensor_is_named_by_the_first_layer_that_it_enters_or_its_maker(small):
    net, images = small
    ranges = mq.calibrate(net, images, "minmax")
    assert list(ranges) == ["stem", "conv", "conv.out", "add", "cat", "fc", "output"]
    qnet = mq.quantize_net(net, ranges, in_shape=(3, 12, 10))
    assert qnet.names == tuple(ranges)
    shapes = [qnet.shapes[name] for name in ranges]
    assert shapes == [(3, 12, 10), *[(4, 6, 5)] * 3, (8, 6, 5), (8,), (10,)]
    assert qnet.layers["conv"].groups == 2 and qnet.layers["stem"].stride == (2, 2)
    codes = qnet.codes(images)
    for name, x in mq.activations(net, images).items():
        assert codes[name].shape == x.shape
        grid = qnet.grids[name]
        error = mq.dequantize_tensor(mq.QTensor(codes[name], *grid)) - x
        assert error.square().mean() < 1e-2 * x.square().mean()
    bits = dict.fromkeys(ranges, 8) | {"add": 2}
    coarse = mq.quantize_net(net, ranges, 8, bits, in_shape=(3, 12, 10))
    assert int(coarse.codes(images)["add"].max()) == 3


def test_images_of_another_size_are_refused(small):
    net, images = small
    qnet = mq.quantize_net(net, mq.calibrate(net, images), in_shape=images.shape[1:])
    with pytest.raises(ValueError, match=r"use \[N, 3, 12, 10\]"):
        qnet(images[..., :9])
    with pytest.raises(ValueError, match=r"\(1, 1, 28, 28\) do not fit the network"):
        mq.quantize_net(net, mq.calibrate(net, images))


def test_batch_norm_is_folded_as_it_computes(small):
    net, images = small
    stem = mq.read_layers(net, images)["stem"]
    assert stem is not net.stem and (net.norm.weight < 0).any()
    with torch.inference_mode():
        wanted = net.norm(net.stem(images))
        torch.testing.assert_close(stem(images), wanted, rtol=1e-4, atol=1e-5)
    assert net.stem.bias is None  # the network itself is only read
    assert mq.read_layers(net, images)["fc"] is net.fc


@pytest.mark.parametrize(
    ("step", "key", "value"),
    [
        (1, "groups", 3),
        (1, "groups", 4),
        (1, "groups", 0),
        (1, "padding", [1]),
        (1, "padding", [-1, 1]),
        (1, "padding", [1, 2]),  # then the sum's terms differ
        (0, "stride", [0, 2]),
        (0, "stride", [2, 2, 2]),
        (0, "stride", "2"),
        (2, "inputs", ["conv"]),
        (2, "inputs", ["conv", "stem"]),
        (2, "inputs", ["conv", "cat"]),
        (2, "output", "conv"),  # made twice
        (2, "grid", [1e-9, 0]),
        (2, "bits", 9),
        (3, "inputs", []),
        (3, "inputs", ["add", "stem"]),
        (3, "grid", [0.0, 0]),
        (3, "high", 256),
        (3, "high", -1),
        (4, "window", [[6, 5]]),
        (4, "window", [[7, 5], [7, 5]]),
        (4, "inputs", ["cat", "cat"]),
        (4, "kind", "mean"),
        (6, "stride", [2, 2]),  # of a Linear
    ],
)
def test_hostile_headers_of_these_steps_are_refused(step, key, value, small, tmp_path):
    net, images = small
    ranges = mq.calibrate(net, images)
    qnet = mq.quantize_net(net, ranges, in_shape=images.shape[1:])
    qnet.save(tmp_path / "net")
    header, data = split((tmp_path / "net").read_bytes())
    kinds = [entry["kind"] for entry in header["steps"]]
    assert kinds == ["layer", "layer", "add", "concat", "average", "flatten", "layer"]
    header["steps"][step][key] = value
    refused(join(header, data), tmp_path, "cannot be used")


def test_what_fits_only_after_flattening_is_refused_by_the_exporters(tmp_path):
    class Net(Small):
        def forward(self, x):
            y = self.stem(x).flatten(1)
            return self.fc(y + self.wide(y))

        def __init__(self):
            super().__init__(1)
            self.wide, self.fc = nn.Linear(784, 784), nn.Linear(784, 10)

    net, images = Net().eval(), torch.randn(4, 1, 28, 28)
    ranges = mq.calibrate(net, images, "minmax")
    for requantize, export in (("float", mq.export_onnx), ("fixed", mq.export_tflite)):
        qnet = mq.quantize_net(net, ranges, requantize=requantize)
        assert (qnet(images) - net(images)).abs().max() < 0.1
        with pytest.raises(ValueError, match="fc cannot be exported: it adds tensors"):
            export(qnet, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_training_with_rounding_takes_these_networks(small):
    net, images = small
    shape = images.shape[1:]
    labels = torch.arange(len(images)) % 2
    images = images + labels[:, None, None, None]
    qat = mq.QatNet(net, mq.calibrate(net, images, "minmax"), 4, 4, in_shape=shape)
    history = mq.fine_tune(qat, images, labels, epochs=10, lr=0.1, shift=1)
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    exact = torch.log_softmax(qat.quantize("float")(images), 1)
    assert qat.quantize().in_shape == shape
    # Where a sum lies on a tie, another order of adding may choose the other code.
    assert (exact - qat(images)).abs().median() < 1e-4


def test_the_best_recipe_takes_these_networks(small):
    net, images = small
    with torch.inference_mode():
        wanted = net(images)
    plain = mq.calibrate(net, images, "mse", 8)
    plain = mq.quantize_net(net, plain, 2, 8, in_shape=images.shape[1:])
    best = mq.quantize_best(net, images, 2, 8)
    errors = [
        (torch.log_softmax(qnet(images), 1) - wanted).square().mean()
        for qnet in (best, plain)
    ]
    assert errors[0] < 0.5 * errors[1]
    assert best.names == plain.names and best.nbytes == plain.nbytes


def test_each_group_of_a_convolution_is_fitted_by_itself(small):
    net, images = small
    seen = []

    def fit(layer, x, x_hat, bits):
        seen.append((layer.weight, x, x_hat))
        zeros = torch.zeros(len(layer.weight))
        return mq.quantize_weight(layer.weight.detach(), bits), zeros

    found = mq.quantize_best(net, images, 3, 8, fit=fit)
    assert len(seen) == 4  # stem, two groups of conv, fc
    half, entering = nn.Conv2d(2, 2, 3, padding=1), mq.activations(net, images)["conv"]
    halves = entering.chunk(2, 1), net.conv.weight.chunk(2)
    for (weight, x, x_hat), part, own in zip(seen[1:3], *halves, strict=True):
        assert torch.equal(weight, own)
        assert torch.equal(x, mq.layer_rows(half, part)) and x_hat.shape == x.shape
    one = mq.quantize_weight(net.conv.weight.detach(), 3)
    assert torch.equal(found.layers["conv"].weight, one.tensor)
    assert torch.equal(found.layers["conv"].weight_scale, one.scale)


def joiner(in_scale):
    """A network that joins two convolutions, the first on a grid of in_scale."""
    torch.manual_seed(0)
    pair = [nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)]
    net = nn.Sequential(Together(pair, nn.Identity()), nn.Conv2d(4, 2, 1)).eval()
    images = torch.randn(2, 1, 6, 6)
    ranges = mq.calibrate(net, images)
    ranges["0.branches.0.out"] = (0, 255 * in_scale)
    return mq.quantize_net(net, ranges, in_shape=images.shape[1:])


def test_grids_that_litert_cannot_join_are_refused(tmp_path):
    out_scale = joiner(1.0).grids["1"][0]
    mq.export_tflite(joiner(2**22 * out_scale), tmp_path / "net.tflite")
    with pytest.raises(ValueError, match=r"1 joins numbers .* 2\*\*25 times finer"):
        mq.export_tflite(joiner(2**24 * out_scale), tmp_path / "other.tflite")
    with pytest.raises(ValueError, match=r"1: the multiplier .* what leaves it"):
        joiner(2**31 * out_scale)


# -- the same in C ---------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("seed", range(14))
def test_c_computes_every_step_as_python(seed, packed, tmp_path):
    """The scores, and as its own scores what one of the steps before them makes."""
    _, qnet, images = quantized(seed, "fixed")
    grid = qnet.in_bits, qnet.in_scale, qnet.in_zero_point
    given = mq.quantize_tensor(images, *grid).tensor.movedim(1, -1).contiguous()
    kinds = [type(step) for step in qnet.steps]
    wanted = (mq.QuantizedAdd, mq.QuantizedConcat, mq.QuantizedAverage)
    middle = kinds.index(wanted[seed % 3]) + 1 if wanted[seed % 3] in kinds else 1
    for number, count in enumerate((len(kinds), middle)):
        part = replace(qnet, steps=qnet.steps[:count])
        last = part.steps[-1].output
        expected = part.codes(images, [last])[last]
        expected = expected.movedim(1, -1).flatten(1).numpy()
        folder = tmp_path / str(number)
        assert np.array_equal(in_c(part, given, folder, packed, CHECKED), expected)
