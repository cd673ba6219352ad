"""MNIST as the series reads it, and what is said where a file is damaged or missing."""

import functools
import gzip
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision import datasets, transforms

import mnistq.data
import mnistq_helpers as mq

RAW = mq.ROOT / "data" / "MNIST" / "raw"


def test_mnist_is_what_torchvision_documents(test_set):
    images, labels = test_set
    assert images.shape == (10_000, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (10_000,) and labels.dtype == torch.int64
    # The first ten test digits, as printed in countless tutorials.
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def pixels(name):
    """Return the bytes of a packed file of images, [N, 28, 28]; its header has 16."""
    content = gzip.decompress((RAW / name).read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def test_pixels_are_normalised_as_in_pytorchs_example(test_set):
    """By numbers written here, on pixels that the helper has not touched."""
    usual = transforms.Normalize((0.1307,), (0.3081,))
    known = torch.tensor(pixels("t10k-images-idx3-ubyte.gz")[:500])
    expected = usual(known.unsqueeze(1) / 255)
    assert torch.equal(test_set[0][:500], expected)
    training = pixels("train-images-idx3-ubyte.gz")
    assert len(training) == 60_000
    assert round(float(training.mean() / 255), 4) == 0.1307 == mq.MEAN
    assert round(float(training.std() / 255), 4) == 0.3081 == mq.STD


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """The packed files in a folder of their own, from which mnist reads."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, _ in datasets.MNIST.resources:
        (folder / name).write_bytes((RAW / name).read_bytes())
    monkeypatch.setattr(mnistq.data, "ROOT", tmp_path)
    return folder


def test_a_damaged_file_is_named(raw):
    assert len(mq.mnist(train=False)[0]) == 10_000
    assert sorted(p.name for p in raw.iterdir()) == sorted(
        name for name, _ in datasets.MNIST.resources
    )  # nothing was unpacked into the checkout
    damaged = raw / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"t10k-labels.*is damaged.*delete it"):
        mq.mnist(train=False)


def test_a_missing_file_is_downloaded_or_named(raw, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"(?s)missing.*could not be downloaded"):
        mq.mnist(train=False)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=RAW)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [mirror])
        assert len(mq.mnist(train=False)[1]) == 10_000
        server.shutdown()
