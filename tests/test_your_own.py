"""A stranger's checkpoint and a photograph: integers, a .tflite and an answer."""

import pytest
import torch
import torch.nn.functional as F
from helpers import run_litert
from PIL import Image
from torch import nn

import mnistq_helpers as mq


class Example(nn.Module):
    """The network of PyTorch's own example, examples/mnist/main.py, word for word."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(x)
        x = self.conv2(x)
        x = F.relu(x)
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = self.fc1(x)
        x = F.relu(x)
        x = self.dropout2(x)
        x = self.fc2(x)
        output = F.log_softmax(x, dim=1)
        return output


@pytest.fixture(scope="module")
def files(tmp_path_factory, test_set, monkeypatch_module):
    """A checkpoint saved on a GPU from DataParallel, and a photograph of 7 2 1 0."""
    folder = tmp_path_factory.mktemp("mine")
    torch.manual_seed(1)
    net = Example().to(memory_format=torch.channels_last)
    images, labels = mq.mnist(train=True)
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    for batch in torch.arange(1600).split(50):
        adam.zero_grad()
        F.nll_loss(net(images[batch]), labels[batch]).backward()
        adam.step()
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    monkeypatch_module.setattr(
        "torch.serialization.location_tag", lambda storage: "cuda:0"
    )
    torch.save({"model_state_dict": state, "epoch": 1}, folder / "mnist_cnn.pt")
    ink = test_set[0][:4, 0] * mq.STD + mq.MEAN
    photo = mq.photograph(ink.clamp(0, 1), seed=0)
    Image.fromarray(photo).save(folder / "page.jpg")
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_pytorchs_example_and_a_photograph(files, test_set, calibration_images):
    net = mq.load_net(files / "mnist_cnn.pt", Example())
    assert mq.evaluate(net, test_set[0][:500], test_set[1][:500]) > 0.85
    qnet = mq.quantize_net(net, mq.calibrate(net, calibration_images[:200]))
    digits = mq.read_digits(files / "page.jpg")
    assert qnet(digits).argmax(1).tolist() == [7, 2, 1, 0]
    assert mq.diagnose(net, qnet, calibration_images[:50]).place is None
    mq.export_tflite(qnet, files / "mine.tflite")
    codes = qnet.codes(digits)
    found = run_litert(files / "mine.tflite", codes["conv1"])
    for name in ("conv2", "fc2", "output"):
        assert torch.equal(found[name], codes[name])
    qnet.save(files / "mine.mnistq")
    again = mq.QuantizedNet.load(files / "mine.mnistq")
    assert torch.equal(again(digits), qnet(digits))
