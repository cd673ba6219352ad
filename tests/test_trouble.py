"""The trouble a learner causes ends in the right result or in one clear sentence."""

import errno
import signal
import subprocess
import sys

import nbformat
import pytest
import torch
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import mnistq_helpers as mq

NOTEBOOKS = [
    pytest.param(
        path, id=path.stem, marks=[] if path.name[:2] == "02" else pytest.mark.slow
    )
    for path in sorted((mq.ROOT / "notebooks").glob("*.ipynb"))
]
NO_WRITING_NO_NETWORK = f"""
import os, sys
def refuse(event, details):
    if event == "open":
        path, mode, flags = details
        writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing and os.path.abspath(os.fsdecode(path)).startswith({str(mq.ROOT)!r}):
            raise PermissionError(30, "Read-only file system", path)
    if event in ("os.mkdir", "os.rename", "os.remove"):
        if os.path.abspath(os.fsdecode(details[0])).startswith({str(mq.ROOT)!r}):
            raise PermissionError(30, "Read-only file system", details[0])
    if event == "socket.getaddrinfo":
        raise OSError("there is no network")
sys.addaudithook(refuse)
"""


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_cells_out_of_order_and_twice_after_a_restart(path):
    """Without network, without writing to the checkout."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [nbformat.v4.new_code_cell(NO_WRITING_NO_NETWORK), *cells]
    client = NotebookClient(
        notebook,
        KernelManager(),
        timeout=1200,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel():
        for index in reversed(range(len(notebook.cells))):
            try:
                client.execute_cell(notebook.cells[index], index)
            except CellExecutionError as error:  # it names what an earlier cell does
                assert error.ename in ("NameError", "ModuleNotFoundError"), error
        client.km.restart_kernel(now=True)
        client.kc.wait_for_ready()
        for index, cell in enumerate(notebook.cells):  # raises where a cell fails
            client.execute_cell(cell, index)
            client.execute_cell(cell, index)


def run(path, checkpoint, folder):
    """Execute the notebook on another network and from another working directory."""
    notebook = nbformat.read(path, as_version=4)
    (settings,) = (
        c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])
    )
    settings.source = f"from pathlib import Path\nCHECKPOINT = {checkpoint}"
    first = nbformat.v4.new_code_cell(NO_WRITING_NO_NETWORK)
    notebook.cells.insert(0, first)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=1200, resources=place).execute()


@pytest.mark.parametrize("folder", [mq.ROOT, mq.ROOT / "tests" / "exercises"])
def test_another_working_directory_and_another_network(folder):
    run(mq.ROOT / "notebooks" / "02_quantization_math.ipynb", "mq.SHIFTED", folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that notebook 01's recipe makes with another seed."""
    torch.manual_seed(2)
    net = mq.Net()
    mq.train(net, *mq.mnist(train=True))
    path = tmp_path_factory.mktemp("runs") / "mnist_float.pt"
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("path", [param.values[0] for param in NOTEBOOKS])
def test_every_notebook_runs_to_its_end_on_ones_own_network(path, trained):
    run(path, repr(trained).replace("PosixPath", "Path"), mq.ROOT)


@pytest.fixture
def save_net(from_notebook):
    return from_notebook("01_train", "save_net")["save_net"]


def savers(net, ranges, save_net):
    """Return {what is saved: how to save it to a path}."""
    fixed = mq.quantize_net(net, ranges)
    rounded = mq.quantize_net(net, ranges, requantize="float")
    return {
        "a checkpoint": lambda path: save_net(net, path),
        "a network": fixed.save,
        "an .onnx": lambda path: mq.export_onnx(rounded, path),
        "a .tflite": lambda path: mq.export_tflite(fixed, path),
    }


@pytest.mark.parametrize("what", ["a checkpoint", "a network", "an .onnx", "a .tflite"])
def test_a_full_disk_leaves_the_old_file_and_no_other(
    what, net, ranges, save_net, tmp_path
):
    resource = pytest.importorskip("resource")  # not on Windows
    save = savers(net, ranges, save_net)[what]
    path = tmp_path / "saved"
    save(path)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # writes stop there
    try:
        with pytest.raises(OSError) as caught:
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


RANGES = dict.fromkeys(("conv1", "conv2", "fc1", "fc2", "output"), (-8.0, 8.0))


def same_weights(a, b):
    return all(
        torch.equal(a.layers[name].weight, layer.weight)
        for name, layer in b.layers.items()
    )


def test_two_who_save_at_once_never_leave_a_mixture(random_net, tmp_path):
    folder, stop = tmp_path / "saved", tmp_path / "stop"
    folder.mkdir()
    path = folder / "net.mnistq"
    other = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(mq.ROOT)!r})
import mnistq_helpers as mq
qnet = mq.quantize_net(mq.load_net(), {RANGES})
while not Path({str(stop)!r}).exists():
    qnet.save({str(path)!r})
"""
    mine = mq.quantize_net(random_net, RANGES)
    theirs = mq.quantize_net(mq.load_net(), RANGES)
    mine.save(path)
    seen = []
    with subprocess.Popen([sys.executable, "-c", other]) as process:
        try:
            while (len(seen) < 200 or len(set(seen)) < 2) and process.poll() is None:
                loaded = mq.QuantizedNet.load(path)  # raises for a damaged file
                found = [same_weights(loaded, qnet) for qnet in (mine, theirs)]
                assert sum(found) == 1  # the one's or the other's, whole
                seen.append(found[0])
                mine.save(path)
        finally:
            stop.touch()
    assert process.returncode == 0
    assert len(set(seen)) == 2  # both have saved while this one looked
    assert list(folder.iterdir()) == [path]
