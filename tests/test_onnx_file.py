"""The .onnx file: in ONNX Runtime it gives every code that the helper gives."""

import onnx
import onnxruntime as ort
import pytest
import torch
from helpers import (
    NAMES,
    assert_same_codes,
    full_range_network,
    random_network,
    run_onnx,
)

import mnistq_helpers as mq


@pytest.mark.parametrize("seed", range(12))
def test_onnx_runtime_gives_every_layers_codes(seed, tmp_path):
    qnet, images = random_network(seed, "float")
    codes = qnet.codes(images)
    assert min(len(codes[n].unique()) for n in NAMES) > 1  # something to compare
    mq.export_onnx(qnet, tmp_path / "net.onnx")
    assert_same_codes(run_onnx(tmp_path / "net.onnx", codes["conv1"]), codes)


def test_the_random_networks_reach_every_branch():
    layers = [
        layer
        for seed in range(12)
        for layer in random_network(seed, "float")[0].layers.values()
    ]
    assert {layer.weight_bits for layer in layers} == set(range(1, 9))
    assert {layer.high.bit_length() for layer in layers} == set(range(1, 9))
    assert any(layer.low > 0 and layer.high == 255 for layer in layers)
    assert any(layer.low > 0 and layer.high < 255 for layer in layers)
    assert any(layer.low == 0 for layer in layers)
    assert len({layer.in_zero_point for layer in layers}) > 10


def test_full_range_products_do_not_saturate(tmp_path):
    images = torch.ones(4, 1, 28, 28)
    qnet = full_range_network("float")
    assert set(qnet.layers["conv2"].weight.flatten().tolist()) == {127}
    assert int(qnet.codes(images)["conv1"].min()) == 255
    mq.export_onnx(qnet, tmp_path / "net.onnx")
    found = run_onnx(tmp_path / "net.onnx", qnet.codes(images)["conv1"])
    assert_same_codes(found, qnet.codes(images))


def test_the_onnx_file_multiplies_uint8_by_uint8(tmp_path):
    """What saturates on processors without VNNI is uint8 by int8."""
    mq.export_onnx(random_network(1, "float")[0], tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {""}  # the standard alone
    types = {c.name: c.data_type for c in model.graph.initializer}
    kernels = [n.input for n in model.graph.node if n.op_type == "QLinearConv"]
    assert len(kernels) == 4
    for inputs in kernels:
        assert types[inputs[3]] == types[inputs[2]] == onnx.TensorProto.UINT8
    float_constants = {n for n, t in types.items() if t == onnx.TensorProto.FLOAT}
    assert all(n.endswith("scale") for n in float_constants)


@pytest.mark.parametrize("seed", [1, 2])  # one scale for the tensor, and for each row
def test_a_scale_and_its_zero_point_have_the_same_shape(seed, tmp_path):
    """The specification asks for it; OpenCV refuses a scalar beside a vector."""
    mq.export_onnx(random_network(seed, "float")[0], tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    constants = {c.name: c for c in graph.initializer}
    layers = [n.input for n in graph.node if n.op_type == "QLinearConv"]
    assert len(layers) == 4
    for inputs in layers:
        for scale, zero_point in (inputs[1:3], inputs[4:6], inputs[6:8]):
            shape = list(constants[scale].dims)
            assert list(constants[zero_point].dims) == shape
        (outputs,) = constants[inputs[8]].dims
        assert list(constants[inputs[4]].dims) == [outputs]
        zero_points = onnx.numpy_helper.to_array(constants[inputs[5]])
        assert set(zero_points.tolist()) == {128}


def test_the_onnx_files_ports_are_named_and_shaped(tmp_path):
    """One file for any number of images; outputs as qnet.codes has them, but fc1."""
    mq.export_onnx(random_network(1, "float")[0], tmp_path / "net.onnx")
    session = ort.InferenceSession(tmp_path / "net.onnx")
    ports = [*session.get_inputs(), *session.get_outputs()]
    assert {port.name: port.shape for port in ports} == {
        "conv1": ["N", 1, 28, 28],
        "conv2": ["N", 20, 12, 12],
        "fc1": ["N", 50, 4, 4],
        "fc2": ["N", 500],
        "output": ["N", 10],
    }
    assert {port.type for port in ports} == {"tensor(uint8)"}


def test_a_rounding_that_onnx_does_not_have_is_refused(tmp_path):
    qnet, _ = random_network(0, "fixed")
    with pytest.raises(ValueError, match="ONNX cannot round as requantize="):
        mq.export_onnx(qnet, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
