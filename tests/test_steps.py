"""The steps of an integer network against Python's integers, and no float inside."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import NAMES, tflite_multiply
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import mnistq_helpers as mq
from mnistq.steps import quantized_layer


def in_plain_integers(qnet, net, ranges, images, act_bits, per_channel):
    """Codes by name: sums in int64 of q - zero, requantized one by one, then pooled."""
    grids = {
        n: mq.calc_scale_zero_point(*ranges[n], 8 if n == "output" else act_bits)
        for n in NAMES
    }
    scale, zero = grids["conv1"]
    q = np.rint(images.numpy() / np.float32(scale)) + zero
    q = np.clip(q, 0, 2**act_bits - 1).astype(np.int64)
    codes = {"conv1": q}
    for name, following in itertools.pairwise(NAMES):
        layer, (in_scale, zero) = qnet.layers[name], grids[name]
        out_scale, out_zero = grids[following]
        w = layer.weight.numpy().astype(np.int64)
        x = q - zero
        if w.ndim == 4:
            x = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (2, 3))
            acc = np.einsum("nchwij,ocij->nohw", x, w)
        else:
            acc = np.einsum("nk,ok->no", x.reshape(len(x), -1), w)
        w_float = getattr(net, name).weight.detach()
        s_w = mq.quantize_weight(w_float, layer.weight_bits, per_channel).scale
        s_w = np.broadcast_to(np.asarray(s_w, np.float32), len(w))
        s_acc = np.float32(in_scale) * s_w
        bias = getattr(net, name).bias.detach().numpy().astype(np.float64)
        bias = np.rint(bias / s_acc.astype(np.float64)).astype(np.int64)
        y = np.empty_like(acc)
        for o in range(len(w)):
            part = acc[:, o] + bias[o]
            if layer.multiplier is None:
                # Exactly rational: the product of three float32 scales' values.
                m = Fraction(float(np.float32(in_scale))) * Fraction(float(s_w[o]))
                m /= Fraction(float(np.float32(out_scale)))
                shift = 0
                while m * 2**shift < Fraction(1, 2):
                    shift += 1
                while m * Fraction(2) ** shift >= 1:
                    shift -= 1
                m0 = math.floor(m * Fraction(2) ** (shift + 31) + Fraction(1, 2))
                assert (m0, shift) == (int(layer.m0[o]), int(layer.shift[o]))
                flat = [tflite_multiply(int(v), m0, shift) for v in part.ravel()]
                y[:, o] = np.array(flat).reshape(part.shape)
            else:
                m = (s_acc[o] / np.float32(out_scale)).astype(np.float32)
                y[:, o] = np.rint(part.astype(np.float32) * m)
        lowest = 0 if following == "output" else out_zero
        qmax = 255 if following == "output" else 2**act_bits - 1
        q = np.clip(y + out_zero, lowest, qmax)
        if w.ndim == 4:
            n, c, h, _ = q.shape
            q = q.reshape(n, c, h // 2, 2, h // 2, 2).max((3, 5))
        codes[following] = q
    return codes


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from(["fixed", "float"]),
)
def test_networks_equal_plain_integers(seed, weight_bits, act_bits, channels, kind):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    net = mq.Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(random(parameter.shape) * random(1).exp() * 0.1)
    ranges = {
        n: tuple(sorted((random(2) * random(1).exp() * 9).tolist())) for n in NAMES
    }
    images = random(2, 1, 28, 28)
    qnet = mq.quantize_net(net, ranges, weight_bits, act_bits, channels, kind)
    expected = in_plain_integers(qnet, net, ranges, images, act_bits, channels)
    found = qnet.codes(images)
    for name in NAMES:
        ours = found[name].reshape(expected[name].shape).numpy()
        assert found[name].dtype == torch.uint8
        assert (ours == expected[name]).all(), name


def test_ties_between_two_layers(net, ranges):
    """Half to even in floats; half upwards, then away from 0, in integers."""
    acc = torch.tensor([[-5, -3, -1, 1, 3, 5]] * 10, dtype=torch.int32)
    for kind, expected in (
        ("float", [-2, -2, 0, 0, 2, 2]),
        ("fixed", [-2, -1, 0, 1, 2, 3]),
    ):
        layer = mq.quantize_net(net, ranges, requantize=kind).layers["fc2"]
        if kind == "float":
            layer = replace(layer, multiplier=torch.full((10,), 0.5))
        else:
            halves = torch.full((10,), 2**30, dtype=torch.int32)
            layer = replace(layer, m0=halves, shift=torch.zeros_like(halves))
        codes = layer.requantize(acc).int() + 128 - layer.out_zero_point
        assert codes.tolist() == [expected] * 10


def test_accumulators_by_hand(net, ranges):
    layer = mq.quantize_net(net, ranges).layers["conv1"]
    generator = torch.Generator().manual_seed(3)
    q = torch.randint(0, 256, (1, 8, 10, 3), generator=generator)
    acc = replace(layer, pool=None).accumulate((q - 128).to(torch.int8))
    assert acc.shape == (20, 4, 6, 3) and acc.dtype == torch.int32
    for o, i, j, n in ((0, 0, 0, 0), (19, 3, 5, 2), (7, 1, 4, 1)):
        window = q[0, i : i + 5, j : j + 5, n] - layer.in_zero_point
        expected = (layer.weight[o, 0] * window).sum() + layer.bias[o]
        assert int(acc[o, i, j, n]) == int(expected)
    pooled = layer.accumulate((q - 128).to(torch.int8))
    assert torch.equal(pooled[:, 1, 2], acc[:, 2:4, 4:6].amax((1, 2)))


class Recorder(TorchDispatchMode):
    """Keeps (operator, dtype) of every tensor that an operator reads or makes."""

    def __init__(self):
        super().__init__()
        self.seen, self.paused = [], False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not self.paused:
            tensors = [v for v in (*args, made) if isinstance(v, torch.Tensor)]
            self.seen += [(str(func), v.dtype) for v in tensors]
        return made


def walk(qnet, images):
    """Return what the steps read and make between the input's and logits' codes."""
    recorder = Recorder()

    def unseen(a, b):  # may carry codes in floats, where the processor has no VNNI
        recorder.paused = True
        try:
            return mq.int_matmul(a, b)
        finally:
            recorder.paused = False

    first, *_, last = qnet.names
    codes = qnet.codes(images)
    tensors = {first: (codes[first] ^ 128).view(torch.int8).movedim(0, -1)}
    with recorder:
        for step in qnet.steps:
            given = [tensors[name] for name in step.inputs]
            given += [unseen] if isinstance(step, mq.QuantizedLayer) else []
            tensors[step.output] = step(*given)
    logits = (tensors[last].movedim(-1, 0) ^ -128).view(torch.uint8)
    assert torch.equal(logits, codes[last])
    return recorder.seen


def test_no_float_between_input_and_output(net, ranges, test_set):
    for weight_bits, channels in ((8, True), (3, False), (1, True)):
        qnet = mq.quantize_net(net, ranges, weight_bits, per_channel=channels)
        seen = walk(qnet, test_set[0][:5])
        assert len(seen) > 100
        dtypes = {dtype for _, dtype in seen}
        assert dtypes <= {torch.int8, torch.int32, torch.int64, torch.bool}
    floats = mq.quantize_net(net, ranges, requantize="float")
    seen = walk(floats, test_set[0][:5])
    assert torch.float32 in {dtype for _, dtype in seen}


def test_another_product_can_be_given(net, ranges, test_set):
    layer = mq.quantize_net(net, ranges).layers["fc2"]
    a = torch.randint(-128, 128, (500, 7)).to(torch.int8)
    asked = []

    def product(w, a):
        asked.append((w.dtype, tuple(w.shape), a.dtype, tuple(a.shape)))
        return (w.long() @ a.long()).int()

    assert torch.equal(layer(a, product), layer(a))
    assert asked == [(torch.int8, (10, 500), torch.int8, (500, 7))]


def test_a_multiplier_out_of_range_is_refused_with_its_layers_name(net, ranges):
    narrow = dict(ranges) | {"fc1": (0.0, 1e-15)}
    with pytest.raises(ValueError, match=r"conv2: the multiplier .* below 2..30. Wid"):
        mq.quantize_net(net, narrow)


def test_accumulators_stay_in_int32(net, ranges, test_set):
    """A range so narrow that the bias, in its units, leaves int32 is refused."""
    for kind in ("fixed", "float"):
        narrow = dict(ranges) | {"fc2": (0.0, 1e-7)}
        with pytest.raises(ValueError, match="accumulators could reach"):
            mq.quantize_net(net, narrow, requantize=kind)
    qnet = mq.quantize_net(net, dict(ranges) | {"fc2": (0.0, 3e-5)})
    layer = qnet.layers["fc2"]
    reach = layer.weight.long().abs().sum(1) * 256 + layer.bias.long().abs()
    assert 2**24 < int(reach.max()) < 2**31


def test_the_bound_counts_a_weight_of_minus_128_as_128():
    """int8 has no 128, so that abs(-128) is -128 there."""
    w = torch.full((1, 2**16), -128, dtype=torch.int8)
    weight = mq.QTensor(w, torch.ones(1), None)
    with pytest.raises(ValueError, match=r"could reach 2\.15e\+09, beyond int32"):
        quantized_layer("w", weight, 8, torch.zeros(1), (1, 0), (1, 0), "float")


def test_a_silent_channel_is_allowed(random_net, test_set):
    """Its multiplier lies below 2**-32, where every accumulator rounds to 0."""
    with torch.no_grad():
        random_net.conv1.weight[3] *= 1e-12
        random_net.conv1.bias[3] = 0
    ranges = dict.fromkeys(NAMES, (-4.0, 4.0))
    qnet = mq.quantize_net(random_net, ranges)
    zero = qnet.layers["conv1"].out_zero_point
    assert bool((qnet.codes(test_set[0][:20])["conv2"][:, 3] == zero).all())


@given(
    st.tuples(st.integers(1, 3), st.integers(5, 9), st.integers(5, 9)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([torch.int8, torch.int32, torch.int64]),
)
def test_max_pooling_is_torchs(shape, kernel, stride, dtype):
    torch.manual_seed(0)
    a = torch.randint(-128, 128, (*shape, 2))
    expected = F.max_pool2d(a.movedim(-1, 0).double(), kernel, stride).movedim(0, -1)
    found = mq.max_pool(a.to(dtype), kernel, stride)
    assert found.dtype == dtype and torch.equal(found.double(), expected)


def test_a_steps_shape_is_that_of_what_it_makes(net, ranges, test_set):
    qnet = mq.quantize_net(net, ranges)
    codes = qnet.codes(test_set[0][:3])
    shapes = {name: tuple(codes[name].shape[1:]) for name in NAMES}
    shapes |= {name: s for name, s in qnet.shapes.items() if name not in NAMES}
    assert list(qnet.shapes) == [
        qnet.steps[0].inputs[0],
        *(s.output for s in qnet.steps),
    ]
    for step in qnet.steps:
        (x,) = step.inputs
        assert step.shape(shapes[x]) == shapes[step.output] == qnet.shapes[step.output]
    assert qnet.layers["conv2"].convolved((20, 12, 12)) == (50, 8, 8)


def test_bytes_of_multiplier_and_shift(net, ranges):
    fixed, floats = (
        mq.quantize_net(net, ranges, requantize=kind) for kind in ("fixed", "float")
    )
    assert fixed.nbytes - floats.nbytes == 580
    assert sum(p.numel() * 4 for p in net.parameters()) / fixed.nbytes >= 3.9


@pytest.mark.parametrize("mode", ["fixed", "float"])
def test_a_rounding_that_an_engine_does_not_have_is_refused(net, ranges, mode):
    qnet = mq.quantize_net(net, ranges, requantize=mode)
    mq.check_requantize(qnet, mode, "an engine")
    other = {"fixed": "float", "float": "fixed"}[mode]
    words = f"an engine cannot round as requantize='{mode}' does.*{other}"
    with pytest.raises(ValueError, match=words):
        mq.check_requantize(qnet, other, "an engine")
