"""The .tflite file: in LiteRT it gives every code that the helper gives."""

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from helpers import (
    assert_same_codes,
    full_range_network,
    random_network,
    run_litert,
)
from torch import nn

import mnistq_helpers as mq
from mnistq.tflite_file import tflite_bytes, tflite_tensor


@pytest.mark.parametrize("seed", range(12))
def test_litert_reference_kernels_give_every_layers_codes(seed, tmp_path):
    qnet, images = random_network(seed, "fixed")
    codes = qnet.codes(images)
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    assert_same_codes(run_litert(tmp_path / "net.tflite", codes["conv1"]), codes)


@pytest.mark.parametrize("seed", range(4))
def test_litert_default_kernels_round_as_float_does(seed, tmp_path):
    fixed, images = random_network(seed, "fixed")
    rounded, _ = random_network(seed, "float")
    mq.export_tflite(fixed, tmp_path / "net.tflite")
    codes = rounded.codes(images)
    found = run_litert(tmp_path / "net.tflite", codes["conv1"], OpResolverType.AUTO)
    assert_same_codes(found, codes)


def test_full_range_products_do_not_saturate(tmp_path):
    images = torch.ones(4, 1, 28, 28)
    qnet = full_range_network("fixed")
    assert set(qnet.layers["conv2"].weight.flatten().tolist()) == {127}
    assert int(qnet.codes(images)["conv1"].min()) == 255
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    found = run_litert(tmp_path / "net.tflite", qnet.codes(images)["conv1"])
    assert_same_codes(found, qnet.codes(images))


def test_as_it_lies_in_the_file_it_reads_one_image(tmp_path):
    """No runtime has to resize: shapes of 1 image, and any number if asked for."""
    qnet, images = random_network(2, "fixed")
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    for image in images[:3].split(1):
        codes = qnet.codes(image)
        found = run_litert(tmp_path / "net.tflite", codes["conv1"], resize=False)
        assert_same_codes(found, codes)
    interpreter = Interpreter(model_path=str(tmp_path / "net.tflite"))
    ports = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    shapes = {port["name"]: port["shape_signature"].tolist() for port in ports}
    assert shapes == {
        "conv1": [-1, 28, 28, 1],
        "conv2": [-1, 12, 12, 20],
        "fc1": [-1, 4, 4, 50],
        "fc2": [-1, 500],
        "output": [-1, 10],
    }
    assert {port["dtype"] for port in ports} == {np.int8}
    for port in ports:
        assert port["shape"].tolist() == [1, *shapes[port["name"]][1:]]
    grids = {port["name"]: port["quantization"] for port in ports}
    for name, layer in qnet.layers.items():
        stored = grids[name]
        assert stored == (pytest.approx(layer.in_scale), layer.in_zero_point - 128)
    assert grids["output"] == (
        pytest.approx(layer.out_scale),
        layer.out_zero_point - 128,
    )


def test_a_picture_that_is_not_square_keeps_its_sides(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, (5, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(1248, 3)]
    net, images = nn.Sequential(*layers), torch.rand(4, 1, 28, 28)
    qnet = mq.quantize_net(net, mq.calibrate(net, images - 0.1))
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    interpreter = Interpreter(model_path=str(tmp_path / "net.tflite"))
    outputs = {port["name"]: port for port in interpreter.get_output_details()}
    assert outputs["3"]["shape"].tolist() == [1, 24, 26, 2]


def test_arrays_in_a_tflite_file_are_aligned(tmp_path):
    qnet, _ = random_network(0, "fixed")
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    content = (tmp_path / "net.tflite").read_bytes()
    assert content[4:8] == b"TFL3"
    model = schema.Model.GetRootAs(content)
    sizes = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if buffer.DataLength():
            start = buffer.DataAsNumpy().ctypes.data
            start -= np.frombuffer(content, np.uint8).ctypes.data
            assert start % 16 == 0
            sizes.append(buffer.DataLength())
    assert sum(sizes) == 430_500 + 4 * 580  # every weight and bias, nothing else


def test_a_rounding_that_litert_does_not_have_is_refused(tmp_path):
    qnet, _ = random_network(0, "float")
    with pytest.raises(ValueError, match="LiteRT cannot round as requantize="):
        mq.export_tflite(qnet, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def ranges_for(multiplier, layer, following):
    """Return (net, ranges) in which layer's largest multiplier is nearly that."""
    net = mq.load_net()
    ranges = mq.calibrate(net, mq.mnist(train=True)[0][:100])
    made = mq.quantize_net(net, ranges).layers[layer]
    now = made.in_scale * float(made.weight_scale.max()) / made.out_scale
    low, high = ranges[following]
    ranges[following] = (low * now / multiplier, high * now / multiplier)
    return net, ranges


@pytest.mark.parametrize("multiplier", [1e-11, 2.5, 255])
def test_small_and_large_multipliers_give_the_same_codes(multiplier, tmp_path):
    net, ranges = ranges_for(multiplier, "fc2", "output")
    images = mq.mnist(train=False)[0][:20]
    qnet = mq.quantize_net(net, ranges)
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    codes = qnet.codes(images)
    assert_same_codes(run_litert(tmp_path / "net.tflite", codes["conv1"]), codes)
    codes = mq.quantize_net(net, ranges, requantize="float").codes(images)
    found = run_litert(tmp_path / "net.tflite", codes["conv1"], OpResolverType.AUTO)
    assert_same_codes(found, codes)


def test_a_multiplier_that_the_default_kernels_do_not_load_is_refused(tmp_path):
    net, ranges = ranges_for(257, "fc2", "output")
    with pytest.raises(ValueError, match=r"fc2 multiplies by 257, .* less than 256"):
        mq.export_tflite(mq.quantize_net(net, ranges), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_the_default_kernels_do_not_load_what_is_refused(tmp_path, monkeypatch):
    net, ranges = ranges_for(257, "fc2", "output")
    monkeypatch.setattr("mnistq.tflite_file.check_multipliers", lambda *_: None)
    qnet = mq.quantize_net(net, ranges)
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    codes = qnet.codes(mq.mnist(train=False)[0][:2])["conv1"]
    with pytest.raises(RuntimeError, match="failed to prepare"):
        run_litert(tmp_path / "net.tflite", codes, OpResolverType.AUTO)


def test_sums_that_a_shift_to_the_left_takes_out_of_int32_are_refused(tmp_path):
    """Weights that are all positive: the largest sum is that of the largest codes."""
    net, ranges = ranges_for(200, "fc1", "fc2")
    with torch.no_grad():
        net.fc1.weight.abs_()
    layer = mq.quantize_net(net, ranges).layers["fc1"]
    w = layer.weight.clamp(min=0).sum(1, dtype=torch.int64)
    assert layer.in_zero_point == 0 and int(layer.shift.min()) == -8
    most = int(((w * 255 + layer.bias) << -layer.shift.long().clamp(max=0)).max())
    assert most > 2**31
    words = (
        "fc1's sums, shifted left by 8, could reach .* beyond int32. Widen the range"
    )
    with pytest.raises(ValueError, match=words):
        mq.export_tflite(mq.quantize_net(net, ranges), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_sums_that_leave_int32_differ_in_the_reference_kernels(monkeypatch, tmp_path):
    """So the refusal is no pedantry: here, code for code, LiteRT gives others."""
    net, ranges = ranges_for(5e4, "fc2", "output")
    monkeypatch.setattr("mnistq.tflite_file.check_multipliers", lambda *_: None)
    qnet = mq.quantize_net(net, ranges)
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    codes = qnet.codes(mq.mnist(train=False)[0][:50])
    found = run_litert(tmp_path / "net.tflite", codes["conv1"])
    assert int((found["output"] != codes["output"]).sum()) > 0


def fully_connected(acc, scales, resolver):
    """Return the codes that LiteRT's FULLY_CONNECTED makes of the sums acc, int.

    Its input is the number 0, so that its sums are its biases.
    """
    s_in, s_w, s_out = scales
    graph = schema.SubGraphT(tensors=[], inputs=[0], outputs=[3], operators=[])
    model = schema.ModelT(version=3, subgraphs=[graph], operatorCodes=[])
    model.buffers = [schema.BufferT()]
    weights, bias = np.zeros((len(acc), 1), np.int8), acc.astype(np.int32)
    tflite_tensor(model, "x", (1, 1), (s_in, 0))
    tflite_tensor(model, "w", weights.shape, (s_w, 0), weights)
    tflite_tensor(model, "b", bias.shape, (s_in * s_w, 0), bias)
    tflite_tensor(model, "y", (1, len(acc)), (s_out, 0))
    code = schema.OperatorCodeT(version=4)
    code.builtinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.deprecatedBuiltinCode = code.builtinCode
    model.operatorCodes.append(code)
    options = schema.FullyConnectedOptionsT()
    operator = schema.OperatorT(inputs=[0, 1, 2], outputs=[3], builtinOptions=options)
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.opcodeIndex = 0
    graph.operators.append(operator)
    interpreter = Interpreter(
        model_content=tflite_bytes(model), experimental_op_resolver_type=resolver
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.zeros((1, 1), np.int8))
    interpreter.invoke()
    return interpreter.get_tensor(3).flatten().astype(int)


def test_the_reference_kernel_of_fully_connected_rounds_a_third_way():
    """Once, after an exact product: so fully connected layers are convolutions here."""
    generator = np.random.default_rng(1)
    differ = {"fixed": 0, "float": 0, "once": 0, "default from float": 0}
    for _ in range(40):
        ends = (0.005, 0.05), (0.001, 0.01), (0.02, 0.2)
        scales = [np.float32(generator.uniform(*pair)) for pair in ends]
        s_in, s_w, s_out = scales
        m = float(s_in) * float(s_w) / float(s_out)
        acc = np.linspace(-126 / m, 126 / m, 20_001).astype(int)
        pair = mq.quantize_multiplier(m)
        sums = torch.tensor(acc, dtype=torch.int32)
        fixed = mq.multiply_by_quantized_multiplier(sums, *pair).numpy()
        single = np.round(acc.astype(np.float32) * (s_in * s_w / s_out)).astype(int)
        seen = fully_connected(acc, scales, OpResolverType.BUILTIN_REF)
        default = fully_connected(acc, scales, OpResolverType.AUTO)
        differ["fixed"] += int((seen != fixed).sum())
        differ["float"] += int((seen != single).sum())
        differ["once"] += int((seen != np.round(acc * m)).sum())  # float64
        differ["default from float"] += int((default != single).sum())
    assert differ["once"] == differ["default from float"] == 0
    assert differ["fixed"] > 100 * differ["float"] > 0
