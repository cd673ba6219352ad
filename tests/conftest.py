import ast
import contextlib
import os
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import mnistq_helpers as mq  # noqa: E402

# No test is timed, and the same examples are tried everywhere.
settings.register_profile("mnistq", deadline=None, derandomize=True)
settings.load_profile("mnistq")


def pytest_collection_modifyitems(items):
    if os.environ.get("MNISTQ_ALL") != "1":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="set MNISTQ_ALL=1 to run it"))


@pytest.fixture(scope="session")
def from_notebook():
    """Return a function (stem, *names) -> {name: what the notebook defines by it}.

    It runs the notebook's imports and its definitions of these names, or of all its
    functions, and nothing else.
    """

    def define(stem, *names):
        space = {}
        path = ROOT / "notebooks" / f"{stem}.ipynb"
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and not cell.source.startswith("%"):
                for node in ast.parse(cell.source).body:
                    wanted = isinstance(node, ast.FunctionDef)
                    if names:
                        wanted = getattr(node, "name", None) in names
                    if wanted or isinstance(node, ast.Import | ast.ImportFrom):
                        with contextlib.suppress(NameError):  # it needs a cell's data
                            exec(ast.unparse(node), space)
        return space

    return define


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
