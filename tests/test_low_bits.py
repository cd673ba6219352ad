"""GPTQ and the recipe of notebook 07, against slow references and plain rounding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mnistq_helpers as mq


def problem(seed, out=12, n=40, samples=400):
    """Return (w, x): weights and correlated inputs, like a ReLU's."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(n, n, generator=g) / n**0.5
    x = (torch.randn(samples, n, generator=g) @ mixing + 0.3).relu()
    return torch.randn(out, n, generator=g), x


def nearest(w, scale, bits):
    low, high = mq.code_range(bits, signed=True)
    if bits == 1:
        return torch.where(w < 0, -1, 1).to(torch.int8)
    q = (w.double() / scale.double()[:, None]).round().clamp(low, high)
    return q.to(torch.int8)


def output_error(w, codes, scale, x):
    return float(((codes * scale[:, None] - w) @ x.T).square().sum())


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_gptq_errs_less_in_the_output_than_plain_rounding(bits):
    ratios = []
    for seed in range(50):
        w, x = problem(seed)
        q = mq.gptq(w, x.T @ x, bits)
        plain = nearest(w, q.scale, bits)
        ratio = output_error(w, q.tensor, q.scale, x)
        ratios.append(ratio / output_error(w, plain, q.scale, x))
    ratios = sorted(ratios)
    print(f"{bits} bits: {ratios[0]:.2f}, {ratios[25]:.2f}, {ratios[-1]:.2f}")
    assert ratios[-1] < 0.9  # in all 50
    assert ratios[25] < (0.7 if bits == 1 else 0.6)  # the median


@pytest.mark.parametrize("bits", range(1, 9))
def test_gptq_codes_are_in_range(bits):
    w, x = problem(bits)
    q = mq.gptq(w.reshape(12, 10, 2, 2), x.T @ x, bits)
    low, high = mq.code_range(bits, signed=True) if bits > 1 else (-1, 1)
    assert q.tensor.dtype == torch.int8 and q.tensor.shape == (12, 10, 2, 2)
    assert low <= q.tensor.min() and q.tensor.max() <= high
    assert bits > 1 or bool(q.tensor.all())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_unrelated_inputs_leave_plain_rounding(bits):
    w, _ = problem(1)
    h = torch.diag(torch.rand(40, generator=torch.Generator().manual_seed(2)) + 0.1)
    q = mq.gptq(w, h, bits)
    assert torch.equal(q.tensor, nearest(w, q.scale, bits))


def slow_gptq(w, h, scale, bits, damping):
    """The paper's equation 2, word for word: the inverse anew for each column."""
    h = h.double() + damping * h.double().diagonal().mean() * torch.eye(len(h))
    w, codes = w.double().clone(), torch.zeros(w.shape, dtype=torch.int8)
    low, high = mq.code_range(bits, signed=True)
    for i in range(len(h)):
        inverse = torch.linalg.inv(h[i:, i:])
        for row in range(len(w)):
            q = float(torch.round(w[row, i] / scale[row]).clamp(low, high))
            error = (w[row, i] - q * scale[row]) / inverse[0, 0]
            w[row, i:] -= error * inverse[0]
            codes[row, i] = int(q)
    return codes


@pytest.mark.parametrize("bits", [2, 3, 6])
@pytest.mark.parametrize("damping", [0.01, 0.3])
def test_gptq_follows_the_papers_formula(bits, damping):
    w, x = problem(bits, out=4, n=20)
    h = x.T @ x
    q = mq.gptq(w, h, bits, damping=damping)
    slow = slow_gptq(w, h, q.scale.double(), bits, damping)
    assert torch.equal(q.tensor, slow)
    assert torch.equal(q.scale, mq.mse_weight_scale(w, bits))
    if damping == 0.01:  # that is so, if nothing is said
        assert torch.equal(mq.gptq(w, h, bits).tensor, slow)
    given = torch.linspace(0.1, 1, 4)
    q = mq.gptq(w, h, bits, given, damping)
    assert torch.equal(q.scale, given)
    assert torch.equal(q.tensor, slow_gptq(w, h, given.double(), bits, damping))


def test_gptq_refuses_what_it_cannot_use():
    w, x = problem(0)
    h = x.T @ x
    bad = torch.full_like(w, float("nan"))
    cases = [
        ((bad, h, 2), {}, "NaN"),
        ((w, h * float("inf"), 2), {}, "NaN or infinity"),
        ((w[:0], h, 2), {}, "empty"),
        ((w, h[:5], 2), {}, r"h has shape \(5, 40\): give \(40, 40\)"),
        ((w, h, 0), {}, "whole number"),
        ((w, h, 9), {}, "1 to 8"),
        ((w, h, 2, torch.ones(3)), {}, "does not fit"),
        ((w, h, 2, -torch.ones(12)), {}, "positive"),
        ((w, h, 2), {"damping": -1}, "damping is -1"),
        ((w, -h, 2), {}, "raise damping"),
    ]
    for args, options, message in cases:
        with pytest.raises(ValueError, match=message):
            mq.gptq(*args, **options)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_mse_scale_is_no_worse_than_any_other_tried(bits):
    w, _ = problem(3)
    scale = mq.mse_weight_scale(w, bits)
    error = (nearest(w, scale, bits) * scale[:, None] - w).square().sum(1)
    for factor in (0.3, 0.5, 0.7, 0.9, 1.0):
        other = factor * mq.quantize_weight(w, bits).scale
        worse = (nearest(w, other, bits) * other[:, None] - w).square().sum(1)
        assert bool((error <= worse * 1.0001).all())


@pytest.mark.parametrize("steps", [7, 80])
def test_the_mse_scale_tries_these_sizes_and_no_others(steps):
    """80 unless another number is given."""
    w, _ = problem(5)
    top = mq.quantize_weight(w, 3).scale
    tried = torch.stack([top * i / steps for i in range(1, steps + 1)])

    def error(scale):
        return (nearest(w, scale, 3) * scale[:, None] - w).square().sum(1)

    best = torch.stack([error(scale) for scale in tried]).argmin(0)
    options = {} if steps == 80 else {"steps": steps}
    found = mq.mse_weight_scale(w, 3, **options)
    assert torch.equal(found, tried[best, torch.arange(len(w))])


def test_a_layers_rows_times_its_weights_are_what_it_computes():
    torch.manual_seed(1)
    for layer, x in (
        (nn.Conv2d(3, 5, (2, 4), bias=False), torch.randn(6, 3, 7, 8)),
        (nn.Linear(12, 5, bias=False), torch.randn(6, 12)),
    ):
        y = mq.layer_rows(layer, x) @ layer.weight.flatten(1).T
        expected = layer(x)
        if expected.dim() == 4:
            expected = F.unfold(expected, 1).transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(y, expected)


def test_the_refitted_scale_is_the_best_for_its_codes():
    w, x = problem(4)
    h = x.T @ x
    q = mq.refit_scale(w, mq.gptq(w, h, 2), h)
    best = output_error(w, q.tensor, q.scale, x)
    for factor in (0.98, 1.02):
        assert output_error(w, q.tensor, factor * q.scale, x) > best
    dead = q._replace(tensor=torch.zeros_like(q.tensor))
    assert torch.equal(mq.refit_scale(w, dead, h).scale, q.scale)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_fitted_layer_has_the_mean_and_the_slope_of_the_float_one(with_bias):
    w, x = problem(6)
    layer = nn.Linear(40, 12, bias=with_bias)
    layer.weight.data = w
    x_hat = (x * 2).round() / 2 + 0.1  # as earlier layers' errors would make it
    q, bias = mq.fit_layer(layer, x, x_hat, 2)
    y = layer(x).detach()
    y_hat = x_hat @ mq.dequantize_tensor(q).T + bias
    torch.testing.assert_close(y_hat.mean(0), y.mean(0), atol=1e-3, rtol=1e-3)
    wanted, found = x_hat @ w.T, y_hat - y_hat.mean(0)
    slope = ((wanted - wanted.mean(0)) * found).sum(0) / found.square().sum(0)
    torch.testing.assert_close(slope, torch.ones(12), atol=1e-3, rtol=1e-3)
    h = (x_hat - x_hat.mean(0)).T @ (x_hat - x_hat.mean(0))
    assert torch.equal(q.tensor, mq.gptq(w, h, 2).tensor)


def test_a_layer_is_fitted_without_what_is_left_out():
    w, x = problem(7)
    layer = nn.Linear(40, 12)
    layer.weight.data = w
    start = mq.quantize_weight(w, 2)
    asked = []

    def given(*args):
        asked.append(args)
        return start

    q, bias = mq.fit_layer(layer, x, x, 2, given, slope=False, mean=False)
    assert q is start and torch.equal(bias, layer.bias)
    ((found, h, bits),) = asked
    assert torch.equal(found, w) and bits == 2
    torch.testing.assert_close(h, torch.cov(x.T) * (len(x) - 1))
    q, bias = mq.fit_layer(layer, x, x, 2, given, slope=False)
    assert q is start and not torch.equal(bias, layer.bias)
    q, bias = mq.fit_layer(layer, x, x, 2, given, mean=False)
    assert torch.equal(q.tensor, start.tensor) and torch.equal(bias, layer.bias)
    assert torch.equal(q.scale, mq.refit_scale(w, start, h).scale)


def test_the_recipe_fits_each_layer_to_the_codes_before_it(net, calibration_images):
    few, seen = calibration_images[:40], []

    def fit(layer, x, x_hat, bits):
        seen.append((layer, x, x_hat, bits))
        return mq.quantize_weight(layer.weight.detach(), bits), layer.bias.detach()

    acts = {"conv1": 8, "conv2": 3, "fc1": 3, "fc2": 3}
    found = mq.quantize_best(net, few, 3, acts, fit=fit)
    plain = mq.quantize_net(net, mq.calibrate(net, few, "mse", acts), 3, acts)
    assert torch.equal(found(few), plain(few))
    exact, codes = mq.activations(net, few), plain.codes(few)
    assert len(seen) == 4
    for (layer, x, x_hat, bits), name in zip(seen, plain.layers, strict=True):
        step = plain.layers[name]
        grid = step.in_scale, step.in_zero_point
        entered = mq.dequantize_tensor(mq.QTensor(codes[name], *grid))
        assert torch.equal(x_hat, mq.layer_rows(layer, entered))
        assert torch.equal(x, mq.layer_rows(layer, exact[name])) and bits == 3


def test_the_recipe_beats_plain_rounding_and_leaves_the_net(
    net, calibration_images, test_set
):
    images, labels = test_set[0][:2000], test_set[1][:2000]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    bits = {"conv1": 8, "conv2": 2, "fc1": 2, "fc2": 2}
    best = mq.quantize_best(net, calibration_images, 2, bits)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    plain = mq.quantize_net(net, mq.calibrate(net, calibration_images, "mse"), 2, bits)
    assert mq.evaluate(best, images, labels) > 0.95
    assert mq.evaluate(best, images, labels) > mq.evaluate(plain, images, labels) + 0.1
    assert best.nbytes == plain.nbytes and best.requantize == "fixed"


def test_the_recipe_refuses_what_its_parts_refuse(net, calibration_images):
    few = calibration_images[:20]
    for args, message in [
        ((few[:0], 2, 2), "empty"),
        ((few[:, :, 1:], 2, 2), "use \\[N, 1, 28, 28\\]"),
        ((few, 0, 2), "whole number"),
        ((few, 2, 9), "1 to 8"),
        ((few, 2, 2, "other"), "requantize is"),
    ]:
        with pytest.raises(ValueError, match=message):
            mq.quantize_best(net, *args)
