"""The integer arithmetic: every rounding and every product against Python's integers.

The references follow the sources line by line (gemmlowp's fixedpoint.h, TFLite's
common.h) and share nothing with the helper.
"""

import inspect
import math
import os
import subprocess
import sys
import time
from fractions import Fraction

import pytest
import torch
from helpers import INT32_MAX, INT32_MIN, tflite_multiply
from helpers import rounding_divide_by_pot as divide_by_pot
from helpers import saturating_rounding_doubling_high_mul as high_mul
from hypothesis import example, given
from hypothesis import strategies as st

import mnistq.arithmetic
import mnistq_helpers as mq

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


@given(int32s, int32s)
@example(INT32_MIN, INT32_MIN)
@example(INT32_MIN, INT32_MAX)
@example(2**15, 2**15)  # a tie
@example(-(2**15), 2**15)
def test_high_multiply(a, b):
    ours = mq.high_multiply(torch.tensor([a], dtype=torch.int32), b)
    assert int(ours) == high_mul(a, b)


@given(int32s, st.integers(0, 31))
@example(-1, 0)
@example(-6, 2)  # a tie
@example(6, 2)
@example(INT32_MIN, 31)
@example(INT32_MAX, 31)
def test_rounding_shift(x, shift):
    ours = mq.rounding_shift(torch.tensor(x), shift)
    assert int(ours) == divide_by_pot(x, shift)


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
    monkeypatch.setattr(mnistq.arithmetic, "int_mm_is_exact", lambda: False)
    monkeypatch.delattr(torch, "_int_mm")
    assert_products_exact()


CHILD = """
import os
import torch
import mnistq.arithmetic as mq

def child(isa):
    os.environ["ONEDNN_MAX_CPU_ISA"] = isa
    if isa == "AVX2":
        os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    assert_products_exact()
    full = torch.full((64, 64), 127, dtype=torch.int8)
    right = bool((torch._int_mm(full, full) == 127 * 127 * 64).all())
    assert right == mq.int_mm_is_exact(), right
    print(isa, "done", flush=True)

for isa in ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"):
    if os.fork() == 0:
        child(isa)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each")
def test_products_are_exact_on_other_processors():
    """In processes of their own: the instruction set is chosen once. Never faster."""
    functions = map(inspect.getsource, (extremes, assert_products_exact))
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(functions) + CHILD],
        cwd=mq.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("done") == 3, done.stderr


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
    monkeypatch.setattr(mnistq.arithmetic, "int_mm_is_exact", lambda: True)
    monkeypatch.setattr(mnistq.arithmetic, "int_mm_is_quick", lambda: False)
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
