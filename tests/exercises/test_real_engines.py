import numpy as np
import pytest
import torch

from mnistq.exercises import real_engines

from .suite import Suite

WRONG = {
    "my_requantize": [
        ("torch.round", "torch.trunc", "do not cut off"),
        (" + zero_point", "", "The zero point is added"),
        ("torch.round(", "torch.floor(0.5 + ", "not up"),
        ("m) + zero_point", "m + zero_point)", "Round before the zero point"),
        (".clamp(0, 255)", ".int()", "below 0 becomes 0"),
        (".clamp(0, 255)", ".clamp(max=255).int()", "below 0 becomes 0"),
        (".clamp(0, 255)", ".clamp(min=0).int()", "above 255 becomes 255"),
        ("acc.float()", "acc.double()", "works in float32"),
        (".to(torch.uint8)", "", "give uint8"),
        (
            "torch.round(acc.float() * m) + zero_point",
            "torch.round((acc.float() + zero_point) * m)",
            "after the multiplication",
        ),
        (".clamp(0, 255)", ".clamp(1, 255)", "0 is a code, too"),
        (".clamp(0, 255)", ".clamp(0, 254)", "255 is a code, too"),
        (".to(torch.uint8)", ".long()", "give codes, uint8"),
        (".to(torch.uint8)", ".int()", "give codes, uint8"),
        ("acc.float() * m", "acc.float() / m", "give codes, uint8"),
    ],
    "my_packed_bytes": [
        (" / 8", "", "not bits"),
        ("count * bits / 8", "count * (bits // 8)", "not bits"),
        ("math.ceil", "math.floor", "counts: round up"),
        ("count * bits / 8", "count / (8 // bits)", "no gaps"),
        (
            "sum(math.ceil(count * bits / 8) for count in counts)",
            "math.ceil(sum(counts) * bits / 8)",
            "each",
        ),
        ("count * bits / 8)", "count / 8) * bits", "then round up, once"),
        ("count * bits / 8)", "count * bits / 8) + 1", "not bits"),
        (
            "math.ceil(count * bits / 8)",
            "math.ceil(count / (8 / bits) / 4) * 4",
            "not bits",
        ),
    ],
    "my_first_difference": [
        ("a[name] != b[name]", "a[name] > b[name]", "upwards or downwards"),
        ("a[name] != b[name]", "a[name] - b[name]", "wraps"),
        (
            "(a[name] != b[name])",
            "(a[name].int() - b[name].int()).abs()",
            "not how far apart",
        ),
        ("in a:", "in reversed(a):", "the culprit"),
        ("in a:", "in sorted(a):", "not the alphabet's"),
        ('"none", 0', "next(reversed(a)), 0", "Nothing differs"),
        ("in a:", 'in ("conv1", "conv2", "fc1", "fc2"):', "which layers there are"),
        (
            "(a[name] != b[name]).sum()",
            "len(set(a[name].tolist()) - set(b[name].tolist()))",
            "each with the one in its place",
        ),
        (
            "(a[name] != b[name]).sum()",
            "(a[name] != b[name]).sum() * (a[name].sum() != b[name].sum())",
            "each with the one in its place",
        ),
        (
            "        if count:",
            "        if count and a[name].sum() != b[name].sum():",
            "each with the one in its place",
        ),
        (
            "a[name] != b[name]",
            "a[name].flatten().sort()[0] != b[name].flatten().sort()[0]",
            "each with the one in its place",
        ),
        (
            "    for name in a:",
            "    for name in [n for n in a if a[n].float().mean() != "
            "b[n].float().mean()] or a:",
            "from the start",
        ),
    ],
}

RIGHT = [
    ("my_requantize", "torch.round(acc.float() * m)", "acc.float().mul(m).round()"),
    (
        "my_requantize",
        "q.clamp(0, 255).to(torch.uint8)",
        "torch.tensor(np.clip(q.numpy(), 0, 255).astype(np.uint8))",
    ),
    (
        "my_requantize",
        "q.clamp(0, 255)",
        "torch.minimum(torch.maximum(q, q * 0), q * 0 + 255)",
    ),
    ("my_requantize", "acc.float() * m", "acc.to(torch.float32) * np.float32(m)"),
    ("my_packed_bytes", "math.ceil(count * bits / 8)", "(count * bits + 7) // 8"),
    (
        "my_packed_bytes",
        "sum(math.ceil(count * bits / 8) for count in counts)",
        "int(np.ceil(np.array(counts) * bits / 8).sum())",
    ),
    ("my_packed_bytes", "count * bits / 8", "count / 8 * bits"),
    (
        "my_first_difference",
        "(a[name] != b[name]).sum()",
        "(a[name] != b[name]).count_nonzero()",
    ),
    (
        "my_first_difference",
        "(a[name] != b[name]).sum()",
        "np.sum(a[name].numpy() != b[name].numpy())",
    ),
    (
        "my_packed_bytes",
        "math.ceil(count * bits / 8)",
        "-(-np.int64(count) * bits // 8)",
    ),
    ("my_first_difference", "return name, count", "return [name, count]"),
    (
        "my_first_difference",
        "int((a[name] != b[name]).sum())",
        "(a[name] != b[name]).sum()",
    ),
]


class TestRealEngines(Suite):
    module, wrong, right = real_engines, WRONG, RIGHT


def test_the_requantizer_that_an_answer_is_compared_with_is_onnx_runtimes(monkeypatch):
    """A QLinearConv of a pixel that is 0: its sums are its biases."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(real_engines, "judge", lambda _, *rest: found.append(rest))
        real_engines.my_requantize(None)
    reference, cases, _ = found[0]
    spread = torch.arange(-300, 300)
    large = 2**24 + torch.arange(200) * 98_305  # not all are float32 numbers
    examples = [arguments for arguments, _ in cases]
    for m, zero_point in ((0.5, 0), (0.5, 7), (0.25, 128), (0.3, 255), (1.7, 31)):
        examples.append((spread.int(), m, zero_point))
    for m in (2.0**-18, 2.0**-17, 3e-6):
        examples.append((torch.cat([large, -large]).int(), m, 101))
    ties = 0
    for acc, m, zero_point in examples:
        halves = acc.float() * m
        ties += int((halves - halves.floor() == 0.5).sum())
        constants = {
            "zero": np.uint8(0),
            "one": np.float32(1),
            "m": np.float32(m),
            "w": np.ones((len(acc), 1, 1, 1), np.uint8),
            "zero_point": np.uint8(zero_point),
            "acc": acc.numpy(),
        }
        inputs = ["x", "m", "zero", "w", "one", "zero", "one", "zero_point", "acc"]
        h, kind = onnx.helper, onnx.TensorProto.UINT8
        graph = h.make_graph(
            [h.make_node("QLinearConv", inputs, ["y"])],
            "requantize",
            [h.make_tensor_value_info("x", kind, [1, 1, 1, 1])],
            [h.make_tensor_value_info("y", kind, [1, len(acc), 1, 1])],
            [
                onnx.numpy_helper.from_array(np.asarray(value), name)
                for name, value in constants.items()
            ],
        )
        opset = [h.make_opsetid("", 13)]
        model = h.make_model(graph, opset_imports=opset, ir_version=8)
        session = runtime.InferenceSession(model.SerializeToString())
        (y,) = session.run(None, {"x": np.zeros((1, 1, 1, 1), np.uint8)})
        expected = reference(acc, m, zero_point).tolist()
        assert y.flatten().tolist() == expected, (m, zero_point)
    assert ties > 300
