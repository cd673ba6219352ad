"""Scale and zero point: properties over all grids, references that others wrote."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import mnistq_helpers as mq

BITS = st.integers(1, 8)
FLOATS = st.floats(-1e4, 1e4, width=32)
VALUES = st.lists(FLOATS, min_size=1, max_size=40).map(torch.tensor)
GRIDS = st.fixed_dictionaries(
    {"bits": BITS, "signed": st.booleans(), "symmetric": st.booleans()}
)


@st.composite
def tensors_with_axis(draw):
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3))
    n = shape[0] * shape[1] * shape[2]
    values = draw(st.lists(FLOATS, min_size=n, max_size=n))
    axis = draw(st.sampled_from([None, 0, 1, 2]))
    return torch.tensor(values).reshape(shape), axis


def along(value, x, axis):
    """Reshape 1-d scales or zero points to go with x, independently of the helper."""
    if axis is None:
        return torch.tensor(float(value))
    shape = [1] * x.dim()
    shape[axis] = -1
    return value.double().reshape(shape)


@given(tensors_with_axis(), GRIDS)
def test_codes_stay_in_range_and_round_trip_errs_by_half_a_step(case, grid):
    x, axis = case
    q = mq.quantize_tensor(x, axis=axis, **grid)
    qmin, qmax = mq.code_range(grid["bits"], grid["signed"])
    assert q.tensor.dtype == (torch.int8 if grid["signed"] else torch.uint8)
    assert qmin <= int(q.tensor.min()) and int(q.tensor.max()) <= qmax
    error = (mq.dequantize_tensor(q).double() - x.double()).abs()
    # 1e-4: float32 keeps scale and x / scale to 7 digits, and codes reach 255.
    assert bool((error <= along(q.scale, x, axis) * (0.5 + 1e-4)).all())


@given(tensors_with_axis(), GRIDS)
def test_zero_is_the_zero_point_and_comes_back_exactly(case, grid):
    x, axis = case
    q = mq.quantize_tensor(x, axis=axis, **grid)
    known = (grid["bits"], q.scale, q.zero_point, grid["signed"])
    zero = mq.quantize_tensor(torch.zeros_like(x), *known, axis=axis)
    expected = along(torch.as_tensor(q.zero_point), x, axis).expand(x.shape)
    assert torch.equal(zero.tensor.double(), expected.double())
    assert bool((mq.dequantize_tensor(zero) == 0).all())
    if grid["symmetric"]:
        middle = 0 if grid["signed"] else 2 ** (grid["bits"] - 1)
        assert bool((torch.as_tensor(q.zero_point) == middle).all())


@given(VALUES, GRIDS)
def test_values_outside_saturate(x, grid):
    q = mq.quantize_tensor(x, **grid)
    qmin, qmax = mq.code_range(grid["bits"], grid["signed"])
    far = torch.tensor([-1e9, 1e9]) * max(q.scale, 1)
    known = (grid["bits"], q.scale, q.zero_point, grid["signed"])
    assert mq.quantize_tensor(far, *known).tensor.tolist() == [qmin, qmax]


@given(VALUES, GRIDS, st.integers(1, 7))
def test_more_bits_never_have_a_larger_step(x, grid, fewer):
    low, high = float(x.min()), float(x.max())
    more = {**grid, "bits": fewer + 1}
    coarse, _ = mq.calc_scale_zero_point(low, high, **{**grid, "bits": fewer})
    fine, _ = mq.calc_scale_zero_point(low, high, **more)
    assert fine <= coarse


@given(BITS, st.booleans(), st.floats(2**-10, 2**10, width=32), st.data())
def test_every_code_survives_the_way_back_and_forth(bits, signed, scale, data):
    qmin, qmax = mq.code_range(bits, signed)
    zero_point = data.draw(st.integers(qmin, qmax))
    codes = torch.arange(qmin, qmax + 1)
    x = mq.dequantize_tensor(mq.QTensor(codes, scale, zero_point))
    again = mq.quantize_tensor(x, bits, scale, zero_point, signed)
    assert torch.equal(again.tensor.long(), codes)
    assert bool((x.diff() > 0).all())


def assert_same_but_for_ties(ours, theirs, x, scale):
    """Both agree; where they differ, x / scale lies on a tie as far as float32 sees it.

    torch multiplies by 1 / scale, the helper divides by scale: one rounding apart.
    """
    fraction = (x.double() / scale) % 1
    tie = (fraction - 0.5).abs() < 2e-7 * (x.double() / scale).abs() + 1e-7
    assert bool(((ours - theirs).abs() <= scale * 1e-5)[~tie].all())


@given(VALUES, BITS, st.booleans(), st.booleans())
@example(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.0, 0.0]), 8, True, True)
def test_per_tensor_equals_torch_fake_quantize(x, bits, signed, symmetric):
    q = mq.quantize_tensor(x, bits, signed=signed, symmetric=symmetric)
    qmin, qmax = mq.code_range(bits, signed)
    theirs = torch.fake_quantize_per_tensor_affine(x, q.scale, q.zero_point, qmin, qmax)
    assert_same_but_for_ties(
        mq.dequantize_tensor(q).double(), theirs.double(), x, torch.tensor(q.scale)
    )


@given(tensors_with_axis(), BITS, st.booleans(), st.booleans())
def test_per_channel_equals_torch_fake_quantize(case, bits, signed, symmetric):
    x, axis = case
    axis = axis or 0
    q = mq.quantize_tensor(x, bits, signed=signed, symmetric=symmetric, axis=axis)
    theirs = torch.fake_quantize_per_channel_affine(
        x, q.scale, q.zero_point, axis, *mq.code_range(bits, signed)
    )
    assert_same_but_for_ties(
        mq.dequantize_tensor(q).double(), theirs.double(), x, along(q.scale, x, axis)
    )


@pytest.fixture(scope="module")
def quantize_linear():
    """ONNX Runtime's QuantizeLinear as a function of x, scale, zero_point."""
    sessions = {}
    for code_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])],
            "one",
            [
                info("x", onnx.TensorProto.FLOAT, [None]),
                info("s", onnx.TensorProto.FLOAT, []),
                info("z", code_type, []),
            ],
            [info("q", code_type, [None])],
        )
        opset = [onnx.helper.make_opsetid("", 13)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
        sessions[code_type == onnx.TensorProto.INT8] = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def run(x, scale, zero_point, signed):
        feed = {
            "x": x.numpy(),
            "s": np.array(scale, np.float32),
            "z": np.array(zero_point, np.int8 if signed else np.uint8),
        }
        return torch.from_numpy(sessions[signed].run(None, feed)[0])

    return run


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_equal_onnx_runtime_bit_for_bit(quantize_linear, signed, symmetric):
    generator = torch.Generator().manual_seed(3)
    for spread in (1e-3, 1.0, 30.0, 1e4):
        x = torch.randn(20_001, generator=generator) * spread
        q = mq.quantize_tensor(x, signed=signed, symmetric=symmetric)
        assert torch.equal(q.tensor, quantize_linear(x, q.scale, q.zero_point, signed))
        ties = (torch.arange(-300, 300) + 0.5) * np.float32(0.25)
        ours = mq.quantize_tensor(ties, 8, 0.25, q.zero_point, signed).tensor
        assert torch.equal(ours, quantize_linear(ties, 0.25, q.zero_point, signed))


def test_by_hand():
    # [-1, 2] on 2 bits: scale 1, zero point 1; 0.5 and 1.5 are ties, to the even code.
    x = torch.tensor([[-1.0, 0.0, 0.4], [0.5, 1.5, 2.0]])
    q = mq.quantize_tensor(x, bits=2)
    assert (q.scale, q.zero_point) == (1.0, 1)
    assert q.tensor.tolist() == [[0, 1, 1], [1, 3, 3]]
    # The range [5, 6] is widened to [0, 6]; a cut of it would make 0 impossible.
    assert mq.calc_scale_zero_point(5, 6, bits=8) == (6 / 255, 0)
    assert mq.calc_scale_zero_point(-6, -5, bits=8) == (6 / 255, 255)
    assert mq.calc_scale_zero_point(0, 0) == (1.0, 0)
    assert mq.calc_scale_zero_point(-2, 1, signed=True, symmetric=True) == (2 / 127, 0)


def test_sixteen_bits():
    x = torch.linspace(-1, 1, 1001)
    q = mq.quantize_tensor(x, bits=16)
    assert q.tensor.dtype == torch.int32
    assert float((mq.dequantize_tensor(q) - x).abs().max()) < 0.51 * q.scale


def test_without_options_a_grid_is_8_bits_unsigned_affine_for_the_whole_tensor():
    x = torch.tensor([[-1.0, 0.25], [0.5, 1.55]])
    scale, zero_point = mq.own_grid(x)
    assert scale == pytest.approx(2.55 / 255) and zero_point == 100
    scales, zero_points = mq.own_grid(x, axis=0)
    assert scales.dtype == torch.float32 and zero_points.dtype == torch.int32
    assert scales.tolist() == pytest.approx([1.25 / 255, 1.55 / 255])
    assert zero_points.tolist() == [204, 0]
    assert mq.calc_scale_zero_point(-1, 1.55) == pytest.approx((0.01, 100))
    assert mq.code_range(8) == (0, 255) and mq.code_range(8, True) == (-128, 127)
    q = mq.quantize_tensor(x)
    assert q.tensor.tolist() == [[0, 125], [150, 255]]
    assert (q.scale, q.zero_point, q.axis) == (scale, zero_point, None)


def test_snr_is_that_of_its_definition():
    x = torch.tensor([3.0, 4.0])
    assert mq.snr_db(x, x + 0.05) == pytest.approx(10 * np.log10(25 / 0.005), abs=1e-3)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mq.quantize_tensor(torch.tensor([1.0, NAN])), "NaN or infinity"),
        (lambda: mq.quantize_tensor(torch.tensor([1.0, INF])), "NaN or infinity"),
        (lambda: mq.quantize_tensor(torch.zeros(0, 3)), "empty"),
        (lambda: mq.quantize_tensor(torch.zeros(3, dtype=torch.int8)), "give floats"),
        (lambda: mq.quantize_tensor(torch.ones(3), bits=0), "from 1 to 16"),
        (lambda: mq.quantize_tensor(torch.ones(3), bits=17), "from 1 to 16"),
        (lambda: mq.quantize_tensor(torch.ones(3), bits=4.0), "from 1 to 16"),
        (lambda: mq.quantize_tensor(torch.ones(3), bits=True), "from 1 to 16"),
        (lambda: mq.quantize_tensor(torch.ones(3), axis=1), "no axis 1"),
        (lambda: mq.quantize_tensor(torch.ones(3), scale=1.0), "both, or neither"),
        (lambda: mq.quantize_tensor(torch.ones(3), zero_point=0), "both, or neither"),
        (lambda: mq.quantize_tensor(torch.ones(3), 8, 0.0, 0), "positive"),
        (lambda: mq.quantize_tensor(torch.ones(3), 8, -1.0, 0), "positive"),
        (lambda: mq.quantize_tensor(torch.ones(3), 8, NAN, 0), "positive"),
        (lambda: mq.quantize_tensor(torch.ones(3), 8, 1.0, 256), "0 to 255"),
        (lambda: mq.quantize_tensor(torch.ones(3), 8, 1.0, 0.5), "an integer"),
        (
            lambda: mq.quantize_tensor(
                torch.ones(3, 2), 8, torch.ones(2), torch.zeros(2), axis=0
            ),
            "does not fit",
        ),
        (
            lambda: mq.quantize_tensor(torch.ones(3), 8, torch.ones(3), 0),
            "does not fit",
        ),
        (lambda: mq.calc_scale_zero_point(2, 1), "swap"),
        (lambda: mq.calc_scale_zero_point(NAN, 1), "not finite"),
        (lambda: mq.calc_scale_zero_point(0, INF), "not finite"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
