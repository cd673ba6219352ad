"""The float network: built, trained, evaluated, loaded. Notebook 01."""

import hashlib
import io
import os
import re
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from mnistq.data import ROOT, warn_of_raw_pixels

COMMITTED = ROOT / "data" / "mnist_float.pt"  # the network every notebook starts from
MINE = ROOT / "runs" / "mnist_float.pt"  # the one that you train in notebook 01
SHIFTED = ROOT / "data" / "mnist_float_shifted.pt"  # trained on with shifted images
RESNET = ROOT / "data" / "resnet.pt"  # the small residual network of notebook 11
SHA256 = {
    COMMITTED: "c10a959df4cf2a82cb64ee2f10060364ea0af398be320920e94d41db02fa871b",
    SHIFTED: "fdf48d610256ab08e8fbee7595eea1729c54ff47d544904c6a9f4e23ac34b14d",
    RESNET: "5381a92dae704135e81db519a1285ce1faea725c053fa3f9dc520bee0983c281",
}

LARGEST = 2**31  # bytes of a file that load_net reads
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys of a larger dict
NAMED = 12  # of the keys that do not fit


class Net(nn.Module):
    """The article's network: 28x28 -> 20x12x12 -> 50x4x4 = 800 -> 500 -> 10.

    conv1 1->20 and conv2 20->50 are 5x5 with ReLU and 2x2 max pooling, fc1 has ReLU.
    forward: float32 [N, 1, 28, 28] -> log-probabilities [N, 10]. Taught in notebook 01.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x):  # (N, 1, 28, 28)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 20, 12, 12)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 50, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (N, 500)
        return F.log_softmax(self.fc2(x), dim=1)  # (N, 10)


def train(net, images, labels, epochs=10, test=None):
    """Train net in place as the article does: SGD, v <- 0.5 v + grad, w <- w - lr v.

    lr 0.01, momentum 0.5, batches of 64 in a new random order each epoch (torch's
    global seed decides it). test: (images, labels), or None. All on the net's device.
    Returns a list with a dict for each epoch: "loss", the mean of the negative
    log-likelihood over the epoch, and "accuracy" on test in [0, 1].
    Taught in notebook 01.
    """
    net.to(memory_format=torch.channels_last)  # only for speed
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)
    history = []
    for epoch in range(1, epochs + 1):
        net.train()
        total = 0.0
        order = torch.randperm(len(images)).split(64)
        # It moves once in 100 steps: a notebook drops messages past the thousandth.
        name = f"epoch {epoch} of {epochs}"
        for batch in tqdm(order, name, miniters=100, maxinterval=1e9):
            optimizer.zero_grad()
            loss = F.nll_loss(net(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        history.append({"loss": float(total / len(images))})
        net.eval()
        if test is not None:
            history[-1]["accuracy"] = evaluate(net, *test)
    return history


def evaluate(model, images, labels):
    """Return the accuracy of model in [0, 1]: the share of argmax(scores) == label.

    model: any callable from images [N, 1, 28, 28] to scores [N, 10].
    labels: whole numbers [N]. Raises ValueError if there are no images, or not one
    label for each; warns of pixels that were not normalised. Taught in notebook 01.
    """
    labels = checked_labels(images, labels)
    with torch.inference_mode():
        parts = zip(images.split(500), labels.split(500), strict=True)
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
    return correct / len(images)


def checked_labels(images, labels):
    """Return labels as a tensor [N], or refuse what is not one label for each image."""
    labels = torch.as_tensor(labels)
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels: give at least one image, "
            "and one label for each."
        )
    if labels.dim() != 1:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}: give the number of each class, "
            "[N] (of one-hot rows labels.argmax(1), of [N, 1] labels.flatten())."
        )
    warn_of_raw_pixels(images)
    return labels


def load_net(path=COMMITTED, net=None):
    """Return the network with the weights saved in path, in eval mode.

    path: mq.COMMITTED, mq.SHIFTED, mq.RESNET, of known SHA-256, mq.MINE, written by
    notebook 01, or a state_dict that someone else saved: on a GPU, as safetensors, with
    a prefix before its names (DataParallel, torch.compile, a module around it), inside
    a dict with other things (WRAPPERS).
    net: the network to load into, which is changed in place; a new Net without it.
    Loads tensors only (weights_only), never code. Raises ValueError for a file that is
    missing, altered, cut off, or does not fit, and names each key that is missing, left
    over or of another shape. Taught in notebooks 01 and 11.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"path is a {type(path).__name__}: give the name of a file; what is loaded "
            "already goes into net.load_state_dict."
        )
    if isinstance(net, type):
        raise ValueError(
            f"{net.__name__} is a class: give a network of it, {net.__name__}()."
        )
    path = Path(path).resolve()  # so that SHA256 knows it
    remedy = "look at the path, or use mq.COMMITTED"
    if path in SHA256:
        remedy = "restore it with git checkout"
    elif path == MINE:
        remedy = "run notebook 01 to train and save it, or use mq.COMMITTED"
    if not path.is_file():
        problem = "is no file" if path.exists() else "is missing"
        raise ValueError(f"{path} {problem}: {remedy}.")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST:,} bytes: {remedy}.")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256.get(path, digest):
        raise ValueError(f"{path} was altered (its SHA-256 is {digest}): {remedy}.")
    net = Net() if net is None else net
    refusal = f"{path} is not a checkpoint of {type(net).__name__}"
    try:
        saved = saved_tensors(content)
    except Exception as error:  # torch raises half a dozen kinds for a bad file
        raise ValueError(f"{refusal}: {unreadable(error)}.") from error
    state = plain_state(saved, net.state_dict())
    problem = difference(state, net.state_dict())
    if problem:
        raise ValueError(f"{refusal}: {problem}.")
    net.load_state_dict(state)
    return net.eval()


def unreadable(error):
    """Return what torch.load or safetensors did not like in a file, in words."""
    strange = re.search(r"GLOBAL (\S+)", str(error))
    if strange:
        return (
            f"it holds a {strange[1]}, and only tensors, numbers and text are loaded, "
            "never code. Save net.state_dict()"
        )
    return "it is cut off, or neither torch.save nor safetensors wrote it"


def saved_tensors(content):
    """Return what torch.save or safetensors wrote, on the CPU; never executes code."""
    if content[8:9] == b"{":  # safetensors: the length of a line of JSON, and the line
        from safetensors.torch import load

        return load(content)
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


def plain_state(saved, wanted):
    """Return {name: tensor} of a saved dict: unwrapped, and without the prefix that
    keeps most of its names from being those wanted."""
    for key in WRAPPERS:
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    if not isinstance(saved, dict):
        return {}
    state = {str(name): value for name, value in saved.items()}
    prefixes = Counter()
    for name in state:
        parts = name.split(".")
        for n in range(len(parts)):
            prefixes[".".join([*parts[:n], ""])] += ".".join(parts[n:]) in wanted
    (prefix, _), *_ = prefixes.most_common(1) or [("", 0)]
    return {name.removeprefix(prefix): value for name, value in state.items()}


def difference(state, wanted):
    """Return what keeps a state from being loaded, key by key, in words, or ""."""
    problems = []
    for name, tensor in wanted.items():
        value, shape = state.get(name), tuple(tensor.shape)
        if name not in state:
            problems.append(f"it lacks {name} {shape}")
        elif not isinstance(value, torch.Tensor):
            problems.append(f"{name} is a {type(value).__name__}, not a tensor")
        elif tuple(value.shape) != shape:
            problems.append(f"{name} has shape {tuple(value.shape)}, not {shape}")
        elif value.is_floating_point() != tensor.is_floating_point():
            problems.append(f"{name} is {value.dtype}, not {tensor.dtype}")
        elif not bool(torch.isfinite(value).all()):
            problems.append(f"{name} contains NaN or infinity")
    for name in sorted(state.keys() - wanted.keys()):
        shape = tuple(getattr(state[name], "shape", ()))
        problems.append(f"it has {name} {shape}, unknown here")
    more = len(problems) - NAMED
    return "; ".join(problems[:NAMED]) + (f"; and {more} more" if more > 0 else "")
