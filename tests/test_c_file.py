"""The network as C: every code that Python computes, here and on a microcontroller."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_network
from torch import nn

import mnistq_helpers as mq
from mnistq.chips import zig

MAIN = """\
#include <stdio.h>
#include "mnistq_net.h"

int main(void)
{
    uint8_t input[MNISTQ_INPUTS], output[MNISTQ_OUTPUTS];
    while (fread(input, 1, MNISTQ_INPUTS, stdin) == MNISTQ_INPUTS) {
        mnistq_run(input, output);
        fwrite(output, 1, MNISTQ_OUTPUTS, stdout);
    }
    return 0;
}
"""
CHECKED = ["-O0", "-g", "-fno-sanitize-recover=all", "-fsanitize=undefined"]
CHECKED[-1] += ",address" if shutil.which("gcc") else ""  # zig has no such library
QUICK = ["-O3", "-march=native"]


def in_c(qnet, codes, folder, packed, flags, compiler=None):
    """Return the codes of the scores, [N, outputs], that the C program computes."""
    mq.export_c(qnet, folder, packed)
    (folder / "main.c").write_text(MAIN)
    sources = [folder / "main.c", folder / "mnistq_net.c"]
    program = mq.compile_c(sources, folder / "program", flags, compiler)
    given = codes.numpy().tobytes()
    made = subprocess.run([program], input=given, capture_output=True, check=True)
    return np.frombuffer(made.stdout, np.uint8).reshape(len(codes), -1)


def codes_of(qnet, images):
    """Return the codes that enter, as C takes them, and those of the scores."""
    grid = (qnet.in_bits, qnet.in_scale, qnet.in_zero_point)
    codes = mq.quantize_tensor(images, *grid).tensor
    return codes, qnet.codes(images)[qnet.names[-1]].flatten(1).numpy()


def assert_same(qnet, images, folder, packed, flags, compiler=None):
    codes, expected = codes_of(qnet, images)
    made = in_c(qnet, codes, folder, packed, flags, compiler)
    assert np.array_equal(made, expected)


@pytest.fixture(scope="module")
def committed():
    """Return {bits: a QuantizedNet of committed weights}."""
    net, images = mq.load_net(), mq.mnist(train=True)[0][:1000]
    found = mq.calibrate(net, images).items()
    ranges = {name: (round(a, 2), round(b, 2)) for name, (a, b) in found}
    qnets = {bits: mq.quantize_net(net, ranges, bits) for bits in (8, 3)}
    names = {4: "w4a4_seed1", 2: "w2a2_long", 1: "w1a1_long"}
    stored = {b: mq.LOW_BITS / f"{n}.mnistq" for b, n in names.items()}
    return qnets | {b: mq.QuantizedNet.load(path) for b, path in stored.items()}


@pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])
def test_ten_thousand_digits_have_the_same_codes(bits, committed, tmp_path):
    codes, expected = codes_of(committed[bits], mq.mnist(train=False)[0])
    for packed in (True, False):
        made = in_c(committed[bits], codes, tmp_path, packed, QUICK)
        assert np.array_equal(made, expected)
        made = in_c(committed[bits], codes[:20], tmp_path, packed, CHECKED)
        assert np.array_equal(made, expected[:20])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_random_weights_have_the_same_codes(seed, packed, tmp_path):
    qnet, images = random_network(seed, "fixed")
    assert_same(qnet, images, tmp_path, packed, CHECKED)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("bits", [8, 7, 6, 5, 3, 1])
def test_other_chains_have_the_same_codes(bits, packed, tmp_path):
    """Sides that differ, a pooling of its own, no bias, a multiplier above 1."""
    torch.manual_seed(bits)
    layers = [nn.MaxPool2d(2), nn.Conv2d(2, 3, (5, 3), bias=False), nn.ReLU()]
    layers += [nn.MaxPool2d((3, 2), (2, 1)), nn.Conv2d(3, 4, 2), nn.Flatten()]
    net = nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.Linear(108, 5))
    images = torch.randn(6, 1, 28, 28)
    ranges = mq.calibrate(net, images)
    low, high = ranges["output"]
    for share in (1, 1e-3, 1e-9):  # negative shifts, and saturation
        narrow = ranges | {"output": (share * low, share * high)}
        qnet = mq.quantize_net(net, narrow, bits)
        assert_same(qnet, images, tmp_path, packed, CHECKED)
    *_, last = qnet.layers.values()
    assert int(last.shift.min()) < 0


@pytest.mark.parametrize("packed", [True, False])
def test_a_network_that_begins_with_pooling_has_the_same_codes(packed, tmp_path):
    torch.manual_seed(0)
    layers = [nn.MaxPool2d((3, 2), (2, 1)), nn.Conv2d(1, 2, 3), nn.Flatten()]
    net, images = nn.Sequential(*layers, nn.Linear(550, 4)), torch.randn(6, 1, 28, 28)
    qnet = mq.quantize_net(net, mq.calibrate(net, images))
    assert_same(qnet, images, tmp_path, packed, CHECKED)


def test_zig_compiles_it_too(committed, tmp_path):
    images = mq.mnist(train=False)[0][:50]
    for packed in (True, False):
        assert_same(committed[3], images, tmp_path, packed, ["-O2"], zig())


@pytest.mark.parametrize(("bits", "flash"), [(4, 225e3), (2, 117e3), (1, 63e3)])
def test_a_microcontroller_computes_the_same_codes(bits, flash, committed, tmp_path):
    codes = committed[bits].codes(mq.mnist(train=False)[0][:100])
    mq.export_c(committed[bits], tmp_path)
    chip = mq.Microcontroller(tmp_path)
    assert chip.sizes["flash"] < flash and chip.sizes["ram"] < 5500
    for given, expected in zip(codes["conv1"], codes["output"], strict=True):
        made = chip.run(given.numpy().tobytes())
        assert list(made) == expected.tolist()


def test_eight_bits_do_not_fit_into_the_microcontroller(committed, tmp_path):
    mq.export_c(committed[8], tmp_path)
    with pytest.raises(ValueError, match="will not fit in region 'FLASH'"):
        mq.Microcontroller(tmp_path)


def test_an_access_outside_its_memory_is_an_error(committed, tmp_path):
    from unicorn import UcError

    mq.export_c(committed[1], tmp_path)
    source = tmp_path / "mnistq_net.c"
    text = source.read_text()
    written = "*to = requantize("
    assert text.count(written) == 1
    source.write_text(text.replace(written, "to[1 << 20] = requantize("))
    with pytest.raises(UcError):
        mq.Microcontroller(tmp_path).run(bytes(784))


def test_the_header_says_what_the_tables_hold(committed, tmp_path):
    qnet = committed[2]
    mq.export_c(qnet, tmp_path)
    text = (tmp_path / "mnistq_net.h").read_text()
    words = dict(
        line.split()[1:3]
        for line in text.splitlines()
        if "#define" in line[:7] and len(line.split()) > 2
    )
    assert int(words["MNISTQ_INPUTS"]) == 784 and int(words["MNISTQ_OUTPUTS"]) == 10
    assert float(words["MNISTQ_INPUT_SCALE"]) == qnet.in_scale
    assert int(words["MNISTQ_INPUT_ZERO_POINT"]) == qnet.in_zero_point
    last = qnet.layers["fc2"]
    assert float(words["MNISTQ_OUTPUT_SCALE"]) == last.out_scale
    assert int(words["MNISTQ_OUTPUT_ZERO_POINT"]) == last.out_zero_point
    chip = mq.Microcontroller(tmp_path)
    assert 0 < chip.sizes["flash"] - int(words["MNISTQ_FLASH_BYTES"]) < 2000
    assert int(words["MNISTQ_RAM_BYTES"]) == chip.sizes["ram"] - 784 - 10


def test_pixels_become_the_codes_that_python_gives_them(committed, tmp_path):
    mq.export_c(committed[8], tmp_path)
    text = (tmp_path / "mnistq_net.c").read_text()
    table = text.split("MNISTQ_PIXEL_TO_CODE[256] = {")[1].split("}")[0]
    codes = torch.tensor([int(word) for word in table.split(",")])
    images = mq.mnist(train=False)[0][:100]
    pixels = ((images * mq.STD + mq.MEAN) * 255).round().long()
    assert torch.equal(codes[pixels], committed[8].codes(images)["conv1"].long())


def test_a_rounding_that_c_does_not_have_is_refused(tmp_path):
    qnet, _ = random_network(1, "float")
    with pytest.raises(ValueError, match="C cannot round as requantize='float' does"):
        mq.export_c(qnet, tmp_path)
    assert not list(Path(tmp_path).iterdir())


def test_what_does_not_compile_is_said(tmp_path):
    (tmp_path / "wrong.c").write_text("int main(void) { return x; }\n")
    with pytest.raises(ValueError, match="it does not compile: "):
        mq.compile_c([tmp_path / "wrong.c"], tmp_path / "wrong")
