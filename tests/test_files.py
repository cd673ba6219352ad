"""Codes packed without gaps, and files that are written whole or not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import random_network
from hypothesis import given
from hypothesis import strategies as st

import mnistq_helpers as mq


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


def test_a_file_is_replaced_whole(tmp_path):
    for content in (b"one", b"", bytes(range(256)) * 100):
        mq.write_whole(tmp_path / "file", content)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == content


def test_threads_that_write_the_same_file_leave_one_of_theirs_whole(tmp_path):
    contents = [bytes([value]) * 200_000 for value in range(8)]
    path = tmp_path / "file"
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            list(threads.map(lambda content: mq.write_whole(path, content), contents))
            assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    link, path = tmp_path / "link", tmp_path / "file"
    path.write_bytes(b"old")
    link.symlink_to(path)
    mq.write_whole(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["save", "export_onnx", "export_tflite"])
def test_an_interrupted_write_leaves_the_old_file(kind, tmp_path, monkeypatch):
    path = tmp_path / "net"
    path.write_bytes(b"old")

    def full_disk(self, content):
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    qnet, _ = random_network(0, "float" if kind == "export_onnx" else "fixed")
    write = getattr(mq, kind) if "export" in kind else mq.QuantizedNet.save
    with pytest.raises(OSError, match="No space"):
        write(qnet, path)
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    assert path.read_bytes() == b"old"
