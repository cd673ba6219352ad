"""The project's own file: saved and loaded, and every other content refused."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from helpers import NAMES, random_network

import mnistq_helpers as mq
from mnistq.mnistq_file import MAGIC


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
    for length in (len(MAGIC), 40, 48, 49, 100, 1000, len(content) - 1):
        refused(content[:length], folder, "was truncated or altered")
    for longer in (content + b"\0", content * 3):
        refused(longer, folder, "was truncated or altered")


def test_altered_files_are_refused(saved):
    content, folder = saved
    places = [len(MAGIC), 48, 49, 60, 300, 1000, len(content) // 2, -1]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1
        refused(bytes(altered), folder, "was truncated or altered")


def reseal(body):
    """A file whose checksum is right, as a hostile stranger would make it."""
    return MAGIC + hashlib.sha256(body).digest() + body


def split(content):
    line, _, data = content[len(MAGIC) + 32 :].partition(b"\n")
    return json.loads(line), data


def join(header, data):
    return reseal(json.dumps(header).encode() + b"\n" + data)


def test_resealing_alone_changes_nothing(saved, tmp_path):
    (tmp_path / "net").write_bytes(join(*split(saved[0])))
    mq.QuantizedNet.load(tmp_path / "net")


NAN, INF = float("nan"), float("inf")
FC1 = ["steps", 3]  # conv1, conv2, flatten, fc1, fc2


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["requantize"], "other"),
        (["requantize"], None),
        (["shape"], [1, 28]),
        (["shape"], [1, 4, 28]),  # nothing is left after conv1
        (["shape"], [1, 28, 10**9]),
        (["shape"], [2, 28, 28]),
        (["bits"], 9),
        (["bits"], [8]),
        (["grid"], [1.0, 256]),
        (["steps"], []),
        (["steps"], {}),
        (["steps", 2, "kind"], "other"),
        (["steps", 2, "inputs"], ["nowhere"]),
        (["steps", 2, "inputs"], []),
        (["steps", 0, "pool"], [[0, 2], [2, 2]]),
        (["steps", 0, "pool"], [[2, 2], [0, 2]]),
        (["steps", 0, "pool"], [[2, 2]]),
        (["steps", 0, "pool"], [[2, 2, 2], [2, 2, 2]]),
        (["steps", 0, "pool"], [[25, 2], [2, 2]]),
        (["steps", 1, "shape"], [50, 20, 5]),
        (["steps", 1, "shape"], [50, 5, 20, 5]),  # as many codes
        ([*FC1, "inputs"], ["conv2"]),
        ([*FC1, "shape"], [500, 400]),
        ([*FC1, "shape"], [500, -800]),
        ([*FC1, "shape"], [0, 800]),
        ([*FC1, "shape"], [500, 10**12]),
        ([*FC1, "weight_bits"], [8, 8, 8, 8]),
        ([*FC1, "weight_bits"], 9),
        ([*FC1, "weight_bits"], 10**12),
        ([*FC1, "weight_bits"], 0),
        ([*FC1, "weight_bits"], 7),  # then the weights have another length
        ([*FC1, "weight_bits"], "8"),
        ([*FC1, "bits"], 16),
        (["steps", 4, "bits"], -1),
        ([*FC1, "grid"], [1.0]),
        ([*FC1, "grid"], [0.0, 0]),
        ([*FC1, "grid"], [-1.0, 0]),
        ([*FC1, "grid"], [NAN, 0]),
        ([*FC1, "grid"], [INF, 0]),
        ([*FC1, "grid"], [1e300, 0]),
        ([*FC1, "grid"], [1e-300, 0]),
        ([*FC1, "grid"], [1.0, 256]),
        ([*FC1, "grid"], [1.0, -1]),
        ([*FC1, "grid"], [1.0, NAN]),
        ([*FC1, "grid"], [1.0, [0] * 10]),
    ],
)
def test_hostile_headers_are_refused(keys, value, saved):
    header, data = split(saved[0])
    place = header
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    refused(join(header, data), saved[1], "cannot be used")


def test_headers_without_a_name_are_refused(saved):
    header, data = split(saved[0])
    for key in header:
        less = {k: v for k, v in header.items() if k != key}
        refused(join(less, data), saved[1], "cannot be used")
    for number, step in enumerate(header["steps"]):
        for key in step:
            less = json.loads(json.dumps(header))
            del less["steps"][number][key]
            refused(join(less, data), saved[1], "cannot be used")


def test_hostile_bodies_are_refused(saved):
    header, data = split(saved[0])
    for bad in (b"", b"\n", b"[" * 10**5 + b"\n", b"null\n", b"\xff\n", b"{}\n" + data):
        refused(reseal(bad), saved[1], "cannot be used")
    refused(join(header, data[:-1]), saved[1], "cannot be used")
    refused(join(header, data + b"\0"), saved[1], "longer than its network")
    first_scale = 20 * 25  # after conv1's weights, at 8 bits
    for bad in (0.0, -1.0, NAN, INF):
        altered = bytearray(data)
        altered[first_scale : first_scale + 4] = np.float32(bad).tobytes()
        refused(join(header, bytes(altered)), saved[1], "cannot be used")
    altered = bytearray(data)
    first_bias = first_scale + 4 * 20
    altered[first_bias : first_bias + 4] = np.int32(2**31 - 1).tobytes()
    refused(join(header, bytes(altered)), saved[1], "beyond int32")


# -- the committed networks of few bits ---------------------------------------------

SHA256 = {  # of the files
    "w1a1_long": "23f1bb7d56dddb9a00dde8c9956ac203e8c2e8dca3247e9bb14df693ff79c822",
    "w1a1_seed1": "9d4ed4c4ecdaee2051c8fe001a216c281ef68a85d6b007b31f82e0fb646d12e9",
    "w1a1_seed2": "655da0680d3389470fdd33c4d94544f6c608fbc238d1493ae8039c244db063fc",
    "w1a1_seed3": "b14d42d7c3bd5fb9054c4a98e77dfd326fd048fce3d96934d933aa37f6f419cd",
    "w1a2_seed1": "0558196eba0f2c3d41944e20c39890e79e26ded094a120e032cacd0f9424931c",
    "w1a2_seed2": "7af9c24d11a1c46be9c986d6ad64029dcc7b7290dcddb8ff09a1c2ef493ec536",
    "w1a2_seed3": "b2ddc6447f2fc3731ac2093bc3d5db7e223ce374f4aebec3613d696ee39ab914",
    "w2a2_long": "9ad84dfcba98434924a001f5dc255f4d63ed11c444af93b043bb4d62f6c858f9",
    "w2a2_seed1": "c2a75ed2096af910f0b5934e4ed4884e38b0ec037770a9977407303c35783c8d",
    "w2a2_seed2": "54cd3614e110361db89e01d6c61299d57e1563c04bee2dc8244e9c83789e8259",
    "w2a2_seed3": "1e4957a07caf8fd9dadc5b23b53e63317ab5c68d1b9cba08a0cf9d7929da5e8d",
    "w4a4_seed1": "e06a5d6f3a1e74c93cb75729865db45172f17f095c680272f5b2ed92fb5d6629",
    "w4a4_seed2": "5101edac1f19d1fdda459b892adfc0f403b4afd96db94ae300cb4c152496a29b",
    "w4a4_seed3": "18cf5cf89ad279d20d1c5f22b355ea33d71eeac51d35dcdfdcafe1298d5070d7",
}
CODES_SHA256 = {  # of all tensors' codes on the first 200 test images
    "w1a1_long": "b3b9781ed14b3cf99a69502d4fc542d63233bd74dd42a48eeba8476e9beb99f9",
    "w1a1_seed1": "01836507f000085e65d7b90921a429043861509979eca4f06cea28ca11721b59",
    "w1a1_seed2": "2661a864689771f9ef4adc0be6de6c5be3781f807c8eb42cc9fb98c8cacac555",
    "w1a1_seed3": "ac0c1bbdd217df39c1fed8e4e3aa0a0e6ba389c73c2664b6788860786118c2d3",
    "w1a2_seed1": "580c1d852f03a818c209e4c19d5a47ce9c4f994ac41fd1acdc16558031c2a4ab",
    "w1a2_seed2": "02ec550548871709e124ba667ce06d2d6bcaab973e07d2bb7135856d59b602f2",
    "w1a2_seed3": "cfdcb51c9af076b8315b849b7cb56b7ff05f917d340ef204d50e2db86adb1ca1",
    "w2a2_long": "d2bedce4abb17979a591d83814d0db3d8ef5175f5db0dcb557503fea2d490a49",
    "w2a2_seed1": "1048404638659a1cf833f6b03b0bd9e5734562d899b810a39758a5ea3a03673c",
    "w2a2_seed2": "31e0d3e4caa0ccecb3e76459c6111d7e85b6d694a474ec738ebd4715326c6f48",
    "w2a2_seed3": "5761b4a1d5a773a8ec4036b19456987b18e686276f8a189364dd8e455c25f408",
    "w4a4_seed1": "ea84ba941fc6a8c91af2b1828d314c516b6e191ab3ad3a90e6cce766eea47ed8",
    "w4a4_seed2": "2f804203adac4c78b0744da634cea8ae665ac11cb16985823d00eecdc010e1a0",
    "w4a4_seed3": "88a24f7e9f0ced35aa388a15b531a2f0660820cab72537fe259c2867b9768dce",
}


def test_the_committed_networks_are_all_there():
    pairs = {(4, 4), (2, 2), (1, 2), (1, 1)}
    short = {f"w{w}a{a}_seed{seed}" for w, a in pairs for seed in (1, 2, 3)}
    assert set(SHA256) == short | {"w2a2_long", "w1a1_long"}
    assert {path.stem for path in mq.LOW_BITS.glob("*")} == set(SHA256)


@pytest.mark.parametrize("name", SHA256)
def test_the_committed_networks_hold_their_bits_and_codes(name, test_set):
    path = mq.LOW_BITS / f"{name}.mnistq"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]
    qnet = mq.QuantizedNet.load(path)
    weight_bits, act_bits = int(name[1]), int(name[3])
    assert {layer.weight_bits for layer in qnet.layers.values()} == {weight_bits}
    for layer in qnet.layers.values():
        assert len(layer.weight.unique()) <= 2**weight_bits
    codes = qnet.codes(test_set[0][:200])
    assert qnet.in_bits == 8 and qnet.requantize == "fixed"
    for tensor in ("conv2", "fc1", "fc2"):
        assert 2 ** (act_bits - 1) <= int(codes[tensor].max()) < 2**act_bits
    content = b"".join(codes[tensor].numpy().tobytes() for tensor in NAMES)
    assert hashlib.sha256(content).hexdigest() == CODES_SHA256[name]


TARGETS = {"w4a4": 0.991, "w2a2": 0.989, "w1a2": 0.988, "w1a1": 0.983}
LONG_TARGETS = {"w2a2": 0.993, "w1a1": 0.989}


@pytest.mark.parametrize("kind", TARGETS)
def test_accuracy_of_the_committed_networks(kind, test_set):
    def accuracy(name):
        qnet = mq.QuantizedNet.load(mq.LOW_BITS / f"{kind}_{name}.mnistq")
        return mq.evaluate(qnet, *test_set)

    seeds = [accuracy(f"seed{seed}") for seed in (1, 2, 3)]
    assert sum(seeds) / 3 >= TARGETS[kind]
    if kind in LONG_TARGETS:
        assert accuracy("long") >= LONG_TARGETS[kind]
