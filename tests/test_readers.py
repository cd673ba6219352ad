"""read_onnx and read_tflite: files of codes, also another converter's, come back."""

import logging
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from helpers import in_litert, in_onnx_runtime
from networks import (
    BLOCKS,
    average_block,
    plain_block,
    quantized,
    residual_block,
    separable_block,
)
from onnxruntime import quantization as theirs
from torch import nn

import mnistq_helpers as mq
from mnistq.mnistq_file import network_bytes
from mnistq.onnx_reader import ONNX_NODES
from mnistq.tflite_file import tflite_bytes
from mnistq.tflite_reader import TFLITE_OPERATORS
from tools import benchmark

CHAINS = plain_block, separable_block, average_block
BLOCKS_READ = {"float": CHAINS, "fixed": BLOCKS}
FORMATS = {  # requantize: how that file is written, run and read
    "float": (mq.export_onnx, in_onnx_runtime, mq.read_onnx),
    "fixed": (mq.export_tflite, in_litert, mq.read_tflite),
}


def assert_same(qnet, found, images):
    """qnet's codes are those found, {name: uint8 codes}, flat or not.

    A tensor that the file only flattens, and computes on unflattened, is NAME.4d.
    """
    assert found
    names = {n: n if n in qnet.shapes else f"{n}.4d" for n in found}
    codes = qnet.codes(images, tuple(names.values()))
    for name, q in found.items():
        wrong = codes[names[name]].flatten(1) != q.flatten(1)
        assert int(wrong.sum()) == 0, name


# -- our own files ----------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", [mq.COMMITTED, mq.SHIFTED])
@pytest.mark.parametrize("requantize", FORMATS)
def test_the_committed_networks_come_back(requantize, checkpoint, tmp_path):
    export, _, read = FORMATS[requantize]
    net, images = mq.load_net(checkpoint), mq.mnist(train=False)[0][:200]
    ranges = mq.calibrate(net, mq.mnist(train=True)[0][:200])
    qnet = mq.quantize_net(net, ranges, requantize=requantize)
    export(qnet, tmp_path / "net")
    found = read(tmp_path / "net")
    assert (found.requantize, found.nbytes) == (requantize, qnet.nbytes)
    assert list(found.layers) == list(qnet.layers)
    for name, layer in qnet.layers.items():
        other = found.layers[name]
        assert torch.equal(other.weight.flatten(1), layer.weight.flatten(1))
        assert torch.equal(other.bias, layer.bias)
        assert (other.low, other.high, other.pool) == (layer.low, 255, layer.pool)
    assert_same(found, qnet.codes(images), images)
    assert torch.equal(found(images), qnet(images))


def read_back(seed, requantize, path):
    """Return (network, images, {name: its runtime's codes}) of a random file."""
    _, qnet, images = quantized(seed, requantize, BLOCKS_READ[requantize])
    qnet = replace(qnet, in_bits=8)  # a file of codes does not say how many
    _, run, read = FORMATS[requantize]
    entering = qnet.codes(images, [qnet.in_name])[qnet.in_name]
    found = run(qnet, entering, path)
    return qnet, read(path), images, found


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("requantize", FORMATS)
def test_random_networks_give_their_runtimes_codes(requantize, seed, tmp_path):
    written, qnet, images, found = read_back(seed, requantize, tmp_path / "net")
    assert set(written.names) - {written.in_name} <= set(found) and len(found) > 1
    assert_same(qnet, found, images)
    for name, layer in written.layers.items():
        found_layer = qnet.layers[name]
        assert found_layer.weight_bits <= layer.weight_bits
        assert found_layer.out_bits <= layer.out_bits
    assert network_bytes(qnet) == network_bytes(saved(qnet, tmp_path / "saved"))


def saved(qnet, path):
    qnet.save(path)
    return mq.QuantizedNet.load(path)


@pytest.mark.parametrize("requantize", FORMATS)
def test_what_was_read_can_be_written_again(requantize, tmp_path):
    _, qnet, images, _ = read_back(4, requantize, tmp_path / "net")
    _, run, read = FORMATS[requantize]
    entering = qnet.codes(images, [qnet.in_name])[qnet.in_name]
    assert_same(qnet, run(qnet, entering, tmp_path / "again"), images)
    assert torch.equal(read(tmp_path / "again")(images), qnet(images))


def tflite_kinds(path):
    """Return the names of the operators in a .tflite file."""
    names = {v: n for n, v in vars(schema.BuiltinOperator).items()}
    codes = schema.ModelT.InitFromPackedBuf(path.read_bytes()).operatorCodes
    return {names[code.builtinCode] for code in codes}


def onnx_kinds(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_the_random_files_hold_every_operator(tmp_path):
    held = {"float": set(), "fixed": set()}
    kinds = {"float": onnx_kinds, "fixed": tflite_kinds}
    for requantize, seen in held.items():
        for seed in range(15):
            read_back(seed, requantize, tmp_path / "net")
            seen |= kinds[requantize](tmp_path / "net")
    assert held["fixed"] == set(TFLITE_OPERATORS) - {"RESHAPE"}
    others = {"QuantizeLinear", "QGemm", "Reshape", "DequantizeLinear"}  # theirs
    assert held["float"] == set(ONNX_NODES) - others


# -- another converter's file -------------------------------------------------------


class Batches(theirs.CalibrationDataReader):
    def __init__(self):
        images = mq.mnist(train=True)[0][:200]
        self.left = [{"images": x.numpy()} for x in images.split(100)]

    def get_next(self):
        return self.left.pop() if self.left else None


def convert(folder, kind="QOperator", weights="QInt8", checkpoint=None, **options):
    """Return the path of the file that quantize_static makes of a network."""
    logging.disable(logging.WARNING)  # it recommends a preprocessing
    net = mq.load_net(checkpoint or mq.COMMITTED)
    (folder / "float.onnx").write_bytes(benchmark.float_onnx(net))
    files = folder / "float.onnx", folder / "theirs.onnx"
    theirs.quantize_static(
        *files,
        Batches(),
        quant_format=theirs.QuantFormat[kind],
        activation_type=theirs.QuantType.QUInt8,
        weight_type=theirs.QuantType[weights],
        **options,
    )
    logging.disable(logging.NOTSET)
    return files[1]


SYMMETRIC = {"WeightSymmetric": True}
THEIRS = [
    ("QInt8", mq.COMMITTED, {"per_channel": True}),
    ("QInt8", mq.SHIFTED, {"per_channel": False}),
    ("QUInt8", mq.COMMITTED, {"per_channel": True, "extra_options": SYMMETRIC}),
]


@pytest.mark.parametrize(("weights", "checkpoint", "options"), THEIRS)
def test_what_quantize_static_made_gives_onnx_runtimes_codes(
    weights, checkpoint, options, tmp_path
):
    if weights == "QInt8" and not mq.int_mm_is_exact():
        pytest.skip("ONNX Runtime's products of uint8 and int8 saturate here")
    path = convert(tmp_path, weights=weights, checkpoint=checkpoint, **options)
    qnet, images = mq.read_onnx(path), mq.mnist(train=False)[0][:1000]
    logits, *_ = ort.InferenceSession(path).run(None, {"images": images.numpy()})
    assert torch.equal(qnet(images), torch.from_numpy(logits))
    model, uint8 = onnx.load(path), onnx.TensorProto.UINT8
    ports = [onnx.helper.make_tensor_value_info(n, uint8, None) for n in qnet.names]
    model.graph.output.extend(ports)
    session = ort.InferenceSession(model.SerializeToString())
    found = session.run(list(qnet.names), {"images": images.numpy()})
    found = dict(zip(qnet.names, map(torch.from_numpy, found), strict=True))
    assert len(found) == 5 and list(qnet.layers) == ["conv1", "conv2", "fc1", "fc2"]
    assert_same(qnet, found, images)


# -- what is refused ------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return {requantize: our file of a small network, two layers and a pooling}."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU6(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(18, 3))
    images, folder = torch.rand(5, 1, 6, 6) * 9, tmp_path_factory.mktemp("files")
    ranges, paths = mq.calibrate(net, images, "minmax") | {"4": (-1, 9)}, {}
    for requantize, (export, _, _) in FORMATS.items():
        options = {"requantize": requantize, "in_shape": (1, 6, 6)}
        paths[requantize] = folder / requantize
        export(mq.quantize_net(net, ranges, **options), paths[requantize])
    return paths


@pytest.mark.parametrize("requantize", FORMATS)
def test_a_file_that_is_missing_or_cut_is_refused(requantize, files, tmp_path):
    _, _, read = FORMATS[requantize]
    with pytest.raises(ValueError, match="net is missing: write it with export_"):
        read(tmp_path / "net")
    content = files[requantize].read_bytes()
    assert read(files[requantize]).layers
    for length in range(0, len(content) - 20, 37):
        (tmp_path / "net").write_bytes(content[:length])
        with pytest.raises(ValueError, match="net cannot be used: "):
            read(tmp_path / "net")


@pytest.mark.parametrize("requantize", FORMATS)
def test_a_file_of_noise_is_refused_or_read_and_nothing_else(
    requantize, files, tmp_path
):
    _, _, read = FORMATS[requantize]
    content = np.frombuffer(files[requantize].read_bytes(), np.uint8)
    generator, refused = np.random.default_rng(0), 0
    for _ in range(200):
        changed = content.copy()
        places = generator.integers(0, len(content), 4)
        changed[places] = generator.integers(0, 256, 4)
        (tmp_path / "net").write_bytes(changed.tobytes())
        try:
            assert isinstance(read(tmp_path / "net"), mq.QuantizedNet)
        except ValueError:
            refused += 1
    assert refused > 20


def onnx_with(change, files, path):
    """Write our .onnx file after change(graph, its first layer, {name: constant})."""
    model = onnx.load(files["float"])
    constants = {c.name: c for c in model.graph.initializer}
    change(model.graph, model.graph.node[0], constants)
    path.write_bytes(model.SerializeToString())
    return path


def attribute(key, value):
    def change(graph, node, constants):
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(key, value)])

    return change


def values(name, array):
    def change(graph, node, constants):
        constants[name].CopyFrom(onnx.numpy_helper.from_array(array, name))

    return change


def renamed(graph, node, constants):
    graph.node[2].op_type = "AveragePool"


def foreign(graph, node, constants):
    graph.node[2].domain = "example.org"


def elsewhere(graph, node, constants):
    constants["0.w"].data_location = onnx.TensorProto.EXTERNAL


def second_input(graph, node, constants):
    port = graph.input.add()
    port.CopyFrom(graph.input[0])
    port.name = "other"


def second_head(graph, node, constants):
    more = graph.node.add()
    more.CopyFrom(node)
    more.output[0] = "head"


def lost(graph, node, constants):
    node.input[3] = "nowhere"


def clip_read_twice(graph, node, constants):
    graph.output.add().CopyFrom(graph.output[0])
    graph.output[0].name = node.output[0]


def circle(graph, node, constants):
    graph.node[2].input[0] = graph.node[2].output[0]
    graph.input[0].name = graph.node[2].output[0]


def reshaped(shape):
    """Return a change that puts a Reshape in the place of the last Flatten."""

    def change(graph, node, constants):
        x, shape_ = graph.node[-1].input[0], np.array(shape)
        new = onnx.helper.make_node("Reshape", [x, "shape"], ["output"])
        graph.node[-1].CopyFrom(new)
        graph.initializer.append(onnx.numpy_helper.from_array(shape_, "shape"))

    return change


def transposed(graph, node, constants):
    """Multiply the flattened images by a matrix [in, out], as QGemm does by default."""
    w = onnx.numpy_helper.to_array(constants["4.w"])
    values("4.w", w.reshape(3, 18).T)(graph, node, constants)
    (conv,) = [n for n in graph.node if n.input[0] == "4"]
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = conv.input
    gemm = ["4.flat", x_scale, x_zero, w, w_scale, w_zero, bias, y_scale, y_zero]
    new = onnx.helper.make_node("QGemm", gemm, ["output"], domain="com.microsoft")
    conv.CopyFrom(onnx.helper.make_node("Flatten", [x], ["4.flat"]))
    graph.node[-1].CopyFrom(new)


@pytest.mark.parametrize("change", [reshaped([-1, 3]), reshaped([0, 3]), transposed])
def test_other_ways_to_write_the_same_network_are_read(change, files, tmp_path):
    images = torch.randn(9, 1, 6, 6)
    path = onnx_with(change, files, tmp_path / "net.onnx")
    assert torch.equal(mq.read_onnx(path)(images), mq.read_onnx(files["float"])(images))


ONNX_WRONG = [
    (circle, "0.conv: no operator that was read makes 0"),
    (renamed, "AveragePool, which makes 4: no step here computes it"),
    (foreign, "MaxPool, which makes 4: its domain is example.org"),
    (elsewhere, r"0\.w lies in another file"),
    (second_input, "no ONNX network of one input"),
    (second_head, "head is made, and output does not need it"),
    (lost, "QLinearConv, which makes 0.conv: 'nowhere'"),
    (clip_read_twice, r"Clip, .*: it clamps 0\.conv, which no layer makes for it"),
    (attribute("dilations", [2, 2]), r"its dilations is \[2, 2\]: \[1, 1\] is read"),
    (attribute("pads", [1, 1, 0, 0]), r"its pads are \[1, 1, 0, 0\]: both sides"),
    (attribute("auto_pad", "SAME_UPPER"), "its auto_pad is b'SAME_UPPER'"),
    (attribute("activation", 1), "its activation is 1"),
    (attribute("strides", [1, -1]), r"its strides are \(1, -1\)"),
    (attribute("pads", [1, -1] * 2), r"and it has {'padding': \(1, -1\)"),
    (reshaped([-1, 1, 3]), r"Reshape, .* to \[-1, 1, 3\]: only what flattens"),
    (attribute("group", 2), "0 does not fit what enters it"),
    (values("4.x_scale", np.float32(0.5)), r"4 is on \(.*\) and read on \(0\.5, "),
    (values("4.x_zero_point", np.uint8(9)), r"4 is on .* and read on \(.*, 9\)"),
    (values("0.x_scale", np.float32(np.nan)), "the scale nan must be positive"),
    (values("0.x_zero_point", np.int8(0)), r"0\.x_zero_point is int8"),
    (values("0.w_zero_point", np.zeros(2, np.uint8)), r"0\.w minus .* do not fit int8"),
    (values("0.w_scale", np.float32([1, -1])), "the scale -1.0 must be positive"),
    (values("0.B", np.zeros(3, np.int32)), r"its bias is int32 \(3,\)"),
    (values("0.low", np.uint8(7)), "it clamps to 7.* with zero point 26"),
]


@pytest.mark.parametrize(("change", "words"), ONNX_WRONG)
def test_an_onnx_file_that_is_no_such_network_is_refused(
    change, words, files, tmp_path
):
    path = onnx_with(change, files, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=rf"net\.onnx cannot be used: .*{words}"):
        mq.read_onnx(path)


def test_other_formats_of_quantize_static_and_floats_are_refused(tmp_path):
    path = convert(tmp_path, "QDQ")
    words = "DequantizeLinear, which makes conv1.bias: this is the format QDQ"
    with pytest.raises(ValueError, match=words):
        mq.read_onnx(path)
    with pytest.raises(ValueError, match="images is FLOAT and enters Conv: only codes"):
        mq.read_onnx(tmp_path / "float.onnx")
    path = convert(tmp_path, weights="QUInt8")
    words = r"QLinearConv, which .*: conv1\.weight_quantized minus .* symmetric"
    with pytest.raises(ValueError, match=words):
        mq.read_onnx(path)


def test_sums_in_an_onnx_file_are_refused_by_name(tmp_path):
    _, qnet, _ = quantized(1, "float", (residual_block,))
    mq.export_onnx(qnet, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"Cast, which makes .*\.add\.0\.numbers: no "):
        mq.read_onnx(tmp_path / "net.onnx")


def tflite_with(change, files, path):
    """Write our .tflite file after change(model, graph, {kind: first operator})."""
    model = schema.ModelT.InitFromPackedBuf(files["fixed"].read_bytes())
    (graph,) = model.subgraphs
    change(model, graph)
    path.write_bytes(tflite_bytes(model))
    return path


def operator(number, **fields):
    def change(model, graph):
        for key, value in fields.items():
            setattr(graph.operators[number].builtinOptions, key, value)

    return change


def kind(number, name):
    def change(model, graph):
        code = model.operatorCodes[graph.operators[number].opcodeIndex]
        code.builtinCode = code.deprecatedBuiltinCode = getattr(
            schema.BuiltinOperator, name
        )

    return change


def tensor(name, **fields):
    def change(model, graph):
        (found,) = [t for t in graph.tensors if t.name == name.encode()]
        for key, value in fields.items():
            setattr(found if hasattr(found, key) else found.quantization, key, value)

    return change


def two_graphs(model, graph):
    model.subgraphs.append(graph)


TFLITE_WRONG = [
    (two_graphs, "it holds 2 graphs"),
    (kind(1, "FULLY_CONNECTED"), "FULLY_CONNECTED, which makes 0.conv_2d: no step"),
    (kind(3, "AVERAGE_POOL_2D"), "AVERAGE_POOL_2D, which makes 4: no step"),
    (operator(1, padding=schema.Padding.SAME), "CONV_2D, .*: its padding is SAME"),
    (operator(1, dilationHFactor=2), "it has dilation"),
    (operator(1, fusedActivationFunction=3), "its fused activation is 3"),
    (operator(3, fusedActivationFunction=1), "it has a ReLU of its own"),
    (tensor("0", type=schema.TensorType.FLOAT32), "0 is not int8"),
    (tensor("4", scale=[0.5]), r"4 is on \(.*\) and read on \(0\.5, "),
    (tensor("4", scale=[0.5, 1.0]), "4 has no single scale"),
    (tensor("0.weight", quantizedDimension=1), "0.weight has scales along another"),
    (tensor("0.weight", buffer=0), "0.weight is no constant"),
    (tensor("0.sides", shape=[8, 1]), "PAD, which makes 0.pad: "),
]


@pytest.mark.parametrize(("change", "words"), TFLITE_WRONG)
def test_a_tflite_file_that_is_no_such_network_is_refused(
    change, words, files, tmp_path
):
    path = tflite_with(change, files, tmp_path / "net.tflite")
    with pytest.raises(ValueError, match=rf"net\.tflite cannot be used: .*{words}"):
        mq.read_tflite(path)


def test_a_reshape_is_read_as_a_squeeze(files, tmp_path):
    images = torch.randn(9, 1, 6, 6)
    path = tflite_with(kind(5, "RESHAPE"), files, tmp_path / "net.tflite")
    found = mq.read_tflite(path)(images)
    assert torch.equal(found, mq.read_tflite(files["fixed"])(images))


def test_what_is_no_tflite_file_is_refused(files):
    with pytest.raises(ValueError, match=r"it is no \.tflite file"):
        mq.read_tflite(files["float"])
    with pytest.raises(ValueError, match="fixed cannot be used: "):
        mq.read_onnx(files["fixed"])
