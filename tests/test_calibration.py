"""Ranges: by hand, by plain loops, and what calibrate refuses."""

import math

import pytest
import torch
from helpers import NAMES

import mnistq_helpers as mq


def test_ranges_by_hand():
    x = torch.tensor([[0.0, 1.0, 4.0], [-2.0, 0.0, 2.0]])
    assert mq.range_mean(x) == (-1.0, 3.0)
    assert mq.range_minmax(x) == (-2.0, 4.0)
    low, high = mq.range_ema(x, decay=0.75, batch=1)
    assert (low, high) == (0.75 * 0 + 0.25 * -2, 0.75 * 4 + 0.25 * 2)
    ones = torch.ones(30, 2)
    assert mq.range_ema(ones, batch=7) == pytest.approx((1, 1))  # bug j ran 3, -1, ...
    many = torch.arange(260.0).reshape(130, 2)
    assert mq.range_ema(many) == mq.range_ema(many, decay=0.9, batch=50)
    thousand = torch.arange(1001.0)
    assert mq.range_percentile(thousand) == pytest.approx((1, 999))
    assert mq.range_percentile(thousand, percent=99) == pytest.approx((10, 990))


def test_a_histogram_by_hand():
    counts, centers = mq.histogram(torch.tensor([0.0, 0.0, 0.6, 0.7, 1.5, 4.0]), 4)
    assert counts.tolist() == [2, 1, 0, 1] and centers.tolist() == [0.5, 1.5, 2.5, 3.5]
    counts, centers = mq.histogram(torch.tensor([-3.0, -2.5]))  # as far as 0
    assert len(counts) == len(centers) == 2048 and -2e-3 < centers[-1] < 0
    grid = mq.calc_scale_zero_point(0, 3, bits=2)
    assert grid == (1.0, 0)  # so 0.5 errs by 0.5 (to even), 3.5 too, 1.5 and 2.5
    counts, centers = torch.tensor([2.0, 1, 0, 1]), torch.tensor([0.5, 1.5, 2.5, 4])
    assert mq.clipping_error(counts, centers, 0, 3, 2) == 2 * 0.25 + 0.25 + 1


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_beats_every_other_range_of_its_grid(bits):
    torch.manual_seed(bits)
    x = torch.randn(50_000).exp() - 0.5

    def error(low, high):
        scale, zero_point = mq.calc_scale_zero_point(low, high, bits)
        x_hat = mq.dequantize_tensor(mq.quantize_tensor(x, bits, scale, zero_point))
        return float((x - x_hat).square().mean())

    low, high = mq.range_mse(x, bits)
    full = mq.range_minmax(x)
    best = min(error(full[0], full[1] * i / 100) for i in range(1, 101))
    assert error(low, high) <= best * 1.02  # 2048 bins see x a little coarsely
    assert error(low, high) < 0.7 * error(*full) or bits == 8
    assert full[0] <= low <= 0 <= high <= full[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [7, 100])
def test_mse_tries_these_sizes_and_no_others(steps, seed):
    """100 unless another number is given; first the upper end, then the lower."""
    torch.manual_seed(seed)
    x = torch.randn(3000) * 2 + 1
    counts, centers = mq.histogram(x)
    low, high = float(x.min()), float(x.max())

    def best(range_of):
        sizes = [i / steps for i in range(steps, 0, -1)]
        ranges = [range_of(size) for size in sizes]
        return min(ranges, key=lambda r: mq.clipping_error(counts, centers, *r, 3))

    low, high = best(lambda size: (low, high * size))
    low, high = best(lambda size: (low * size, high))
    options = {} if steps == 100 else {"steps": steps}
    assert mq.range_mse(x, 3, **options) == (low, high)
    assert mq.range_mse(x) == mq.range_mse(x, 8) != mq.range_mse(x, 7)


def plain_entropy(x, bits, bins):
    """Migacz's threshold in plain Python, with a loop for each sum."""
    top, levels = max(x), 2**bits
    counts = [0.0] * bins
    for value in x:
        if value:  # a grid holds 0 exactly, whatever its range
            counts[min(int(value / top * bins), bins - 1)] += 1
    best = None
    for end in range(max(128, levels), bins + 1, 8):
        p, q = counts[:end], [0.0] * end
        for level in range(levels):
            group = [i for i in range(end) if i * levels // end == level]
            filled = [i for i in group if p[i] > 0]
            for i in filled:
                q[i] = sum(p[j] for j in group) / len(filled)
        p[-1] += sum(counts[end:])
        divergence = 0.0
        for a, b in zip(p, q, strict=True):
            if a > 0:
                a, b = a / sum(p), b / sum(q)
                divergence += a * math.log(a / b) if b else math.inf
        if best is None or divergence < best[0]:
            best = (divergence, top * end / bins)
    return best[1]


ENTERING = {  # what may enter a layer; in multiples of 1/64, so that no bin is unclear
    "bell": lambda: (torch.randn(3000).abs() ** 2 * 64).round() / 64,
    "ReLU": lambda: (torch.randn(3000).relu() ** 3 * 64).round() / 64,
    "few": lambda: (torch.randn(60) ** 2 * 64).round() / 64,
    "two": lambda: torch.cat([ENTERING["bell"](), torch.randint(0, 16, (300,)) / 2]),
}


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("kind", ENTERING)
def test_entropy_is_the_least_divergence_of_a_plain_loop(kind, bits):
    torch.manual_seed(bits)
    x = ENTERING[kind]()
    x[0] = 0  # the least value after a ReLU: it is no negative one
    x[1] = 2.0 ** math.ceil(math.log2(float(x.max())))  # so bins are exact, too
    low, high = mq.range_entropy(x, bits, bins=512)
    assert low == 0 and high == plain_entropy(x.tolist(), bits, bins=512)


def test_entropy_clips_a_tail_and_leaves_negative_values_alone():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(3000).abs(), torch.tensor([0.0, 40.0])])
    assert mq.range_entropy(x, 4)[1] < 10
    x[0] = -1e-3
    assert mq.range_entropy(x, 4) == mq.range_minmax(x)


@pytest.mark.parametrize("method", mq.RANGE_METHODS)
def test_calibrate_gives_usable_ranges(net, calibration_images, method):
    ranges = mq.calibrate(net, calibration_images[:100], method, bits=4)
    assert tuple(ranges) == NAMES
    with torch.inference_mode():
        entering = mq.activations(net, calibration_images[:100])
    for name, (low, high) in ranges.items():
        seen = mq.range_minmax(entering[name])
        assert seen[0] - 1e-4 <= low < high <= seen[1] + 1e-4
    zeros = torch.zeros(5, 3)
    assert mq.RANGE_METHODS[method](zeros, 4) == (0, 0)
    for far_from_0 in (torch.rand(5, 30) + 5, torch.rand(5, 30) - 6):
        low, high = mq.RANGE_METHODS[method](far_from_0, 4)
        assert low < high and max(abs(low), abs(high)) > 5


def test_calibrate_leaves_the_logits_at_8_bits(net, calibration_images):
    images = calibration_images[:100]
    at_2 = mq.calibrate(net, images, "mse", bits=2)
    at_8 = mq.calibrate(net, images, "mse", bits=8)
    assert at_2["output"] == at_8["output"] and at_2["conv2"] != at_8["conv2"]
    named = mq.calibrate(net, images, "mse", dict.fromkeys(NAMES, 2))
    assert named["output"] != at_8["output"] and named["fc2"] == at_2["fc2"]
    assert mq.calibrate(net, images, "mse") == at_8  # 8 bits, if nothing is said
    assert mq.calibrate(net, images) == mq.calibrate(net, images, "mean")
    with torch.inference_mode():
        entering = mq.activations(net, images)
    assert mq.choose_ranges(entering, "mse", bits=2) == at_2
    assert mq.choose_ranges(entering) == mq.calibrate(net, images)


IMAGES = torch.zeros(1, 1, 28, 28)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((torch.zeros(2, 28, 28),), "use .N, 1, 28, 28."),
        ((IMAGES[:0],), "empty"),
        ((IMAGES + math.nan,), "NaN"),
        ((IMAGES, "best"), "one of mean"),
        ((IMAGES, "mse", 9), "1 to 8"),
        ((IMAGES, "mse", 0), "from 1 to 16"),
        ((IMAGES, "mse", {"conv1": 8}), "name conv1, conv2"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(net, args, words):
    with pytest.raises(ValueError, match=words):
        mq.calibrate(net, *args)
