"""Section 4's files: packing, save and load, .onnx and .tflite in their runtimes."""

import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st

import mnistq_helpers as mq

NAMES = ("conv1", "conv2", "fc1", "fc2", "output")
REFERENCE = OpResolverType.BUILTIN_REF


def random_network(seed, requantize):
    """Return (QuantizedNet, images): weights, ranges, zero points, bits at random."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    net = mq.Net()
    with torch.no_grad():
        for parameter in net.parameters():
            spread = 0.02 + 0.3 * rand(len(parameter), *[1] * (parameter.dim() - 1))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * spread)
    images = torch.randn((30, 1, 28, 28), generator=generator)
    ranges = {}
    for name, (low, high) in mq.calibrate(net, images, "minmax").items():
        # Below 0 also after a ReLU, so that the zero point is not 0.
        low, high = low * float(rand(1)), high * (0.3 + float(rand(1)))
        ranges[name] = (round(low - high * float(rand(1)), 2), round(high, 2))
    bits = 1 + (rand(9) * 8).int()
    if seed % 3 == 0:  # a third with 8 bits throughout, where nothing is clipped
        bits[:] = 8
    weight_bits = dict(zip(NAMES, bits[:4].tolist(), strict=False))
    act_bits = dict(zip(NAMES, bits[4:].tolist(), strict=True))
    per_channel = seed % 2 == 0
    return (
        mq.quantize_net(net, ranges, weight_bits, act_bits, per_channel, requantize),
        images,
    )


def run_onnx(path, codes):
    """Return {name: uint8 codes} of the file in ONNX Runtime."""
    session = ort.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"conv1": codes.numpy()})
    return dict(zip(names, map(torch.from_numpy, outputs), strict=True))


def run_litert(path, codes, resolver=REFERENCE):
    """Return {name: uint8 codes, channels first} of the file in LiteRT."""
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=resolver
    )
    interpreter.resize_tensor_input(0, [len(codes), 28, 28, 1])
    interpreter.allocate_tensors()
    interpreter.set_tensor(
        0, (codes ^ 128).view(torch.int8).permute(0, 2, 3, 1).numpy()
    )
    interpreter.invoke()
    found = {}
    for detail in interpreter.get_output_details():
        x = torch.from_numpy(interpreter.get_tensor(detail["index"]))
        x = x.view(torch.uint8) ^ 128
        found[detail["name"]] = x.permute(0, 3, 1, 2) if x.dim() == 4 else x
    return found


def assert_same_codes(found, expected):
    assert list(found) == list(NAMES[1:])
    for name, codes in found.items():
        if name == "fc1":  # the engines keep [N, 50, 4, 4]
            codes = codes.flatten(1)
        assert codes.dtype == torch.uint8 and codes.shape == expected[name].shape
        different = int((codes != expected[name]).sum())
        assert different == 0, f"{different} of {codes.numel()} codes of {name}"


# -- ONNX ---------------------------------------------------------------------------


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


def full_range_network(requantize):
    """A network whose products are as large as they get, all of one sign."""
    net = mq.Net()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(0.5 if name.endswith("weight") else 0.1)
        net.conv1.weight[0], net.fc1.weight[0] = -0.5, -0.5
    ranges = {"conv1": (0, 1), "conv2": (0, 13), "fc1": (0, 3200), "fc2": (0, 9e5)}
    return mq.quantize_net(net, {**ranges, "output": (0, 2e8)}, requantize=requantize)


def test_full_range_products_do_not_saturate(tmp_path):
    images = torch.ones(4, 1, 28, 28)
    qnet = full_range_network("float")
    assert set(qnet.layers["conv2"].weight.flatten().tolist()) == {127}
    assert int(qnet.codes(images)["conv1"].min()) == 255
    mq.export_onnx(qnet, tmp_path / "net.onnx")
    found = run_onnx(tmp_path / "net.onnx", qnet.codes(images)["conv1"])
    assert_same_codes(found, qnet.codes(images))
    qnet = full_range_network("fixed")
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    found = run_litert(tmp_path / "net.tflite", qnet.codes(images)["conv1"])
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


# -- LiteRT -------------------------------------------------------------------------


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


def test_arrays_in_a_tflite_file_are_aligned(tmp_path):
    from ai_edge_litert import schema_py_generated as schema

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


@pytest.mark.parametrize(
    "export, requantize", [("export_onnx", "fixed"), ("export_tflite", "float")]
)
def test_a_rounding_that_an_engine_does_not_have_is_refused(
    export, requantize, tmp_path
):
    qnet, _ = random_network(0, requantize)
    with pytest.raises(ValueError, match="cannot round as requantize="):
        getattr(mq, export)(qnet, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_the_helper_imports_no_engine_until_one_is_asked_for():
    check = (
        "import sys, mnistq_helpers; "
        "sys.exit(any(n.split('.')[0] in ('onnx', 'onnxruntime', 'ai_edge_litert', "
        "'flatbuffers') for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=mq.ROOT).returncode == 0


# -- packing ------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=40))
def test_packed_codes_are_one_long_binary_number(bits, values):
    codes = [value % 2**bits for value in values]
    packed = mq.pack_codes(torch.tensor(codes, dtype=torch.uint8), bits)
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    length = -(-len(codes) * bits // 8)
    assert packed.dtype == torch.uint8
    assert bytes(packed.tolist()) == number.to_bytes(length, "little")
    assert mq.unpack_codes(packed, bits, len(codes)).tolist() == codes


def test_packing_by_hand():
    # 3 codes of 2 bits: 3 = 11, 0 = 00, 2 = 10 give 00 10 00 11.
    assert mq.pack_codes(torch.tensor([[3], [0], [2]]), 2).tolist() == [0b00100011]
    assert mq.unpack_codes(torch.tensor([35], dtype=torch.uint8), 2, 3).dtype is (
        torch.uint8
    )


@pytest.mark.parametrize(
    "codes, bits", [([4], 2), ([-1], 8), ([256], 8), ([1], 9), ([1], 0), ([1], 1.0)]
)
def test_codes_that_do_not_fit_are_refused(codes, bits):
    with pytest.raises(ValueError, match="bits"):
        mq.pack_codes(torch.tensor(codes), bits)


@pytest.mark.parametrize("length, bits, count", [(1, 4, 3), (3, 4, 3), (2, 9, 1)])
def test_unpacking_from_another_length_is_refused(length, bits, count):
    with pytest.raises(ValueError, match="are not"):
        mq.unpack_codes(torch.zeros(length, dtype=torch.uint8), bits, count)


# -- save and load ------------------------------------------------------------------


@pytest.mark.parametrize("requantize", ["fixed", "float"])
@pytest.mark.parametrize("seed", range(6))
def test_a_saved_network_comes_back_the_same(seed, requantize, tmp_path):
    qnet, images = random_network(seed, requantize)
    path = tmp_path / "net.mnistq"
    qnet.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.mnistq"]
    loaded = mq.QuantizedNet.load(str(path))
    assert loaded.requantize == requantize and loaded.nbytes == qnet.nbytes
    for name, layer in qnet.layers.items():
        for field, value in vars(layer).items():
            other = getattr(loaded.layers[name], field)
            same = torch.equal if torch.is_tensor(value) else lambda a, b: a == b
            assert same(other, value), (name, field)
    expected = qnet.codes(images)
    assert all(torch.equal(loaded.codes(images)[n], expected[n]) for n in NAMES)
    assert torch.equal(loaded(images), qnet(images))


@pytest.mark.parametrize("bits, times", [(8, 3.9), (4, 7.8), (2, 15), (1, 29)])
def test_size_on_disk(bits, times, net, ranges, tmp_path):
    torch.save(net.state_dict(), tmp_path / "float.pt")
    qnet = mq.quantize_net(net, ranges, weight_bits=bits)
    qnet.save(tmp_path / "net")
    size = (tmp_path / "net").stat().st_size
    assert (tmp_path / "float.pt").stat().st_size >= times * size
    assert abs(size - qnet.nbytes) < 1000


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net"
    path.write_bytes(b"old")

    def full_disk(self, content):
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError("No space left on device")

    monkeypatch.setattr(mq.Path, "write_bytes", full_disk)
    qnet, _ = random_network(0, "fixed")
    for write in (qnet.save, lambda p: mq.export_tflite(qnet, p)):
        with pytest.raises(OSError, match="No space"):
            write(path)
        assert [p.name for p in tmp_path.iterdir()] == ["net"]
        assert path.read_bytes() == b"old"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The content of one saved network, and a folder for bad copies of it."""
    folder = tmp_path_factory.mktemp("saved")
    random_network(0, "fixed")[0].save(folder / "net")
    return (folder / "net").read_bytes(), folder


def refused(content, folder, match):
    path = folder / "bad.mnistq"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        mq.QuantizedNet.load(path)
    assert "bad.mnistq" in str(caught.value)  # by name


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none is missing"):
        mq.QuantizedNet.load(tmp_path / "none")
    with pytest.raises(ValueError, match="is missing"):
        mq.QuantizedNet.load(tmp_path)  # a folder


def test_other_files_are_refused(saved):
    for content in (b"", b"\0" * 100, pickle.dumps({"a": 1}), b"PK\3\4" + b"0" * 50):
        refused(content, saved[1], "is not a file that QuantizedNet.save wrote")


def test_truncated_files_are_refused(saved):
    content, folder = saved
    for length in (len(mq.MAGIC), 40, 48, 49, 100, 1000, len(content) - 1):
        refused(content[:length], folder, "was truncated or altered")
    for longer in (content + b"\0", content * 3):
        refused(longer, folder, "was truncated or altered")


def test_altered_files_are_refused(saved):
    content, folder = saved
    places = [len(mq.MAGIC), 48, 49, 60, 300, 1000, len(content) // 2, -1]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1
        refused(bytes(altered), folder, "was truncated or altered")


def reseal(body):
    """A file whose checksum is right, as a hostile stranger would make it."""
    return mq.MAGIC + hashlib.sha256(body).digest() + body


def split(content):
    line, _, data = content[len(mq.MAGIC) + 32 :].partition(b"\n")
    return json.loads(line), data


def join(header, data):
    return reseal(json.dumps(header).encode() + b"\n" + data)


def test_resealing_alone_changes_nothing(saved, tmp_path):
    (tmp_path / "net").write_bytes(join(*split(saved[0])))
    mq.QuantizedNet.load(tmp_path / "net")


@pytest.mark.parametrize(
    "keys, value",
    [
        (["requantize"], "other"),
        (["requantize"], None),
        (["weight_bits"], [8, 8, 8, 8]),
        (["weight_bits"], 10**9),
        (["weight_bits", "fc1"], 9),
        (["weight_bits", "fc1"], 10**12),
        (["weight_bits", "fc1"], 0),
        (["weight_bits", "fc1"], 7),  # then the weights have another length
        (["weight_bits", "fc1"], "8"),
        (["weight_bits", "fc9"], 8),
        (["act_bits", "fc1"], 16),
        (["act_bits", "output"], -1),
        (["grids"], {}),
        (["grids", "fc1"], [1.0]),
        (["grids", "fc1"], [0.0, 0]),
        (["grids", "fc1"], [-1.0, 0]),
        (["grids", "fc1"], [float("nan"), 0]),
        (["grids", "fc1"], [float("inf"), 0]),
        (["grids", "fc1"], [1e300, 0]),
        (["grids", "fc1"], [1e-300, 0]),
        (["grids", "fc1"], [1.0, 256]),
        (["grids", "fc1"], [1.0, -1]),
        (["grids", "fc1"], [1.0, float("nan")]),
        (["grids", "fc1"], [1.0, [0] * 10]),
    ],
)
def test_hostile_headers_are_refused(keys, value, saved):
    header, data = split(saved[0])
    place = header
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    refused(join(header, data), saved[1], "describes no network")


def test_hostile_bodies_are_refused(saved):
    header, data = split(saved[0])
    for bad in (b"", b"\n", b"[" * 10**5 + b"\n", b"null\n", b"\xff\n", b"{}\n" + data):
        refused(reseal(bad), saved[1], "describes no network")
    refused(join(header, data[:-1]), saved[1], "describes no network")
    refused(join(header, data + b"\0"), saved[1], "longer than its network")
    first_scale = 20 * 25  # after conv1's weights, at 8 bits
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        altered = bytearray(data)
        altered[first_scale : first_scale + 4] = np.float32(bad).tobytes()
        refused(join(header, bytes(altered)), saved[1], "describes no network")
    altered = bytearray(data)
    first_bias = first_scale + 4 * 20
    altered[first_bias : first_bias + 4] = np.int32(2**31 - 1).tobytes()
    refused(join(header, bytes(altered)), saved[1], "beyond int32")
