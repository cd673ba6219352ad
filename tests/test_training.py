"""Quantization-aware training: what it simulates, and how it is trained."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import LAYERS
from torch import nn

import mnistq_helpers as mq


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_weights_begin_with_the_papers_step(net, ranges, bits):
    """2 mean|w| / sqrt(qmax) for each output; at 1 bit nothing is learned."""
    qat = mq.QatNet(net, ranges, bits, 2)
    assert set(qat.steps) == (set(LAYERS) if bits > 1 else set())
    for name, step in qat.steps.items():
        w = getattr(net, name).weight.detach().double().numpy()
        size = abs(w).reshape(len(w), -1).mean(1)
        expected = 2 * size / math.sqrt(2 ** (bits - 1) - 1)
        assert step.detach().numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_weights_and_biases_lie_on_their_grids(net, ranges, bits):
    qat = mq.QatNet(net, ranges, bits, 2)
    for layer in (part for part in qat.parts if isinstance(part, mq.Layer)):
        w, b = (v.detach() for v in layer.module.parameters())
        if bits == 1:
            q = mq.quantize_weight(w, 1)
        else:
            grid = (bits, qat.steps[layer.name].detach(), torch.zeros(len(w)))
            q = mq.quantize_tensor(w, *grid, signed=True, axis=0)
        w_hat, b_hat = (v.detach() for v in qat.parameters_of(layer))
        assert torch.equal(w_hat, mq.dequantize_tensor(q))
        entering, in_bits = ranges["conv1"], 8
        if layer.name != "conv1":
            entering, in_bits = qat.enter[layer.name].grid_range(), 2
        scale = mq.calc_scale_zero_point(*entering, in_bits)[0] * q.scale
        units = (b_hat / scale).round()
        torch.testing.assert_close(b_hat, units * scale, rtol=1e-5, atol=0)
        assert bool(((b_hat - b).abs() <= 0.501 * scale).all())
        assert not torch.equal(b_hat, b)


def test_input_and_logits_keep_their_ranges_and_8_bits(net, ranges, test_set):
    qat = mq.QatNet(net, ranges, 2, 2).eval()
    assert isinstance(qat.enter["output"], mq.MovingRange)
    assert qat.enter["output"].bits == 8
    assert qat.enter["output"].grid_range() == pytest.approx(ranges["output"])
    qnet = qat.quantize()
    grid = mq.calc_scale_zero_point(*ranges["conv1"])
    assert (qnet.in_bits, qnet.in_scale, qnet.in_zero_point) == (8, *grid)
    last = qnet.layers["fc2"]
    grid = mq.calc_scale_zero_point(*ranges["output"])
    assert (last.out_scale, last.out_zero_point) == pytest.approx(grid)
    assert (last.low, last.high) == (0, 255)
    # Two images whose pixels have the same codes are the same to it.
    images = test_set[0][:20]
    q = mq.quantize_tensor(images, 8, qnet.in_scale, qnet.in_zero_point)
    on_grid = mq.dequantize_tensor(q)
    assert not torch.equal(on_grid, images)
    with torch.inference_mode():
        assert torch.equal(qat(on_grid), qat(images))
    wide = mq.QatNet(net, ranges | {"conv1": (-200.0, 200.0)}, 8, 8).eval()
    with torch.inference_mode():
        assert len(wide(images.clamp(max=0)).unique(dim=0)) == 1  # all below one step


def test_the_moving_range_keeps_99_percent_of_what_it_was():
    moving = mq.MovingRange(8, -1.0, 1.0).train()
    moving(torch.tensor([-3.0, 5.0]))
    assert moving.grid_range() == pytest.approx((-1.02, 1.04))
    moving.eval()(torch.tensor([-9.0, 9.0]))
    assert moving.grid_range() == pytest.approx((-1.02, 1.04))


def test_ranges_after_a_relu_start_at_0(net, ranges, test_set):
    qat = mq.QatNet(net, ranges, 4, 4, mq.MovingRange).train()
    qat(test_set[0][:50])
    assert [qat.enter[n].grid_range()[0] for n in ("conv2", "fc1", "fc2")] == [0, 0, 0]
    assert qat.enter["output"].grid_range()[0] < 0


@pytest.mark.parametrize("activation", [mq.LearnedStep, mq.MovingRange])
@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (3, 2), (2, 2), (1, 2), (1, 1)])
def test_the_integers_compute_what_the_simulation_does(
    bits, activation, random_net, test_set
):
    """With one rounding; a sum on the edge between two codes may fall either way."""
    images = test_set[0][:100]
    with torch.no_grad():
        for name, parameter in random_net.named_parameters():
            if name.endswith("weight"):
                parameter /= math.sqrt(parameter[0].numel()) * 0.2
    act_bits = dict.fromkeys(LAYERS, bits[1])
    ranges = mq.calibrate(random_net, images, "mse", act_bits)
    qat = mq.QatNet(random_net, ranges, *bits, activation).eval()
    seen = {}
    for name, step in qat.enter.items():
        step.register_forward_hook(lambda m, i, o, n=name: seen.update({n: o}))
    with torch.inference_mode():
        scores = qat(images)
    codes = qat.quantize("float").codes(images)
    same = torch.ones(len(images), dtype=torch.bool)  # in all layers so far
    for name in ("conv2", "fc1", "fc2", "output"):
        width = 8 if name == "output" else bits[1]
        grid = mq.calc_scale_zero_point(*qat.enter[name].grid_range(), width)
        x = seen[name].reshape(codes[name].shape)
        expected = mq.quantize_tensor(x, width, *grid).tensor
        assert len(expected.unique()) > 1
        torch.testing.assert_close(  # what left the simulation is on the grid
            mq.dequantize_tensor(mq.QTensor(expected, *grid)), x, rtol=1e-5, atol=1e-5
        )
        different = (codes[name].int() - expected.int()).abs().flatten(1)
        assert int(different[same].max()) <= 1
        # One code that differs moves up to 500 sums of the next layer a little.
        assert float((different > 0).float().mean()) < 0.02, name
        agreed, same = same, same & (different.amax(1) == 0)
    assert agreed.sum() > 50
    logits = mq.dequantize_tensor(mq.QTensor(codes["output"], *grid))
    torch.testing.assert_close(
        torch.log_softmax(logits, 1)[agreed],
        scores[agreed],
        rtol=0,
        atol=2 * grid[0] + 1e-4,
    )


def test_training_moves_weights_and_steps_but_not_the_original(net, test_set):
    images, labels = test_set[0][:512], test_set[1][:512]
    before = copy.deepcopy(net.state_dict())
    ranges = mq.calibrate(net, images, "minmax")
    torch.manual_seed(5)
    qat = mq.QatNet(net, ranges, 2, 2)
    start = {k: v.detach().clone() for k, v in qat.named_parameters()}
    history = mq.fine_tune(qat, images, labels, epochs=6, test=(images, labels))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(not torch.equal(v, start[k]) for k, v in qat.named_parameters())
    assert history[-1]["loss"] < history[0]["loss"]
    assert [len(epoch["losses"]) for epoch in history] == [4] * 6
    means = [sum(epoch["losses"]) / 4 for epoch in history]  # batches of one size
    assert means == pytest.approx([epoch["loss"] for epoch in history], rel=1e-5)
    plain = mq.quantize_net(net, ranges, 2, 2)
    trained = qat.quantize()
    assert mq.evaluate(trained, images, labels) == pytest.approx(
        history[-1]["accuracy"], abs=0.02
    )
    assert mq.evaluate(trained, images, labels) > mq.evaluate(plain, images, labels)


def test_fine_tune_takes_the_steps_of_torchs_sgd_on_a_cosine(net, test_set):
    images, labels = test_set[0][:256], test_set[1][:256].flip(0)  # for long steps
    tuned, other = copy.deepcopy(net), copy.deepcopy(net)
    torch.manual_seed(3)
    mq.fine_tune(tuned, images, labels, epochs=2, lr=0.01)
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.01, momentum=0.9)
    for step in range(4):
        if step % 2 == 0:
            order = torch.randperm(256)
        batch = order[:128] if step % 2 == 0 else order[128:]
        torch.randint(0, 1, (2, 128, 1, 1))  # the place of the crop
        optimizer.param_groups[0]["lr"] = 0.005 * (1 + math.cos(math.pi * step / 4))
        optimizer.zero_grad()
        loss = F.nll_loss(other(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(tuned.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_pupil_equal_to_its_teacher_has_nothing_to_learn(net, test_set):
    images, labels = test_set[0][:256], test_set[1][:256].flip(0)  # never looked at
    pupil = copy.deepcopy(net)
    history = mq.fine_tune(pupil, images, labels, epochs=1, shift=2, teacher=net)
    assert abs(history[0]["loss"]) < 1e-6
    for ours, theirs in zip(pupil.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_teachers_loss_is_the_divergence_from_its_probabilities(net, random_net):
    """sum p (log p - log q) with the teacher's p, not the pupil's."""
    torch.manual_seed(0)
    images = torch.randn(64, 1, 28, 28)
    with torch.no_grad():
        p, q = net(images).double().exp(), random_net(images).double().exp()
    expected = float((p * (p / q).log()).sum(1).mean())
    swapped = float((q * (q / p).log()).sum(1).mean())
    assert abs(expected - swapped) > 0.1 * expected
    labels = torch.zeros(64, dtype=torch.int64)
    pupil = copy.deepcopy(random_net)
    history = mq.fine_tune(pupil, images, labels, epochs=1, teacher=net)
    assert history[0]["losses"] == pytest.approx([expected], rel=1e-3)


class Witness(nn.Module):
    """Keeps the images that it is shown."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(784, 10), []

    def forward(self, x):
        self.seen.append(x)
        return F.log_softmax(self.layer(x.flatten(1)), 1)


@pytest.mark.parametrize("shift", [0, 1])
def test_images_are_shifted_over_their_background(shift):
    torch.manual_seed(0)
    images, labels = torch.rand(5, 1, 28, 28) - 0.4, torch.arange(5)
    images[:, 0, 0, 0] = -0.4  # the least value: what lies around
    model = Witness()
    options = {"shift": shift} if shift else {}
    mq.fine_tune(model, images, labels, epochs=20, **options)
    padded = F.pad(images, [shift] * 4, value=-0.4)
    places = range(2 * shift + 1)
    windows = {
        (row, column): padded[..., row : row + 28, column : column + 28]
        for row in places
        for column in places
    }
    found = set()
    for x in torch.cat(model.seen):
        equal = [k for k, v in windows.items() if bool((v == x).all((1, 2, 3)).any())]
        assert len(equal) == 1
        found.add(equal[0])
    assert found == set(windows)


def test_fine_tune_without_numbers(net, test_set):
    images, labels = test_set[0][:128], test_set[1][:128]
    tuned = []
    for options in ({}, {"epochs": 2, "lr": 0.03, "shift": 0, "teacher": None}):
        torch.manual_seed(3)
        pupil = copy.deepcopy(net)
        history = mq.fine_tune(pupil, images, labels, **options)
        assert len(history) == 2 and "accuracy" not in history[-1]
        tuned.append(pupil.fc2.weight.detach())
    assert torch.equal(*tuned)


def test_random_crops_are_windows_at_every_place():
    torch.manual_seed(2)
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    crops = mq.random_crops(image.expand(400, 1, 6, 6), 4)
    assert crops.shape == (400, 1, 4, 4)
    places = set()
    for crop in crops[:, 0]:
        top, left = divmod(int(crop[0, 0]), 6)
        assert torch.equal(crop, image[0, 0, top : top + 4, left : left + 4])
        places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(3)}
    assert torch.equal(mq.random_crops(image, 6), image)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n, r: mq.QatNet(n, r, 0, 8), "from 1 to 16"),
        (lambda n, r: mq.QatNet(n, r, 8, 9), "1 to 8"),
        (lambda n, r: mq.QatNet(n, r, 2.0, 2), "from 1 to 16"),
        (lambda n, r: mq.QatNet(n, {"conv1": (0, 1)}, 2, 2), "give conv1, conv2"),
        (lambda n, r: mq.QatNet(n, r | {"fc1": (0, math.nan)}, 2, 2), "not finite"),
        (lambda n, r: mq.QatNet(n, r, 2, 2)(torch.zeros(1, 784)), "N, 1, 28, 28"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(net, ranges, call, words):
    with pytest.raises(ValueError, match=words):
        call(net, ranges)


def test_folded_batch_norm_equals_unfolded(from_notebook, test_set):
    names = "fold", "BatchNormNet"
    taught = from_notebook("08_quantization_aware_training", *names)
    fold, net_class = (taught[name] for name in names)
    torch.manual_seed(4)
    unfolded, images = net_class().double().eval(), test_set[0][:50].double()
    for bn in (unfolded.bn1, unfolded.bn2, unfolded.bn3):
        for values in (bn.weight.data, bn.running_var):
            values.uniform_(0.1, 3)
        for values in (bn.bias.data, bn.running_mean):
            values.normal_()
    folded = mq.Net().double()
    state = {k: v for k, v in unfolded.state_dict().items() if k[:2] != "bn"}
    for name, bn in (("conv1", "bn1"), ("conv2", "bn2"), ("fc1", "bn3")):
        layer = getattr(unfolded, name)
        w, b = fold(layer, getattr(unfolded, bn))
        state |= {f"{name}.weight": w, f"{name}.bias": b}
        # Per channel the integers stay; a weight on a tie may fall either way.
        codes = [
            mq.quantize_weight(v.float(), 8).tensor for v in (w, layer.weight.detach())
        ]
        assert float((codes[0] != codes[1]).float().mean()) < 0.001
        assert int((codes[0].int() - codes[1]).abs().max()) <= 1
    folded.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), unfolded(images))
