"""A drawing becomes a picture of MNIST's; one of MNIST's stays as it is."""

import pytest
import torch
from hands import HANDS, inked
from hypothesis import given
from hypothesis import strategies as st

import mnistq_helpers as mq
from mnistq import drawing


def as_ink(images):
    return ((images[:, 0] * mq.STD + mq.MEAN) * 255).round() / 255


def as_images(pictures):
    return (torch.stack(pictures)[:, None] - mq.MEAN) / mq.STD


def read(net, pictures):
    with torch.inference_mode():
        return net(as_images(pictures)).argmax(1)


def unchanged(pictures):
    after = torch.stack([mq.prepare_digit(ink) for ink in pictures])
    return (pictures == after).flatten(1).all(1)


def test_pictures_of_mnist_come_back_unchanged(test_set):
    same = unchanged(as_ink(test_set[0][:2000]))
    assert int(same.sum()) >= 1940


@pytest.mark.parametrize("times", [2, 3, 4])
def test_larger_ones_that_lie_elsewhere_become_the_same(test_set, times):
    for ink in as_ink(test_set[0][:20]):
        paper = torch.zeros(40 + 28 * times, 60 + 28 * times)
        large = ink.repeat_interleave(times, 0).repeat_interleave(times, 1)
        paper[30 : 30 + 28 * times, 7 : 7 + 28 * times] = large
        assert torch.equal(mq.prepare_digit(paper), mq.prepare_digit(ink))


@pytest.mark.parametrize("hand", HANDS)
@pytest.mark.parametrize("high, pen", [(80, 6), (50, 6), (25, 6), (16, 6), (80, 1)])
def test_digits_of_any_size_are_read(net, hand, high, pen):
    """By float; 16 of 112 pixels are 14 %."""
    pictures = [mq.prepare_digit(inked(d, high, pen)) for d in HANDS[hand].values()]
    assert int((read(net, pictures) == torch.arange(10)).sum()) >= 9


def test_the_width_of_a_stroke_is_measured():
    for width in (4, 8, 12):
        straight = torch.zeros(100, 300)
        straight[40 : 40 + width, 10:290] = 0.5
        assert mq.stroke_width(straight) == pytest.approx(width, rel=0.06)
        slanted = inked([[(0, 0.1), (1, 0.9)]], 280, width, 300)
        assert mq.stroke_width(slanted) == pytest.approx(width, rel=0.06)


def width_of(ink):
    fine = drawing.scaled(drawing.cut_out(ink.double()), drawing.FINE)
    return drawing.seen_width(fine)


@pytest.mark.parametrize("digit", [2, 5, 7])
@pytest.mark.parametrize("pen", [1, 3, 24])
def test_strokes_too_narrow_or_too_wide_become_usual(digit, pen):
    """And stay so."""
    ink = inked(HANDS["round"][digit], 60, pen)
    assert not drawing.NARROW <= width_of(ink) <= drawing.WIDE
    picture = mq.prepare_digit(ink)
    assert drawing.NARROW <= width_of(picture) <= drawing.WIDE
    assert bool(unchanged(picture[None]))


def test_a_blot_is_thinned_until_it_is_read(net):
    """16 of 112 pixels high, in a pen 8 wide: 10 of 20 as they are."""
    blots = [inked(digit, 16, 8) for hand in HANDS.values() for digit in hand.values()]
    right = read(net, [mq.prepare_digit(blot) for blot in blots])
    assert int((right == torch.arange(10).repeat(2)).sum()) >= 16


def test_thickened_is_the_largest_within_the_radius():
    dot = torch.zeros(7, 7).double()
    dot[3, 3] = 0.5
    assert torch.equal(drawing.thickened(dot, 0.5), dot)
    plus = drawing.thickened(dot, 1.0)
    assert plus[3, 2:5].tolist() == plus[2:5, 3].tolist() == [0.25, 0.5, 0.25]
    assert float(plus.sum()) == pytest.approx(1.5 + 4 * 0.5 * (1.5 - 2**0.5))


def test_an_average_covers_what_it_says():
    assert torch.allclose(
        mq.area_average(3, 2),
        torch.tensor([[2, 1, 0], [0, 1, 2]]).double() / 3,
    )
    for n, m in ((7, 3), (3, 7), (112, 80), (1, 80)):
        assert torch.allclose(mq.area_average(n, m).sum(1), torch.ones(m).double())
        assert torch.allclose(
            mq.area_average(n, m).sum(0), torch.full((n,), m / n).double()
        )


def test_an_empty_picture_stays_empty():
    picture = mq.prepare_digit(torch.zeros(5, 9))
    assert picture.shape == (28, 28) and picture.dtype == torch.float32
    assert not picture.any()


@pytest.mark.parametrize(
    "ink",
    [
        torch.zeros(1, 28, 28),
        torch.zeros(28),
        torch.full((28, 28), 1.1),
        torch.full((28, 28), -0.1),
        torch.full((28, 28), torch.nan),
        torch.full((28, 28), 255, dtype=torch.uint8),
    ],
)
def test_what_is_no_picture_is_refused(ink):
    with pytest.raises(ValueError, match="paper"):
        mq.prepare_digit(ink)


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0.001, 0.99), st.integers(0, 99)
)
def test_any_ink_becomes_a_picture(height, width, share, seed):
    generator = torch.Generator().manual_seed(seed)
    ink = torch.rand(height, width, generator=generator)
    ink *= torch.rand(height, width, generator=generator) < share
    ink[height // 2, width // 2] = 1
    picture = mq.prepare_digit(ink)
    assert picture.min() >= 0 and 0 < picture.max() <= 1
    assert torch.equal((255 * picture).round() / 255, picture)
