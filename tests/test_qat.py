"""Quantization-aware training: gradients against torch's, and against the integers."""

import copy
import math

import pytest
import torch

import mnistq_helpers as mq

NAMES = (*mq.LAYERS, "output")


def sample(seed, *shape):
    """Values from far below to far above the grids used here, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * 2
    return x.requires_grad_(), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_gradients_are_those_of_torchs_fake_quantization(bits, signed):
    qmin, qmax = mq.code_range(bits, signed)
    zero_point = (qmin + qmax) // 2
    scale = torch.tensor(3.0 / 2**bits)
    x, grad = sample(bits, 4000)
    ours = mq.FakeQuantize.apply(x, scale, zero_point, bits, signed, None)
    (our_grad,) = torch.autograd.grad(ours, x, grad)
    theirs = torch.fake_quantize_per_tensor_affine(
        x, float(scale), zero_point, qmin, qmax
    )
    (their_grad,) = torch.autograd.grad(theirs, x, grad)
    clipped = int((our_grad != grad).sum())
    assert 0 < clipped < x.numel()  # both cases occur
    assert torch.equal(ours, theirs) and torch.equal(our_grad, their_grad)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_scales_gradient_is_that_of_torchs_learned_one(bits):
    qmin, qmax = mq.code_range(bits)
    x, grad = sample(bits, 4000)
    scale = torch.tensor([3.0 / 2**bits], requires_grad=True)
    zero = torch.tensor([1.0], requires_grad=True)
    factor = 1 / math.sqrt(x.numel() * qmax)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, zero, qmin, qmax, factor
    )
    expected = torch.autograd.grad(theirs, (x, scale), grad)
    ours_scale = scale.detach()[0].requires_grad_()
    ours = mq.FakeQuantize.apply(x, ours_scale, 1, bits, False, None)
    found = torch.autograd.grad(ours, (x, ours_scale), grad)
    assert torch.equal(ours, theirs) and torch.equal(found[0], expected[0])
    assert found[1].shape == () and float(expected[1]) != 0
    torch.testing.assert_close(found[1], expected[1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_scales_gradients_per_channel(bits):
    qmin, qmax = mq.code_range(bits, signed=True)
    x, grad = sample(bits, 6, 50, 3, 3)
    scale = (torch.arange(1, 7) / 2**bits).requires_grad_()
    zero = torch.zeros(6)
    factor = 1 / math.sqrt(qmax * 50 * 9)
    theirs = torch._fake_quantize_learnable_per_channel_affine(
        x, scale, zero, 0, qmin, qmax, factor
    )
    expected = torch.autograd.grad(theirs, (x, scale), grad)
    ours = mq.FakeQuantize.apply(x, scale, zero, bits, True, 0)
    found = torch.autograd.grad(ours, (x, scale), grad)
    assert torch.equal(ours, theirs) and torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


def test_straight_through_passes_everything():
    x, grad = sample(1, 50)
    x_hat = mq.StraightThrough.apply(x, torch.round(x.detach()))
    assert torch.equal(x_hat, torch.round(x))
    assert torch.equal(torch.autograd.grad(x_hat, x, grad)[0], grad)


def test_moving_range_by_hand():
    step = mq.MovingRange(2, 0.0, 1.0, delay=2, decay=0.75)
    batch = torch.tensor([-1.0, 0.3, 3.0])
    assert torch.equal(step(batch), batch)  # the first delay batches pass
    assert step.grid_range() == (-0.25, 1.5)  # a quarter of the way to [-1, 3]
    assert torch.equal(step(batch), batch)
    assert step.grid_range() == (-0.4375, 1.875)
    # now [-0.578125, 2.15625] in 3 steps; zero point round(0.63) = 1
    width = (2.15625 + 0.578125) / 3
    torch.testing.assert_close(step(batch), torch.tensor([-1, 0, 2]) * width)
    step.eval()
    torch.testing.assert_close(step(batch * 9), torch.tensor([-1, 2, 2]) * width)
    assert step.grid_range() == (-0.578125, 2.15625)


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
    act_bits = dict.fromkeys(mq.LAYERS, bits[1])
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
        loss = torch.nn.functional.nll_loss(other(images[batch]), labels[batch])
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
    taught = from_notebook("07_quantization_aware_training", *names)
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


SAVED = sorted(mq.LOW_BITS.glob("*.mnistq"))


def test_the_committed_networks_are_all_there():
    pairs = {(4, 4), (2, 2), (1, 2), (1, 1)}
    short = {f"w{w}a{a}_seed{seed}" for w, a in pairs for seed in (1, 2, 3)}
    assert {path.stem for path in SAVED} == short | {"w2a2_long", "w1a1_long"}


@pytest.mark.parametrize("path", SAVED, ids=lambda p: p.stem)
def test_the_committed_networks_hold_their_bits(path, test_set):
    qnet = mq.QuantizedNet.load(path)
    weight_bits, act_bits = int(path.stem[1]), int(path.stem[3])
    assert {layer.weight_bits for layer in qnet.layers.values()} == {weight_bits}
    for layer in qnet.layers.values():
        assert len(layer.weight.unique()) <= 2**weight_bits
    codes = qnet.codes(test_set[0][:200])
    assert qnet.in_bits == 8 and qnet.requantize == "fixed"
    for name in ("conv2", "fc1", "fc2"):
        assert 2 ** (act_bits - 1) <= int(codes[name].max()) < 2**act_bits


TARGETS = {"w4a4": 0.991, "w2a2": 0.989, "w1a2": 0.988, "w1a1": 0.983}
LONG_TARGETS = {"w2a2": 0.993, "w1a1": 0.989}


@pytest.mark.parametrize("kind", TARGETS)
def test_accuracy_of_the_committed_networks(kind, test_set):
    def accuracy(name):
        qnet = mq.QuantizedNet.load(mq.LOW_BITS / f"{kind}_{name}.mnistq")
        return mq.evaluate(qnet, *test_set)

    seeds = [accuracy(f"seed{seed}") for seed in (1, 2, 3)]
    assert sum(seeds) / 3 >= TARGETS[kind]
    if kind in LONG_TARGETS:
        assert accuracy("long") >= LONG_TARGETS[kind]
