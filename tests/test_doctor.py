"""diagnose names the planted fault's place and what mends it, and no sound network."""

import copy
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

import mnistq_helpers as mq

PLACES = ("conv1", "conv2", "fc1", "fc2", "output")


@pytest.fixture(scope="module")
def case(net, calibration_images):
    """(float network, its ranges, images)."""
    return net, mq.calibrate(net, calibration_images, "mse"), calibration_images[:50]


def mended(qnet, name, **changes):
    """Return qnet with a layer that is otherwise."""
    steps = [
        replace(s, **changes) if getattr(s, "name", "") == name else s
        for s in qnet.steps
    ]
    return replace(qnet, steps=tuple(steps))


@pytest.mark.parametrize("method", ["mean", "mse"])
@pytest.mark.parametrize("path", [mq.COMMITTED, mq.SHIFTED], ids=lambda p: p.stem)
def test_a_sound_network_is_not_accused(path, method, calibration_images):
    net, images = mq.load_net(path), calibration_images[:100]
    for bits in (8, 4, 3):
        ranges = mq.calibrate(net, calibration_images, method, bits)
        found = mq.diagnose(net, mq.quantize_net(net, ranges, bits, bits), images)
        assert (found.place, found.remedy) == (None, None)
        assert "Nothing breaks" in found.text
        assert [row.name for row in found.rows] == list(PLACES)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("times", [64, 0.1])
def test_a_range_that_is_too_wide_or_too_narrow(name, times, case):
    net, ranges, images = case
    low, high = ranges[name]
    wrong = {**ranges, name: (low * times, high * times)}
    bits = {n: 8 for n in PLACES} | {name: 6}
    found = mq.diagnose(net, mq.quantize_net(net, wrong, 8, bits), images)
    assert (found.place, found.remedy) == (name, "range")
    assert f"ranges['{name}']" in found.text
    assert ("narrow" if times > 1 else "widen") in found.text


@pytest.mark.parametrize("name", PLACES[1:4])
def test_too_few_bits_for_a_tensor(name, case, calibration_images):
    net, _, images = case
    bits = {n: 8 for n in PLACES} | {name: 1}
    ranges = mq.calibrate(net, calibration_images, "mse", bits)
    found = mq.diagnose(net, mq.quantize_net(net, ranges, 8, bits), images)
    assert (found.place, found.remedy) == (name, "bits")
    assert f"{name} " in found.text and "more than 1 bit." in found.text


@pytest.mark.parametrize("number", range(4))
def test_too_few_bits_for_weights(number, case):
    net, ranges, images = case
    name = PLACES[number]
    bits = {n: 8 for n in PLACES[:4]} | {name: 1}
    found = mq.diagnose(net, mq.quantize_net(net, ranges, bits, 8), images)
    assert (found.place, found.remedy) == (PLACES[number + 1], "bits")
    assert f"weights of {name}" in found.text


def test_one_scale_for_all_where_a_channel_is_far_larger(case):
    net, ranges, images = case
    net = copy.deepcopy(net)
    with torch.no_grad():  # a weight that reads what is always 0
        zero = (mq.activations(net, images)["fc1"].flatten(1) == 0).all(0)
        net.fc1.weight[7, zero.nonzero()[0]] = 30
    per_tensor = mq.quantize_net(net, ranges, per_channel=False)
    found = mq.diagnose(net, per_tensor, images)
    assert (found.place, found.remedy) == ("fc2", "per channel")
    assert mq.diagnose(net, mq.quantize_net(net, ranges), images).place is None


@pytest.mark.parametrize("number", range(4))
def test_a_bias_that_is_wrong(number, case):
    net, ranges, images = case
    name, qnet = PLACES[number], mq.quantize_net(net, ranges)
    layer = qnet.layers[name]
    step = int(0.5 * max(ranges[PLACES[number + 1]]) / (layer.in_scale * 1e-3)) // 1000
    wrong = layer.bias + (step / layer.weight_scale).round().int()
    found = mq.diagnose(net, mended(qnet, name, bias=wrong), images)
    assert (found.place, found.remedy) == (PLACES[number + 1], "bias")
    assert f"bias of {name}" in found.text


@pytest.mark.parametrize("number", range(3))
def test_a_relu_that_is_missing(number, case):
    net, ranges, images = case
    name, out = PLACES[number : number + 2]
    ranges = {**ranges, out: (-ranges[out][1], ranges[out][1])}
    qnet = mq.quantize_net(net, ranges)
    found = mq.diagnose(net, mended(qnet, name, low=0), images)
    assert (found.place, found.remedy) == (out, "ReLU")
    assert mq.diagnose(net, qnet, images).place is None


def test_a_multiplier_that_is_wrong(case):
    net, ranges, images = case
    qnet = mq.quantize_net(net, ranges)
    wrong = mended(qnet, "fc1", shift=qnet.layers["fc1"].shift + 1)
    found = mq.diagnose(net, wrong, images)
    assert (found.place, found.remedy) == ("fc2", "arithmetic")


NEAR = dict.fromkeys(PLACES, 3) | {"conv1": 8, "output": 8}  # bits of activations


@pytest.fixture(scope="module", params=[mq.COMMITTED, mq.SHIFTED], ids=lambda p: p.stem)
def clipped(request, calibration_images):
    """(network, 2-bit weights that move its outputs, ranges before and after)."""
    net, weights = mq.load_net(request.param), {}
    for name, layer in mq.read_layers(net).items():
        w = layer.weight.detach()
        grid = mq.mse_weight_scale(w, 2), torch.zeros(len(w))
        weights[name] = mq.quantize_tensor(w, 2, *grid, signed=True, axis=0)
    once = mq.calibrate(net, calibration_images, "mse", NEAR)
    qnet = mq.quantize_net(net, once, 2, NEAR, weights=weights)
    rounded = mq.with_weights_of(net, qnet)
    again = mq.calibrate(rounded, calibration_images, "mse", NEAR)
    return net, weights, once, again


@pytest.mark.parametrize("names", [["fc2"], []])
def test_ranges_that_were_measured_before_the_weights_were_rounded(
    names, clipped, calibration_images, test_set
):
    net, weights, once, again = clipped
    ranges = again | {name: once[name] for name in names}
    qnet = mq.quantize_net(net, ranges, 2, NEAR, weights=weights)
    found = mq.diagnose(net, qnet, calibration_images[:50])
    assert (found.place, found.remedy) == ("fc1", "bits")
    planted = "Or keep the bits: ranges['fc2'] fits the float network"
    assert (planted in found.text) == bool(names)
    if not names:
        return
    images, labels = test_set[0][:1000], test_set[1][:1000]
    better = mq.quantize_net(net, again, 2, NEAR, weights=weights)
    reads = [mq.evaluate(q, images, labels) for q in (qnet, better)]
    assert reads[1] > reads[0]


def test_a_network_with_the_integers_weights_is_another_one(clipped):
    net, weights, once, _ = clipped
    before = copy.deepcopy(net.state_dict())
    rounded = mq.with_weights_of(net, mq.quantize_net(net, once, 2, weights=weights))
    for name, layer in mq.read_layers(rounded).items():
        assert torch.equal(layer.weight, mq.dequantize_tensor(weights[name]))
        bias = net.get_submodule(name).bias
        assert 0 < (layer.bias - bias).abs().max() < 0.01
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_narrower_range_is_named_before_more_bits(case, calibration_images):
    net, _, images = case
    bits = dict.fromkeys(PLACES, 8) | {"conv1": 3}
    right = mq.calibrate(net, calibration_images, "mse", bits)
    wide = right | {"conv1": tuple(3 * end for end in right["conv1"])}
    found = mq.diagnose(net, mq.quantize_net(net, wide, 8, bits), images)
    assert (found.place, found.remedy) == ("conv1", "range")
    low, high = right["conv1"]
    assert found.text == (
        "conv1 uses 3 of 8 codes, and few values reach the outer ones: narrow "
        f"ranges['conv1'] to about [{low:.2g}, {high:.2g}]."
    )
    assert mq.diagnose(net, mq.quantize_net(net, right, 8, bits), images).place is None


def test_a_first_rounding_that_is_coarse():
    """4 * 0.3415 = 1.366 leaves as 2: 2.73 is 3, and a half of it is rounded to 2."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, 1), torch.nn.Flatten(), torch.nn.Linear(16, 2)
    )
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[0].bias.fill_(0)
    images = 4.0 * (torch.arange(160).reshape(10, 1, 4, 4) % 3 == 0)
    with torch.no_grad():
        high = float(net(images).abs().max()) * 2
    ranges = {"0": (0, 7), "2": (0, 7 / 0.3415), "output": (-high, high)}
    bits = {"0": 3, "2": 3, "output": 8}
    for requantize, remedy in (("fixed", "requantize"), ("float", None)):
        options = {"requantize": requantize, "in_shape": (1, 4, 4)}
        qnet = mq.quantize_net(net, ranges, {"0": 2, "2": 8}, bits, **options)
        found = mq.diagnose(net, qnet, images)
        assert found.remedy == remedy
        assert remedy is None or found.place == "2"
        assert remedy is None or "the first time to 1/2 of a code" in found.text


def test_8_bits_that_are_too_few_for_weights(case):
    net, ranges, images = case
    net = copy.deepcopy(net)
    with torch.no_grad():  # in each row, a weight that reads what is always 0
        zero = (mq.activations(net, images)["fc1"].flatten(1) == 0).all(0)
        net.fc1.weight[:, zero.nonzero()[0]] = 30
    found = mq.diagnose(net, mq.quantize_net(net, ranges), images)
    assert (found.place, found.remedy) == ("fc2", "weights")
    assert "far larger than the others of their channel" in found.text


def test_what_no_step_breaks_alone_is_said_to_be_so(case, calibration_images):
    net, _, images = case
    ranges = mq.calibrate(net, calibration_images, "minmax", 3)
    found = mq.diagnose(net, mq.quantize_net(net, ranges, 3, 3), images)
    own, together = (
        [row.name for row in found.rows if getattr(row, ratio) < 9]
        for ratio in ("own", "snr")
    )
    assert not own and together
    start = "No layer or sum alone falls below 9 dB, but their errors together do at"
    also = "It is also the one that errs most itself."
    if found.place != together[0]:
        also = f"Up to there {found.place} errs most itself."
    assert found.text.startswith(f"{start} {together[0]}. {also}")


def test_weights_of_another_network(case):
    net, ranges, images = case
    other = mq.Net()
    other.load_state_dict(net.state_dict())
    torch.manual_seed(0)
    with torch.no_grad():
        other.fc1.weight.copy_(other.fc1.weight[torch.randperm(500)])
    found = mq.diagnose(net, mq.quantize_net(other, ranges), images)
    assert (found.place, found.remedy) == ("fc2", "weights")


def test_the_rows_measure_what_they_say(case):
    net, ranges, images = case
    qnet = mq.quantize_net(net, ranges, 4, 4)
    found = mq.diagnose(net, qnet, images)
    with torch.inference_mode():
        exact = mq.activations(net, images)
    codes = qnet.codes(images)
    for row in found.rows:
        x, q = exact[row.name], codes[row.name].reshape(exact[row.name].shape)
        grid = qnet.grids[row.name]
        x_hat = mq.dequantize_tensor(mq.QTensor(q, *grid))
        assert row.snr == pytest.approx(mq.snr_db(x, x_hat), abs=1e-3)
        assert row.codes == len(q.unique()) <= 2 ** (8 if row.name == "output" else 4)
        error = (x_hat - x).double()
        assert row.mean == pytest.approx(
            float(error.mean() / x.double().std(correction=0)), abs=1e-3
        )
        whole = row.mean**2 + (row.slope - 1) ** 2 + row.scatter**2
        spread = x.double().var(correction=0)
        assert whole == pytest.approx(float(error.square().mean() / spread), rel=1e-3)
    assert found.rows[0].maker == "the image" and found.rows[-1].maker == "fc2"


def test_it_draws(case):
    net, ranges, images = case
    for bits, title in ((8, "Nothing breaks"), (1, "The first to mend: conv1")):
        figure = Figure()
        found = mq.diagnose(net, mq.quantize_net(net, ranges, bits, bits), images)
        found.draw(figure)
        assert figure.axes[0].get_title(loc="left") == title or (
            figure.axes[0].get_title() == title
        )
        assert len(figure.axes[0].patches) == len(PLACES)


def test_another_networks_integers_are_refused(case):
    net, ranges, images = case
    small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(ValueError, match="not made of this network"):
        mq.diagnose(small, mq.quantize_net(net, ranges), images)
