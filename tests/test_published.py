"""The published code: each of its bugs alone, on numbers small enough for a pencil."""

import numpy as np
import pytest
import torch
from torch import nn

import mnistq_helpers as mq

ALL = {"sign", "raw", "cut", "gap", "relu", "constant", "overwrite", "wide"}
ALL |= {"eight", "peek", "last"}

# -- one grid, one tensor -------------------------------------------------------------


@pytest.mark.parametrize(
    ("low_high", "bits", "bugs", "grid"),
    [
        ((-1.0, 2.0), 2, "", (1.0, 1)),
        ((-0.5, 1.0), 2, "", (0.5, 1)),
        ((-1.0, 254.0), 8, "", (1.0, 1)),
        ((-0.75, 2.25), 2, "", (1.0, 1)),  # 0.75 is rounded,
        ((-0.75, 2.25), 2, "cut", (1.0, 0)),  # or cut
        ((1.0, 6.0), 2, "", (2.0, 0)),  # widened down to 0,
        ((1.0, 4.0), 2, "gap", (1.0, 0)),  # or not
        ((-6.0, -1.0), 2, "", (2.0, 3)),  # up to 0,
        ((-4.0, -1.0), 2, "gap", (1.0, 3)),  # or not
        ((6.0, 6.0), 2, "", (2.0, 0)),  # a constant that widening helps
    ],
)
def test_grids_by_hand(low_high, bits, bugs, grid):
    found = mq.article_grid(low_high, bits, set(bugs.split()))
    assert found == grid and isinstance(found[1], int)
    others = ALL - {"cut", "gap"}  # no other bug changes a grid
    assert mq.article_grid(low_high, bits, set(bugs.split()) | others) == grid


@pytest.mark.parametrize("bugs", ["", "sign raw cut gap relu wide eight peek last"])
def test_a_constant_divides_by_zero(bugs):
    with pytest.raises(ZeroDivisionError):
        mq.article_quantize(torch.zeros(4), 8, set(bugs.split()))
    if "gap" in bugs:
        with pytest.raises(ZeroDivisionError):
            mq.article_grid((6.0, 6.0), 2, set(bugs.split()))


@pytest.mark.parametrize(
    ("x", "bugs", "codes", "zero_point"),
    [
        ([-1.0, 0.4, 0.5, 2.0], "", [0, 1, 2, 3], 1),  # 1.5 is rounded to 2
        ([-0.75, 0.0, 1.0, 2.25], "", [0, 1, 2, 3], 1),
        ([-0.75, 0.0, 1.0, 2.25], "cut", [0, 0, 1, 2], 0),  # -0.75 is out of reach
        ([1.0, 2.0, 4.0], "gap", [1, 2, 3], 0),
    ],
)
def test_codes_by_hand(x, bugs, codes, zero_point):
    q, scale, zero = mq.article_quantize(torch.tensor(x), 2, set(bugs.split()))
    assert q.is_floating_point() and q.tolist() == codes
    assert (scale, zero) == (1.0, zero_point)


# -- one layer ------------------------------------------------------------------------

W, B = [[-1.0, 2.0], [2.0, 0.0]], [-1.0, 2.0]  # on 2 bits exact: scale 1, zero 1
X = [[1.0, 3.0], [2.0, 0.0]]  # codes of [0, 1] and [0.5, -0.5]
# What leaves is W x + B = [1, 2] and [-2.5, 3], before ReLU.


def linear(w, b):
    module = nn.Linear(len(w[0]), len(w))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(w))
        module.bias.copy_(torch.tensor(b))
    return module


@pytest.mark.parametrize(
    ("bugs", "next_range", "codes"),
    [
        ("", (-1.0, 2.0), [[2, 3], [1, 3]]),  # plus 1, in 0 to 3, ReLU at 1
        ("sign", (-1.0, 2.0), [[3, 3], [1, 3]]),  # with the bias [1, 4]
        ("raw", (-1.0, 2.0), [[2, 3], [1, 4]]),
        ("raw", (-2.0, 4.0), [[1.5, 2], [1, 2.5]]),  # scale 2, zero 1; not rounded
        ("", (-2.0, 4.0), [[2, 2], [1, 2]]),
        ("", (-0.75, 2.25), [[2, 3], [1, 3]]),
        ("cut", (-0.75, 2.25), [[1, 2], [0, 3]]),  # zero 0
        ("", (1.0, 6.0), [[0, 1], [0, 2]]),  # scale 2, zero 0
        ("gap", (1.0, 4.0), [[1, 2], [0, 3]]),  # scale 1, zero 0
        ("relu", (-1.0, 2.0), [[2, 3], [0, 3]]),  # ReLU at 0
        ("eight", (-1.0, 2.0), [[170, 255], [85, 255]]),  # 85 codes for 1
    ],
)
def test_a_layer_by_hand(bugs, next_range, codes):
    layer = mq.Layer("fc", linear(W, B), relu=True)
    args = (torch.tensor(X), (0.5, 1), layer, next_range, 2)
    y, grid = mq.article_layer(*args, set(bugs.split()))
    # Their factors are float64 numbers that float32 takes: 1 / 85 is not exact.
    torch.testing.assert_close(y, torch.tensor(codes).float(), rtol=1e-6, atol=1e-6)
    bits = 8 if "eight" in bugs else 2
    assert grid == mq.article_grid(next_range, bits, set(bugs.split()))
    others = ALL - {"sign", "raw", "cut", "gap", "relu", "eight"}  # change no layer
    again, _ = mq.article_layer(*args, set(bugs.split()) | others)
    assert torch.equal(again, y)


def test_the_last_layer_has_8_bits_and_no_relu():
    layer = mq.Layer("fc", linear(W, B))
    args = (torch.tensor(X), (0.5, 1), layer, (-3.0, 4.65), 2, set())
    y, grid = mq.article_layer(*args, last=True)
    assert grid == (pytest.approx(0.03), 100)
    assert y.tolist() == [[133, 167], [17, 200]]  # 100 + [33.3, 66.7, -83.3, 100]


def test_without_bugs_a_convolution_is_its_formula_in_float64():
    torch.manual_seed(0)
    module, x_grid = nn.Conv2d(2, 3, 2), (0.05, 100)
    x = torch.randint(0, 256, (4, 2, 7, 7)).float()
    layer = mq.Layer("conv", module, relu=True, pool=((2, 2), (2, 2)))
    found, (y_scale, y_zero) = mq.article_layer(x, x_grid, layer, (-3, 5), 8, set())

    def rounded(values):
        values = values.detach().double().numpy()
        low, high = min(values.min(), 0), max(values.max(), 0)
        scale = (high - low) / 255
        zero = round(-low / scale)
        return scale * (np.clip(np.rint(values / scale + zero), 0, 255) - zero)

    w, b = rounded(module.weight), rounded(module.bias)
    real = x_grid[0] * (x.double().numpy() - x_grid[1])
    windows = np.lib.stride_tricks.sliding_window_view(real, (2, 2), (2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows, w) + b[:, None, None]
    assert (y_scale, y_zero) == (8 / 255, 96)
    y = y / y_scale + y_zero
    codes = np.clip(np.rint(np.maximum(y, y_zero)), 0, 255)
    pooled = codes.reshape(4, 3, 3, 2, 3, 2).max((3, 5))
    unclear = np.abs(y % 1 - 0.5) < 1e-3  # float32 may fall either way there
    clear = ~unclear.reshape(4, 3, 3, 2, 3, 2).any((3, 5))
    assert clear.mean() > 0.9
    assert (found.detach().numpy() == pooled)[clear].all()
    assert len(np.unique(pooled)) > 20


# -- the whole network ----------------------------------------------------------------


@pytest.fixture
def small():
    """Two layers that look at two pixels of two images: [0, 1] and [0.3, 0.1]."""
    first = nn.Linear(784, 2)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:, :2] = torch.tensor(W)
        first.bias.copy_(torch.tensor(B))
    second = linear([[-1.0, 2.0], [2.0, 0.3]], B)
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
    images = torch.zeros(2, 1, 28, 28)
    images[:, 0, 0, :2] = torch.tensor([[0.0, 1.0], [0.3, 0.1]])
    return net.requires_grad_(False), images


RANGES = {"1": (-0.5, 1.0), "3": (0.0, 3.0), "output": (-1.0, 5.375)}


@pytest.mark.parametrize(
    ("bugs", "logits"),
    [
        # 2 bits see [0, 1] and [0.5, 0]; then [1, 2] and [0, 3]; 0.3 becomes 0.
        ("", [[2, 4], [5, 2]]),
        ("eight", [[2, 4], [4.2, 2]]),  # [0.3, 0.1], then [0, 2.6]
        ("last", [[2, 4.6], [5, 2.9]]),  # 0.3 stays
        ("eight last", [[2, 4.6], [4.2, 2.78]]),
        ("sign", [[4, 5.375], [5.375, 4]]),  # the biases are 1 and 4: [3, 3] and [0, 3]
        ("raw", [[2, 4], [5, 2]]),  # what leaves is a code even so
        ("overwrite wide peek", [[2, 4], [5, 2]]),  # these change no number here
    ],
)
def test_a_forward_pass_by_hand(small, bugs, logits):
    net, images = small
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found, entering = mq.article_forward(net, RANGES, images, 2, set(bugs.split()))
    assert list(entering) == ["1", "3"] and entering["1"].shape == (2, 784)
    expected = torch.tensor(logits).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for name, value in net.state_dict().items():  # the published code wrote here
        assert torch.equal(value, before[name])


def test_wide_makes_ranges_64_times_too_wide(small):
    # The layers' means of minima and maxima: of [0, 1] and [0, 0.3]; of [1, 2] and
    # [0, 2.6]; of [2, 4.6] and [2.78, 4.2].
    means = {"1": (0.0, 0.65), "3": (0.5, 2.3), "output": (2.39, 4.4)}
    assert mq.article_ranges(*small, ALL - {"wide"}) == means
    assert mq.article_ranges(*small, {"wide"}) == {
        "1": (0.0, 41.6),
        "3": (32.0, 147.2),
        "output": (152.96, 281.6),
    }
    net, images = small
    assert mq.article_ranges(net, images / 300, "")["1"] == (0.0, 0.0)  # 2 decimals
