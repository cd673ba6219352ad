import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mnistq_helpers as mq  # noqa: E402

# No test is timed, and the same examples are tried everywhere.
settings.register_profile("mnistq", deadline=None, derandomize=True)
settings.load_profile("mnistq")


@pytest.fixture(scope="session")
def net():
    return mq.load_net()


@pytest.fixture(scope="session")
def test_set():
    return mq.mnist(train=False)


@pytest.fixture(scope="session")
def calibration_images():
    return mq.mnist(train=True)[0][:1000]


@pytest.fixture(scope="session")
def ranges(net, calibration_images):
    return mq.calibrate(net, calibration_images)


@pytest.fixture
def random_net():
    """A Net whose weights are far from the trained one's, the same on every machine."""
    torch.manual_seed(7)
    net = mq.Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return net.eval()
