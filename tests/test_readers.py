"""read_onnx and read_tflite: files of codes, also another converter's, come back."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from converters import converted, converted_file, their_codes, their_logits
from helpers import in_litert, in_onnx_runtime, refusals
from networks import (
    BLOCKS,
    Residual,
    average_block,
    plain_block,
    quantized,
    random_branches,
    residual_block,
    separable_block,
    together_block,
)
from torch import nn

import mnistq_helpers as mq
from mnistq.mnistq_file import network_bytes
from mnistq.onnx_reader import ONNX_NODES
from mnistq.tflite_file import tflite_bytes
from mnistq.tflite_reader import TFLITE_OPERATORS
from tools.float_onnx import float_onnx

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
    assert held["fixed"] == set(TFLITE_OPERATORS) - {
        "RESHAPE",
        "FULLY_CONNECTED",
        "DEQUANTIZE",
    }
    assert held["float"] == {"QLinearConv", "Clip", "MaxPool", "Flatten"}
    assert held["float"] < set(ONNX_NODES)


# -- another converter's file -------------------------------------------------------


UNSIGNED = {"extra_options": {"WeightSymmetric": True}, "weights": "QUInt8"}
FILES = [  # format, type of activations, options
    ("QDQ", "QInt8", {"per_channel": False}),
    ("QDQ", "QInt8", {"per_channel": True}),
    ("QDQ", "QUInt8", {"per_channel": False}),
    ("QDQ", "QUInt8", {"per_channel": True} | UNSIGNED),
    ("QOperator", "QUInt8", {"per_channel": True}),
    ("QOperator", "QInt8", {"per_channel": False}),
]
SATURATES = "ONNX Runtime's products of uint8 and int8 saturate here"


def assert_read_as_run(path, images, tensors):
    """read_onnx gives ONNX Runtime's logits and codes, of so many tensors at least."""
    qnet, few = mq.read_onnx(path), images[:200]
    assert torch.equal(qnet(images), their_logits(path, images))
    found = their_codes(path, qnet.grids, few)
    assert len(found) >= tensors
    assert_same(qnet, found, few)
    return qnet


@pytest.mark.parametrize("number", range(len(FILES)))
def test_what_quantize_static_made_gives_onnx_runtimes_codes(number, tmp_path):
    kind, activations, options = FILES[number]
    if "weights" not in options and not mq.int_mm_is_exact():
        pytest.skip(SATURATES)
    net = mq.load_net((mq.COMMITTED, mq.SHIFTED)[number % 2])
    images = mq.mnist(train=True)[0][:200]
    path = converted(tmp_path, net, images, kind, activations, **options)
    qnet = assert_read_as_run(path, mq.mnist(train=False)[0][:1000], 6)
    assert list(qnet.layers) == ["conv1", "conv2", "fc1", "fc2"]


REASONS = "may round otherwise than|computes in floats on x86|images is FLOAT and"


@pytest.mark.parametrize(
    ("kind", "activations", "read"),
    [("QDQ", "QUInt8", 6), ("QOperator", "QInt8", 9), ("QDQ", "QInt8", 3)],
)
def test_random_networks_of_quantize_static_are_read_or_refused_for_their_rounding(
    kind, activations, read, tmp_path
):
    """Additions, concatenations and averages among them; nothing read may differ."""
    if not mq.int_mm_is_exact():
        pytest.skip(SATURATES)
    found, blocks = 0, (residual_block, average_block, together_block, separable_block)
    for seed in range(14):
        net, images = random_branches(seed, (plain_block, blocks[seed % 4]))
        images = torch.randn(40, *images.shape[1:])
        try:
            path = converted(tmp_path, net, images, kind, activations)
            qnet = mq.read_onnx(path)
        except ValueError as error:
            assert re.search(REASONS, str(error)), error
            continue
        assert torch.equal(qnet(images), their_logits(path, images))
        found += 1
    assert found >= read


def test_an_addition_that_rounds_otherwise_is_refused_by_name(tmp_path):
    """About one in five does, of the 65,536 pairs of codes that it can be given."""
    torch.manual_seed(0)
    body, skip = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 1)
    net = nn.Sequential(Residual(body, skip, nn.ReLU(), "plus"), nn.Flatten())
    path = converted(tmp_path, net, torch.randn(40, 1, 6, 6), "QOperator", "QUInt8")
    model, refused = onnx.load(path), 0
    add = node_of(model.graph, "QLinearAdd")
    for factor in np.linspace(1, 1.1, 20, dtype=np.float32):
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        constant(add.input[6], lambda scale, by=factor: scale * by)(copied.graph)
        onnx.save(copied, tmp_path / "net.onnx")
        try:
            mq.read_onnx(tmp_path / "net.onnx")
        except ValueError as error:
            words = "QLinearAdd, which makes .*: for . of 65536 pairs of codes ONNX"
            assert re.search(words, str(error))
            refused += 1
    assert 0 < refused < 10


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
    assert refusals(read, files[requantize], tmp_path / "net") > 20


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
    (attribute("pads", [3, 1, 0, 1]), r"its padding is .*: too different on two"),
    (attribute("auto_pad", "SAME_UPPER"), "its auto_pad is b'SAME_UPPER'"),
    (attribute("activation", 1), "its activation is 1"),
    (attribute("strides", [1, -1]), r"its strides are \(1, -1\)"),
    (attribute("pads", [1, -1] * 2), r"its padding is \(\(1, 1\), \(-1, -1\)\)"),
    (reshaped([-1, 1, 3]), r"Reshape, .* to \[-1, 1, 3\]: only what flattens"),
    (attribute("group", 2), "0 does not fit what enters it"),
    (values("4.x_scale", np.float32(0.5)), r"4 is on \(.*\) and read on \(0\.5, "),
    (values("4.x_zero_point", np.uint8(9)), r"4 is on .* and read on \(.*, 9\)"),
    (values("0.x_scale", np.float32(np.nan)), "the scale nan must be positive"),
    (values("0.x_zero_point", np.int8(0)), r"0 is uint8, and 0\.x_zero_point is not"),
    (values("0.x_zero_point", np.uint8([0, 0])), r"0\.x_zero_point is uint8 \(2,\)"),
    (
        values("0.x_zero_point", np.float32(0)),
        r"0 is uint8, and 0\.x_zero_point is not",
    ),
    (values("0.y_zero_point", np.float32(0)), r"0\.y_zero_point is float32"),
    (values("0.y_scale", np.float32(0)), r"the scale 0\.0 must be positive"),
    (values("0.y_scale", np.float32([1, 1])), "belongs to 2 scales"),
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


def test_floats_and_other_weights_of_quantize_static_are_refused(tmp_path):
    net, images = mq.load_net(), mq.mnist(train=True)[0][:100]
    path = converted(tmp_path, net, images, "QOperator", "QUInt8", "QUInt8")
    words = r"QLinearConv, which .*: conv1\.weight_quantized minus .* symmetric"
    with pytest.raises(ValueError, match=words):
        mq.read_onnx(path)
    with pytest.raises(ValueError, match="images is FLOAT and enters Conv: only codes"):
        mq.read_onnx(tmp_path / "float.onnx")


def test_sums_in_an_onnx_file_are_refused_by_name(tmp_path):
    _, qnet, _ = quantized(1, "float", (residual_block,))
    mq.export_onnx(qnet, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"Cast, which makes .*\.add\.0\.numbers: no "):
        mq.read_onnx(tmp_path / "net.onnx")


# -- the format QDQ -------------------------------------------------------------------


def small_network():
    """Return (a network, images): padding, stride, a ReLU of its own, max pooling."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 5)).eval()
    return net, torch.randn(60, 1, 12, 12)


def pooled_first(content):
    """Return a float file whose max pooling stands before its Relu, not after."""
    model = onnx.load_model_from_string(content)
    kinds = [node.op_type for node in model.graph.node]
    relu, pool = (model.graph.node[kinds.index(k)] for k in ("Relu", "MaxPool"))
    relu.op_type, pool.op_type = "MaxPool", "Relu"
    relu.attribute.extend(pool.attribute)
    del pool.attribute[:]
    return model.SerializeToString()


@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("first", [False, True])
def test_pooling_before_a_relu_brings_codes_to_another_grid(
    first, activations, tmp_path
):
    """Its codes are the Relu's, on a finer grid than the convolution's."""
    if not mq.int_mm_is_exact():
        pytest.skip(SATURATES)
    net, images = small_network()
    content = float_onnx(net, images.shape[1:])
    content = pooled_first(content) if first else content
    path = converted_file(tmp_path, content, images, "QDQ", activations)
    qnet = assert_read_as_run(path, images, 4)
    kinds = [type(step).__name__ for step in qnet.steps]
    assert ("QuantizedConcat" in kinds) == first


@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [1, 0, 0, 1], [0, 2, 1, 0]])
def test_padding_that_differs_on_two_sides_is_read(pads, tmp_path):
    """Weights of 0 make up for it: the kernel grows, and what it adds does not."""
    if not mq.int_mm_is_exact():
        pytest.skip(SATURATES)
    net, images = small_network()
    model = onnx.load_model_from_string(float_onnx(net, images.shape[1:]))
    attribute("pads", pads)(None, node_of(model.graph, "Conv"), None)
    content = model.SerializeToString()
    path = converted_file(tmp_path, content, images, "QDQ", "QUInt8")
    qnet = assert_read_as_run(path, images, 4)
    assert max(qnet.layers["0"].weight.shape[2:]) > 3


@pytest.fixture(scope="module")
def qdq(tmp_path_factory):
    """Return {type of activations: a small file in the format QDQ}."""
    net, images = small_network()
    paths = {}
    for activations in ("QInt8", "QUInt8"):
        folder = tmp_path_factory.mktemp(activations)
        paths[activations] = converted(folder, net, images, "QDQ", activations)
    return paths


def node_of(graph, kind):
    return next(node for node in graph.node if node.op_type == kind)


def relu_of_its_own(graph):
    """Put a Relu between the convolution and what quantizes it."""
    conv = node_of(graph, "Conv")
    number = list(graph.node).index(conv) + 1
    y, conv.output[0] = conv.output[0], "sums"
    graph.node.insert(number, onnx.helper.make_node("Relu", ["sums"], [y]))


def constant(name, change):
    """Return a change of a graph, of a constant that has such a name."""

    def on(graph):
        for found in graph.initializer:
            if found.name == name:
                array = change(onnx.numpy_helper.to_array(found))
                found.CopyFrom(onnx.numpy_helper.from_array(array, name))

    return on


def moved_relu(graph):
    relu_of_its_own(graph)
    constant("Relu 1_zero_point", lambda zero: zero + 1)(graph)


def left_in_floats(graph):
    """The logits are the Gemm's, in floats."""
    gemm = node_of(graph, "Gemm")
    del graph.node[-2:]
    gemm.output[0] = graph.output[0].name


def read_twice(graph):
    """A second convolution reads the images' codes."""
    more = graph.node.add()
    more.CopyFrom(node_of(graph, "Conv"))
    more.output[0] = "more"


def quantized_twice(graph):
    (found,) = [n for n in graph.node if n.input[0] == node_of(graph, "Conv").output[0]]
    more = graph.node.add()
    more.CopyFrom(found)
    more.output[0] = "more"


def other_pair(graph):
    """What was quantized on one grid is dequantized on another."""
    (found,) = [
        node
        for node in graph.node
        if node.output[0] == node_of(graph, "MaxPool").input[0]
    ]
    found.input[1] = "images_scale"


def along(axis):
    def change(graph):
        scale, zero = ("0.weight_scale", lambda x: np.full(4, x)), "0.weight_zero_point"
        constant(*scale)(graph)
        constant(zero, lambda x: np.full(4, x))(graph)
        bias = "0.bias_quantized_scale"
        constant(bias, lambda x: np.full(4, x.reshape(-1)[0]))(graph)
        (node,) = [n for n in graph.node if n.input[0] == "0.weight_quantized"]
        node.attribute.append(onnx.helper.make_attribute("axis", axis))

    return change


def float_weights(graph):
    w = np.ones((4, 1, 3, 3), np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(w, "floats"))
    node_of(graph, "Conv").input[1] = "floats"


def pair_in_a_circle(graph):
    """The images' codes are what the max pooling makes of them."""
    graph.node[0].input[0] = graph.output[0].name
    node_of(graph, "QuantizeLinear").input[0] = node_of(graph, "MaxPool").output[0]


def with_scale(name, value):
    return constant(f"{name}_scale", lambda x: np.full_like(x, value))


def changed(path, change, folder):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("change", [relu_of_its_own, along(0)])
def test_other_ways_to_write_pairs_are_read(change, activations, qdq, tmp_path):
    if not mq.int_mm_is_exact():
        pytest.skip(SATURATES)
    path, images = (
        changed(qdq[activations], change, tmp_path),
        torch.randn(50, 1, 12, 12),
    )
    assert torch.equal(mq.read_onnx(path)(images), their_logits(path, images))
    assert torch.equal(
        mq.read_onnx(qdq[activations])(images), mq.read_onnx(path)(images)
    )


QDQ_WRONG = [
    (moved_relu, "QuantizeLinear, .*: its Relu stays in floats, the zero point being"),
    (left_in_floats, "Gemm, which makes .*: no QuantizeLinear follows"),
    (quantized_twice, "QuantizeLinear, .*: 2 operators read Relu 1 in floats"),
    (other_pair, r"DequantizeLinear, .* is on \(.*\) and read on \("),
    (along(1), "has scales along another axis than its outputs"),
    (float_weights, "QuantizeLinear, .*: Conv reads floats, which is no codes"),
    (with_scale("0.bias_quantized", 1), "0.bias is on another grid than its products"),
    (with_scale("images", 0), "0.bias is on another grid"),
    (with_scale("Gemm 4", 0), "the scale 0.0 must be positive"),
    (with_scale("Relu 1", np.nan), "is on .*nan"),
    (with_scale("Gemm 4", np.nan), "is on .*nan"),
    (with_scale("Gemm 4", -1), "the scale -1.0 must be positive"),
    (with_scale("0.weight", np.inf), "another grid than its products"),
    (constant("images_scale", lambda x: np.ones(2, x.dtype)), "cannot reshape"),
    (constant("images_zero_point", lambda x: x.astype(np.int16)), "is int16"),
    (constant("0.bias_quantized", lambda x: x.astype(np.int8)), "its bias is int8"),
    (pair_in_a_circle, "net.onnx cannot be used: "),
]


@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
@pytest.mark.parametrize(("change", "words"), QDQ_WRONG)
def test_pairs_that_are_no_such_network_are_refused(
    change, words, activations, qdq, tmp_path
):
    path = changed(qdq[activations], change, tmp_path)
    with pytest.raises(ValueError, match=words):
        mq.read_onnx(path)


def test_int8_codes_that_two_operators_read_are_refused(qdq, tmp_path):
    """ONNX Runtime leaves them in floats: its codes then differ from an integer's."""
    path = changed(qdq["QInt8"], read_twice, tmp_path)
    with pytest.raises(ValueError, match=r"2 operators read images_.*QUInt8, or the"):
        mq.read_onnx(path)
    path = changed(qdq["QUInt8"], read_twice, tmp_path)
    with pytest.raises(ValueError, match="Conv, which makes more: no QuantizeLinear"):
        mq.read_onnx(path)


@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
def test_pairs_cut_or_full_of_noise_are_refused_or_read(activations, qdq, tmp_path):
    assert refusals(mq.read_onnx, qdq[activations], tmp_path / "net", cut=20) > 100


# -- .tflite -------------------------------------------------------------------------


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
    (kind(1, "TANH"), "TANH, which makes 0.conv_2d: no step"),
    (kind(3, "AVERAGE_POOL_2D"), "AVERAGE_POOL_2D, which makes 4: no step"),
    (
        operator(1, padding=schema.Padding.SAME),
        "CONV_2D, .*: it pads again what PAD padded",
    ),
    (operator(1, dilationHFactor=2), "it has dilation"),
    (operator(1, fusedActivationFunction=2), "its fused activation is 2"),
    (operator(1, strideH=0), r"its strides are \(0, 1\)"),
    (operator(3, strideW=-1), r"its kernel and stride are \(\(2, 2\), \(2, -1\)\)"),
    (tensor("4", scale=[0.0]), "the scale 0.0 must be positive"),
    (tensor("4", scale=[float("nan")]), "the scale nan must be positive"),
    (tensor("0.weight", scale=[float("nan")] * 2), "the scale nan must be positive"),
    (tensor("0.weight", shape=[2, 3, 3, 2]), "cannot reshape"),
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
