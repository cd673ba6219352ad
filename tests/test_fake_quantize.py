"""Fake quantization: gradients against torch's, moving and learned ranges by hand."""

import math

import pytest
import torch

import mnistq_helpers as mq


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


def test_without_numbers_a_range_moves_by_a_hundredth_and_at_once():
    step = mq.MovingRange(8, 0.0, 1.0)
    x = torch.tensor([-1.0, 3.0])
    assert not torch.equal(step(x), x)  # no delay
    assert step.grid_range() == pytest.approx((-0.01, 1.02))
    assert step.bits == 8


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_learned_step_begins_with_its_range_and_is_kept_at_0(bits):
    step = mq.LearnedStep(bits, -5.0, 3.0)  # what lies below 0 is not looked at
    assert float(step.scale.detach()) == pytest.approx(3 / (2**bits - 1))
    assert step.grid_range() == pytest.approx((0, 3)) and step.bits == bits
    x = torch.tensor([-1.0, 0.0, 1.4, 9.0])
    q = mq.quantize_tensor(x, bits, step.scale.detach(), 0)
    assert torch.equal(step(x), mq.dequantize_tensor(q))
    with torch.no_grad():
        step.scale *= 2
    assert step.grid_range() == pytest.approx((0, 6))
