"""One operator in each engine: which rounding of averages and additions it has."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from test_branches import GRIDS, every_pair

import mnistq_helpers as mq

RUNTIME, REFERENCE, DEFAULT = mq.ENGINES[2:]


def pairs():
    """Return two uint8 images [1, 1, 256, 256] that hold every pair of codes."""
    return [(a.view(torch.uint8) ^ 128).movedim(-1, 0) for a in every_pair()]


def windows(size):
    """Return uint8 [n, 1, size, size]: a window for each sum that codes can have."""
    count = size**2
    sums, places = torch.arange(255 * count + 1)[:, None], torch.arange(count)
    codes = (sums - 255 * places).clamp(0, 255).to(torch.uint8)
    return codes.reshape(-1, 1, size, size)


def numbers(tensor):
    return tensor.flatten().int().numpy()


def saturated(y):
    return np.clip(y, 0, 255).astype(int)


@pytest.mark.parametrize("grids", GRIDS)
def test_an_addition_of_litert_s_reference_is_fixed(grids):
    found = mq.run_operator(REFERENCE, "add", pairs(), grids)
    assert torch.equal(found, mq.run_operator("fixed", "add", pairs(), grids))


@pytest.mark.parametrize("grids", [GRIDS[0], *GRIDS[2:]])
def test_an_addition_of_litert_s_default_kernels_rounds_once(grids):
    """XNNPACK: factors of 21 bits, an integer sum, one rounding, half up.

    It leaves scales further apart than 2**10, as GRIDS[1] has, to other kernels.
    """
    found = numbers(mq.run_operator(DEFAULT, "add", pairs(), grids))
    (s1, z1), (s2, z2), (s3, z3) = ((np.float32(s), z) for s, z in grids)
    ratios = [float(s / s3) for s in (s1, s2)]
    shift = 20 - int(np.floor(np.log2(max(ratios))))
    one, other = (int(np.rint(ratio * 2.0**shift)) for ratio in ratios)
    q1, q2 = map(numbers, pairs())
    acc = (q1 - z1).astype(np.int64) * one + (q2 - z2).astype(np.int64) * other
    expected = ((acc + 2 ** (shift - 1)) >> shift) + z3
    assert (found == saturated(expected)).all()


@pytest.mark.parametrize("grids", GRIDS)
def test_an_addition_of_onnx_runtime_is_nearly_float(grids):
    """It may multiply and add in one rounding: some codes are another, by one."""
    found = mq.run_operator(RUNTIME, "add", pairs(), grids)
    apart = numbers(found) - numbers(mq.run_operator("float", "add", pairs(), grids))
    assert abs(apart).max() <= 1 and (apart != 0).mean() < 0.01


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("zero", [0, 1, 128, 201])
def test_a_mean_rounds_exactly_in_one_engine_and_twice_in_another(size, zero):
    x, grids = windows(size), ((0.013, zero), (0.013, zero))
    of = {
        engine: numbers(mq.run_operator(engine, "mean", [x], grids))
        for engine in mq.ENGINES
    }
    means = [Fraction(int(s), size**2) for s in range(len(x))]
    assert (of[RUNTIME] == [round(m - zero) + zero for m in means]).all()
    assert (of["float"] == of[RUNTIME]).all()
    assert size in (3, 7) or (of["fixed"] == of[REFERENCE]).all()
    # Its default kernels add the zero point first: an odd one turns ties round.
    assert (of[DEFAULT] == [round(m) for m in means]).all()
    apart = of[REFERENCE] - of[RUNTIME]
    assert abs(apart).max() == 1 and 0.05 < (apart != 0).mean() * size**2 < 2


@pytest.mark.parametrize(("unit", "shift"), [(0.7, 1), (1.5, 2), (3.3, 3), (9, 5)])
def test_the_first_of_two_roundings_is_to_a_share_of_a_code(unit, shift):
    """To 2**-shift of it: what lies less than half of that below a half is rounded up.

    That is so for positive means, which are all here.
    """
    assert mq.quantize_multiplier(1 / (4 * unit))[1] == shift
    grids, x = [(1.0, 0), (unit, 0)], windows(2)[:700]
    exact = [Fraction(s) / 4 / Fraction(float(np.float32(unit))) for s in range(700)]
    found = numbers(mq.run_operator("fixed", "mean", [x], grids))
    wrong = [q != min(round(m), 255) for q, m in zip(found, exact, strict=True)]
    near = [0 <= Fraction(1, 2) - m % 1 <= Fraction(1, 2 ** (shift + 1)) for m in exact]
    assert sum(wrong) > 5 and all(n for w, n in zip(wrong, near, strict=True) if w)
    inside = [Fraction(1, 2**shift) / 2 > Fraction(1, 2) - m % 1 > 0 for m in exact]
    unsaturated = zip(inside, wrong, exact, strict=True)
    assert all(w for i, w, m in unsaturated if i and m < 254)


@pytest.mark.parametrize("zero", [0, 1, 128, 201])
def test_pooling_rounds_ties_in_two_other_ways(zero):
    x, grids = windows(2), ((0.5, zero), (0.5, zero))
    wide = torch.cat([x, x], 3)  # ONNX Runtime treats a single window as a mean
    sums = np.arange(len(x))
    for engine in mq.ENGINES[2:]:
        found = mq.run_operator(engine, "pool", [wide], grids)
        assert found.shape == (len(x), 1, 1, 2)
        assert torch.equal(found[..., 0], found[..., 1])
        found = numbers(found[..., 0])
        if engine == RUNTIME:  # to even, the zero point being added
            assert (found == np.rint(sums / 4)).all()
        else:  # of int8 codes, code - 128, away from 0
            signed = sums / 4 - 128
            away = np.trunc(signed + np.copysign(0.5, signed))
            assert (found == away + 128).all()


def test_the_smallest_sums_and_means_that_engines_tell_apart():
    """On paper both sums are a half; with exact fractions none, in float32 one."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.uint8)
    for scales, exact in (((0.1, 0.2, 0.6), 0), ((0.1, 0.3, 0.8), 1)):
        a, b, s = (Fraction(float(np.float32(scale))) for scale in scales)
        assert round((a + b) / s) == exact
        a, b, s = map(np.float32, scales)
        assert (a / s + b / s == np.float32(0.5)) == (exact == 1)
        grids = [(scale, 0) for scale in scales]
        made = [
            int(mq.run_operator(engine, "add", [one, one], grids))
            for engine in mq.ENGINES
        ]
        assert made == [0, 1, 0, 1, 1]
    x = torch.tensor([1, 0, 0, 0], dtype=torch.uint8).reshape(1, 1, 2, 2)
    made = [
        int(mq.run_operator(engine, "mean", [x], [(1.0, 0)] * 2))
        for engine in mq.ENGINES
    ]
    assert made == [0, 1, 0, 1, 0]
    m0, shift = mq.quantize_multiplier(0.25)
    half = mq.high_multiply(torch.tensor([1], dtype=torch.int32), m0)
    assert (int(half), shift) == (1, 1)  # a quarter is one of two halves
    assert int(mq.rounding_shift(half, shift)) == 1


@pytest.mark.parametrize(
    ("engine", "kind", "sentence"),
    [
        ("TensorRT", "add", "'add' in 'TensorRT': use add, mean, pool in float"),
        (REFERENCE, "max", "'max' in 'LiteRT reference': use add"),
        (DEFAULT, "pool", "LiteRT pools on one grid"),
    ],
)
def test_what_it_does_not_know_is_refused(engine, kind, sentence):
    with pytest.raises(ValueError, match=sentence):
        mq.run_operator(engine, kind, [windows(2)], [(1.0, 0), (2.0, 0)])
