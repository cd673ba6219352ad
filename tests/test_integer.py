"""The integer arithmetic: every rounding and every layer against plain Python integers.

The references follow the sources line by line (gemmlowp's fixedpoint.h, TFLite's
common.h) and share nothing with the helper.
"""

import itertools
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import mnistq_helpers as mq

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
NAMES = (*mq.LAYERS, "output")


# -- the sources, in Python integers ----------------------------------------------


def saturating_rounding_doubling_high_mul(a, b):
    """gemmlowp, fixedpoint.h; C++ divides towards 0."""
    if a == b == INT32_MIN:
        return INT32_MAX
    nudged = a * b + (2**30 if a * b >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def rounding_divide_by_pot(x, exponent):
    """gemmlowp, fixedpoint.h."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


def tflite_multiply(acc, m0, shift):
    """TFLite, common.h; its left shift saturates here instead of being undefined."""
    left = min(max(acc * 2 ** max(-shift, 0), INT32_MIN), INT32_MAX)
    high = saturating_rounding_doubling_high_mul(left, m0)
    return rounding_divide_by_pot(high, max(shift, 0))


int32s = st.one_of(
    st.integers(INT32_MIN, INT32_MAX),
    st.integers(-70000, 70000),
    st.sampled_from([INT32_MIN, INT32_MIN + 1, -1, 0, 1, INT32_MAX - 1, INT32_MAX]),
    st.builds(lambda e, d: 2**e + d, st.integers(0, 30), st.integers(-1, 1)),
    st.builds(lambda e, d: -(2**e) + d, st.integers(0, 30), st.integers(-1, 1)),
)
m0s = st.one_of(
    st.integers(2**30, 2**31 - 1), st.sampled_from([2**30, 2**30 + 1, 2**31 - 1])
)
shifts = st.integers(-30, 31)


# -- one multiplier ---------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(2**-32, 2**30, exclude_max=True))
@example(1.0)
@example(math.nextafter(1.0, 0.0))  # rounds up to 2**31
@example(math.nextafter(0.5, 0.0))
@example(2**-32)
@example(1 + 2**-31)  # a tie
def test_multiplier_is_the_nearest_of_31_bits(m):
    if m > 2**30 * (1 - 2**-32):  # rounds up to 2**30, which is out
        return
    m0, shift = mq.quantize_multiplier(m)
    assert 2**30 <= m0 < 2**31 and -30 <= shift <= 31
    error = abs(Fraction(m0, 2**31) / Fraction(2) ** shift - Fraction(m))
    assert error <= Fraction(1, 2**32) / Fraction(2) ** shift
    assert (shift <= 0) == (m >= 0.5 * (1 - 2**-32)) or m0 == 2**30


@pytest.mark.parametrize(
    ("m", "m0", "shift"),
    [
        (1.0, 2**30, -1),
        (0.5, 2**30, 0),
        (0.75, 3 * 2**29, 0),
        (3.0, 3 * 2**29, -2),
        (1 - 2**-40, 2**30, -1),
        (2**-32, 2**30, 31),
    ],
)
def test_multipliers_by_hand(m, m0, shift):
    assert mq.quantize_multiplier(m) == (m0, shift)


@pytest.mark.parametrize(
    "m", [0, -0.5, math.nan, math.inf, 2**-33, 2.0**30, 2.0**30 * (1 - 2**-40)]
)
def test_multipliers_that_do_not_exist(m):
    with pytest.raises(ValueError, match="multiplier"):
        mq.quantize_multiplier(m)


# -- the two roundings ------------------------------------------------------------


@settings(deadline=None)
@given(int32s, int32s)
@example(INT32_MIN, INT32_MIN)
@example(INT32_MIN, INT32_MAX)
@example(2**15, 2**15)  # a tie
@example(-(2**15), 2**15)
def test_high_multiply(a, b):
    ours = mq.high_multiply(torch.tensor([a], dtype=torch.int32), b)
    assert int(ours) == saturating_rounding_doubling_high_mul(a, b)


@settings(deadline=None)
@given(int32s, st.integers(0, 31))
@example(-1, 0)
@example(-6, 2)  # a tie
@example(6, 2)
@example(INT32_MIN, 31)
@example(INT32_MAX, 31)
def test_rounding_shift(x, shift):
    assert int(mq.rounding_shift(torch.tensor(x), shift)) == rounding_divide_by_pot(
        x, shift
    )


@settings(deadline=None)
@given(st.lists(st.tuples(int32s, m0s, shifts), min_size=1, max_size=50))
@example([(INT32_MIN, 2**31 - 1, -30), (INT32_MIN, 2**31 - 1, 0), (-1, 2**30, 1)])
def test_multiply_one_by_one_and_per_channel(cases):
    expected = [tflite_multiply(*case) for case in cases]
    acc, m0, shift = torch.tensor(cases).T
    ours = mq.multiply_by_quantized_multiplier(acc.int(), m0.int(), shift.int())
    assert ours.dtype == torch.int32 and ours.tolist() == expected
    acc, m0, shift = cases[0]
    one = mq.multiply_by_quantized_multiplier(torch.tensor([acc]).int(), m0, shift)
    assert one.tolist() == expected[:1]


def test_multiply_leaves_its_input_alone():
    acc = torch.arange(-50, 50, dtype=torch.int32)
    for shift in (-1, 0, 3):
        mq.multiply_by_quantized_multiplier(acc, 2**30, shift)
        assert torch.equal(acc, torch.arange(-50, 50, dtype=torch.int32))
    x = torch.tensor([5, -5])
    mq.rounding_shift(x, 1)
    mq.high_multiply(x, 2**30)
    assert x.tolist() == [5, -5]


def test_multiply_refuses_other_types():
    with pytest.raises(ValueError, match="give int32"):
        mq.multiply_by_quantized_multiplier(torch.ones(3), 2**30, 0)


# -- the exact product ------------------------------------------------------------


def extremes(n, k, generator):
    """int8 codes: a third random, a third -128 or 127, a third 127."""
    full = torch.randint(-128, 128, (n, k), generator=generator)
    ends = torch.randint(0, 2, (n, k), generator=generator) * 255 - 128
    kind = torch.randint(0, 3, (n, 1), generator=generator)
    return torch.where(kind == 0, full, torch.where(kind == 1, ends, 127)).to(
        torch.int8
    )


def assert_products_exact():
    generator = torch.Generator().manual_seed(11)
    sizes = (1, 2, 3, 25, 64, 500, 800, 1024, 1041, 3001)
    for k in sizes:
        for n, m in ((1, 1), (20, 300), (50, 64), (7, 13), (300, 1)):
            a, b = extremes(n, k, generator), extremes(m, k, generator).T
            ours = mq.int_matmul(a, b)
            assert ours.dtype == torch.int32 and ours.shape == (n, m)
            assert torch.equal(ours.long(), a.long() @ b.long()), (n, k, m)
            for factors in (a, b.contiguous()), (a.T.contiguous().T, b):
                assert torch.equal(mq.int_matmul(*factors), ours), (n, k, m)
        low = torch.full((4, k), -128, dtype=torch.int8)  # the largest sum there is
        assert bool((mq.int_matmul(low, low.T) == k * 2**14).all())
        high = torch.full((4, k), 127, dtype=torch.int8)  # odd, where k is odd
        assert bool((mq.int_matmul(high, high.T) == k * 127**2).all())


def test_products_are_exact_here():
    assert_products_exact()


def test_products_are_exact_in_floats(monkeypatch):
    """What a processor without VNNI uses, on any processor; float64 above k = 1024."""
    monkeypatch.setattr(mq, "int_mm_is_exact", lambda: False)
    monkeypatch.delattr(torch, "_int_mm")
    assert_products_exact()


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_products_are_exact_on_other_processors(isa):
    """In a process of its own: the instruction set is chosen once. Never faster."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
    if isa == "AVX2":
        environment["ATEN_CPU_CAPABILITY"] = "avx2"
    code = (
        "import sys; sys.path[:0] = ['tests', '.']; import torch, test_integer as t\n"
        "t.assert_products_exact()\n"
        "full = torch.full((64, 64), 127, dtype=torch.int8)\n"
        "right = bool((torch._int_mm(full, full) == 127 * 127 * 64).all())\n"
        "assert right == t.mq.int_mm_is_exact(), right"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=mq.ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def saturating_product(a, b):
    """What AVX2 computes: pairs of products (of a + 128) added in 16 bits."""
    pairs = (a.long() + 128).unsqueeze(2) * b.long()
    pairs = torch.nn.functional.pad(pairs, (0, 0, 0, pairs.shape[1] % 2))
    pairs = pairs.reshape(len(a), -1, 2, b.shape[1]).sum(2).clamp(-(2**15), 2**15 - 1)
    return (pairs.sum(1) - 128 * b.long().sum(0)).int()


def test_a_wrong_kernel_is_found(monkeypatch):
    try_it = mq.int_mm_is_exact.__wrapped__
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.long() @ b.long()).int())
    assert try_it()
    monkeypatch.setattr(torch, "_int_mm", saturating_product)
    assert not try_it()
    monkeypatch.delattr(torch, "_int_mm")
    assert not try_it()


def test_a_slow_kernel_is_found_and_not_used(monkeypatch):
    try_it = mq.int_mm_is_quick.__wrapped__
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: None)
    assert try_it()
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: time.sleep(0.3))
    assert not try_it()
    monkeypatch.delattr(torch, "_int_mm")
    monkeypatch.setattr(mq, "int_mm_is_exact", lambda: True)
    monkeypatch.setattr(mq, "int_mm_is_quick", lambda: False)
    assert_products_exact()


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.ones(2, 3), torch.ones(3, 2), "float32 and torch.float32: give int8"),
        (torch.ones(2, 3).char(), torch.ones(3, 2).byte(), "give int8"),
        (torch.ones(2, 3).char(), torch.ones(2, 3).char(), "give .n, k. and .k, m."),
        (torch.ones(3).char(), torch.ones(3, 2).char(), "give .n, k."),
        (torch.ones(1, 2**17).char(), torch.ones(2**17, 1).char(), "split it"),
    ],
)
def test_products_refuse(a, b, words):
    with pytest.raises(ValueError, match=words):
        mq.int_matmul(a, b)


# -- the whole network ------------------------------------------------------------


def in_plain_integers(qnet, net, ranges, images, act_bits):
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
        s_w = mq.quantize_weight(
            getattr(net, name).weight.detach(),
            layer.weight_bits,
            qnet.per_channel_in_test,
        ).scale
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


@settings(deadline=None, max_examples=20)
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
    qnet.per_channel_in_test = channels
    expected = in_plain_integers(qnet, net, ranges, images, act_bits)
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
    acc = replace(layer, pool=False).accumulate((q - 128).to(torch.int8))
    assert acc.shape == (20, 4, 6, 3) and acc.dtype == torch.int32
    for o, i, j, n in ((0, 0, 0, 0), (19, 3, 5, 2), (7, 1, 4, 1)):
        window = q[0, i : i + 5, j : j + 5, n] - layer.in_zero_point
        expected = (layer.weight[o, 0] * window).sum() + layer.bias[o]
        assert int(acc[o, i, j, n]) == int(expected)
    pooled = layer.accumulate((q - 128).to(torch.int8))
    assert torch.equal(pooled[:, 1, 2], acc[:, 2:4, 4:6].amax((1, 2)))


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


def walk(qnet, images, monkeypatch):
    """Return the dtypes between the input's codes and the logits' codes."""
    recorder = Recorder()
    product = mq.int_matmul

    def unseen(a, b):  # may carry codes in floats, where the processor has no VNNI
        recorder.paused = True
        try:
            return product(a, b)
        finally:
            recorder.paused = False

    monkeypatch.setattr(mq, "int_matmul", unseen)
    steps = qnet._steps(images)
    name, _ = next(steps)  # the input's codes
    assert name == "conv1"
    with recorder:
        last, a = list(steps)[-1]
    assert last == "output" and a.dtype == torch.int8
    return {dtype for _, dtype in recorder.seen}, recorder.seen


def test_no_float_between_input_and_output(net, ranges, test_set, monkeypatch):
    for weight_bits, channels in ((8, True), (3, False), (1, True)):
        qnet = mq.quantize_net(net, ranges, weight_bits, per_channel=channels)
        dtypes, seen = walk(qnet, test_set[0][:5], monkeypatch)
        assert len(seen) > 100
        assert dtypes <= {torch.int8, torch.int32, torch.int64, torch.bool}
    floats = mq.quantize_net(net, ranges, requantize="float")
    assert torch.float32 in walk(floats, test_set[0][:5], monkeypatch)[0]


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


def test_a_silent_channel_is_allowed(random_net, test_set):
    """Its multiplier lies below 2**-32, where every accumulator rounds to 0."""
    with torch.no_grad():
        random_net.conv1.weight[3] *= 1e-12
        random_net.conv1.bias[3] = 0
    ranges = dict.fromkeys(NAMES, (-4.0, 4.0))
    qnet = mq.quantize_net(random_net, ranges)
    zero = qnet.layers["conv1"].out_zero_point
    assert bool((qnet.codes(test_set[0][:20])["conv2"][:, 3] == zero).all())


def test_bytes_of_multiplier_and_shift(net, ranges):
    fixed, floats = (
        mq.quantize_net(net, ranges, requantize=kind) for kind in ("fixed", "float")
    )
    assert fixed.nbytes - floats.nbytes == 580
    assert sum(p.numel() * 4 for p in net.parameters()) / fixed.nbytes >= 3.9
