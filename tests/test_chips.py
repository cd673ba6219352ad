"""Compiling C, here and for an emulated chip, and counting its instructions."""

from bisect import bisect

import pytest
import torch
from torch import nn
from unicorn import UcError

import mnistq_helpers as mq
from mnistq import chips


@pytest.fixture(scope="module")
def small():
    """Return (a small QuantizedNet, the codes of an image, those of its scores)."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 5, stride=1), nn.MaxPool2d(4), nn.ReLU(), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(72, 3))
    images = mq.mnist(train=False)[0][:1]
    qnet = mq.quantize_net(net, mq.calibrate(net, images), weight_bits=3)
    codes = qnet.codes(images)
    return qnet, bytes(codes["0"].flatten().tolist()), codes["output"][0].tolist()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("flags", [[], ["-O0"]])
def test_this_processor_gives_pythons_codes(packed, flags, small, tmp_path):
    qnet, given, expected = small
    mq.export_c(qnet, tmp_path, packed)
    processor = mq.ThisProcessor(tmp_path, flags)
    assert [list(processor.run(given)) for _ in range(2)] == [expected] * 2


def test_two_networks_in_one_process_do_not_meet(small, tmp_path):
    qnet, given, expected = small
    other = mq.QuantizedNet.load(mq.LOW_BITS / "w1a1_long.mnistq")
    processors = []
    for name, q in (("a", qnet), ("b", other)):
        mq.export_c(q, tmp_path / name, packed=False)
        processors.append(mq.ThisProcessor(tmp_path / name))
    processors[1].run(given)
    assert list(processors[0].run(given)) == expected


def test_instructions_are_those_that_are_carried_out(small, tmp_path):
    from unicorn import UC_HOOK_CODE

    qnet, given, expected = small
    mq.export_c(qnet, tmp_path)
    chip = mq.Microcontroller(tmp_path)
    chip.run(given)  # what is translated already is counted, too
    steps = chip.instructions(given)
    assert list(chip.run(given)) == expected
    assert [step["unpack"] > 0 for step in steps] == [True, True]
    seen = []
    chip.chip.hook_add(
        UC_HOOK_CODE, lambda chip, address, size, _: seen.append(address)
    )
    chip.chip.ctl_flush_tb()
    chip.run(given)
    starts = [start for start, _ in chip.functions]
    names = [chip.functions[bisect(starts, address) - 1][1] for address in seen]
    own = [name for name in names if name not in ("reset", "stop")]
    returns = len(own) - sum(step.total() for step in steps)
    assert 0 < returns < 10  # what mnistq_run does after its last call


def test_a_larger_chip_holds_more_and_its_limits_hold(small, tmp_path):
    qnet, given, expected = small
    mq.export_c(qnet, tmp_path)
    with pytest.raises(ValueError, match="will not fit in region 'FLASH'"):
        mq.Microcontroller(tmp_path, flash=1024)
    with pytest.raises(ValueError, match="will not fit in region 'RAM'"):
        mq.Microcontroller(tmp_path, ram=512)
    chip = mq.Microcontroller(tmp_path, flash=4096, ram=4096)
    assert list(chip.run(given)) == expected
    short = "will not fit in region '{}': overflowed by [1-4] bytes"  # sections align
    with pytest.raises(ValueError, match=short.format("FLASH")):
        mq.Microcontroller(tmp_path, flash=chip.sizes["flash"] - 1)
    with pytest.raises(ValueError, match=short.format("RAM")):
        mq.Microcontroller(tmp_path, ram=chip.sizes["ram"] - 1)
    chip.end_of_ram = 4096  # its stack would be flash
    with pytest.raises(UcError):
        chip.run(given)


def test_flags_reach_the_compiler_and_a_warning_is_an_error(tmp_path):
    source = tmp_path / "f.c"
    source.write_text("int f(void) { return VALUE; }")
    assert mq.load_c([source], ["-DVALUE=7"]).f() == 7
    source.write_text("int f(void) { int forgotten; return 1; }")
    with pytest.raises(ValueError, match="unused"):
        mq.load_c([source])


def test_the_stack_takes_less_than_200_bytes(tmp_path):
    qnet = mq.QuantizedNet.load(mq.LOW_BITS / "w1a1_long.mnistq")
    mq.export_c(qnet, tmp_path)
    chip = mq.Microcontroller(tmp_path)
    end, unused = chip.end_of_ram, b"\xaa" * 4096
    chip.chip.mem_write(end - len(unused), unused)
    chip.run(bytes(qnet.codes(mq.mnist(train=False)[0][:1])["conv1"].flatten()))
    left = bytes(chip.chip.mem_read(end - len(unused), len(unused)))
    used = len(left) - next(i for i, byte in enumerate(left) if byte != 0xAA)
    assert 100 < used < 200


def test_where_there_is_no_compiler_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(chips.shutil, "which", lambda name: None)
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install ziglang"):
        mq.compile_c([], tmp_path / "program")


def test_zig_is_used_where_there_is_no_gcc(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(chips.shutil, "which", lambda name: None)

    def run(command, **_):
        commands.append(command)
        return chips.subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(chips.subprocess, "run", run)
    mq.compile_c([], tmp_path / "program")
    assert commands[0][1:4] == ["-m", "ziglang", "cc"]
