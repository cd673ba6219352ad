"""The float network: its committed weights, its training, files that are refused."""

import os
import warnings

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import mnistq_helpers as mq


def test_the_committed_network_reads_99_percent(net, test_set):
    assert not net.training
    assert sum(p.numel() for p in net.parameters()) == 431_080
    accuracy = mq.evaluate(net, *test_set)
    assert 0.989 <= accuracy <= 0.991
    scores = net(test_set[0][:100])
    assert torch.allclose(scores.exp().sum(1), torch.ones(100), atol=1e-5)


def test_train_learns_and_repeats():
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (640,))
    images = torch.randn(640, 1, 28, 28) * 0.1
    images[torch.arange(640), 0, 2 * labels] += 2  # a bright row tells the class
    histories, weights = [], []
    for _ in range(2):
        torch.manual_seed(1)
        net = mq.Net()
        histories.append(mq.train(net, images, labels, 6, (images, labels)))
        weights.append(net.fc2.weight.detach())
    losses = [h["loss"] for h in histories[0]]
    assert len(losses) == 6 and losses[-1] < losses[0] and not net.training
    assert histories[0][-1]["accuracy"] > 0.5
    assert torch.allclose(*weights, atol=1e-5)


def test_train_takes_the_step_of_torchs_sgd():
    """One batch: v = grad, w <- w - 0.01 v, by hand."""
    torch.manual_seed(1)
    net, images = mq.Net(), torch.randn(64, 1, 28, 28)
    labels = torch.arange(64) % 10
    before = net.fc2.bias.detach().clone()
    gradient = torch.autograd.grad(F.nll_loss(net(images), labels), net.fc2.bias)[0]
    mq.train(net, images, labels, epochs=1)
    assert torch.allclose(net.fc2.bias, before - 0.01 * gradient, atol=1e-7)


def test_evaluate():
    labels = torch.tensor([3, 1, 2])
    scores = F.one_hot(torch.tensor([3, 1, 0]), 10).float()
    images = torch.arange(3)
    assert mq.evaluate(lambda i: scores[i], images, labels) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="0 images"):
        mq.evaluate(lambda i: i, torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        mq.evaluate(lambda i: scores[i], images, labels[:2])
    with pytest.raises(ValueError, match=r"\(3, 10\).*argmax"):
        mq.evaluate(lambda i: scores[i], images, F.one_hot(labels, 10))
    with pytest.raises(ValueError, match=r"\(3, 1\).*flatten"):
        mq.evaluate(lambda i: scores[i], images, labels[:, None])
    assert mq.evaluate(lambda i: scores[i], images, [3, 1, 2]) == pytest.approx(2 / 3)


def test_pixels_that_were_not_normalised_are_noticed(net, test_set, ranges):
    images, labels = test_set[0][:100], test_set[1][:100]
    pixels = images * mq.STD + mq.MEAN  # 0 to 1
    pixels = pixels.clamp(min=0)
    qnet = mq.quantize_net(net, ranges)
    for use in (
        lambda x: mq.evaluate(net, x, labels),
        lambda x: mq.calibrate(net, x),
        qnet,
        qnet.codes,
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(images)
        for raw in (pixels, 255 * pixels):
            with pytest.warns(UserWarning, match="Normalise these"):
                use(raw)


def test_a_bad_checkpoint_is_refused(tmp_path, monkeypatch):
    good = mq.COMMITTED.read_bytes()
    altered = tmp_path / "committed.pt"
    altered.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    monkeypatch.setitem(mq.SHA256, altered, mq.SHA256[mq.COMMITTED])
    with pytest.raises(ValueError, match=r"was altered.*git checkout"):
        mq.load_net(altered)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"was altered.*git checkout"):
        mq.load_net("../" + tmp_path.name + "/committed.pt")
    with pytest.raises(ValueError, match="is no file"):
        mq.load_net(tmp_path)  # a folder
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ValueError, match="is no file"):
            mq.load_net(tmp_path / "fifo")  # and not wait for someone to write
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(30 * 2**30)  # no block of it is on the disk
    with pytest.raises(ValueError, match="is larger than"):
        mq.load_net(tmp_path / "huge")
    mine = tmp_path / "mine.pt"
    with pytest.raises(ValueError, match="is missing: look at the path"):
        mq.load_net(mine)
    monkeypatch.setattr("mnistq.network.MINE", mine)
    with pytest.raises(ValueError, match="is missing: run notebook 01"):
        mq.load_net(mine)
    for content in (b"", b"not a network", good[: len(good) // 2]):
        mine.write_bytes(content)
        with pytest.raises(ValueError, match="is not a checkpoint of Net: it is cut"):
            mq.load_net(mine)
    with pytest.raises(ValueError, match="OrderedDict: give the name of a file"):
        mq.load_net(mq.Net().state_dict())
    with pytest.raises(ValueError, match=r"Net is a class: .* Net\(\)"):
        mq.load_net(mq.COMMITTED, mq.Net)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fc2.bias": torch.zeros(11)}, r"fc2.bias has shape \(11,\), not \(10,\)"),
        ({"fc2.bias": None}, r"it lacks fc2.bias \(10,\)"),
        ({"bn.weight": torch.ones(20)}, r"it has bn.weight \(20,\), unknown here"),
        ({"fc2.bias": torch.ones(10).char()}, "fc2.bias is torch.int8, not torch.flo"),
        (
            {"fc1.bias": None, "fc1.beta": torch.ones(500), "fc2.bias": torch.ones(9)},
            r"lacks fc1.bias \(500,\); fc2.bias has shape \(9,\).*it has fc1.beta",
        ),
        ({"conv1.bias": [0.0] * 20}, "conv1.bias is a list"),
        ({"fc1.bias": torch.full([500], torch.nan)}, "fc1.bias contains NaN"),
        ({"fc1.weight": torch.full([500, 800], torch.inf)}, "fc1.weight contains NaN"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_reason(
    changes, reason, tmp_path
):
    state = {**mq.Net().state_dict(), **changes}
    state = {name: value for name, value in state.items() if value is not None}
    torch.save(state, tmp_path / "mine.pt")
    with pytest.raises(ValueError, match=f"is not a checkpoint of Net: .*{reason}"):
        mq.load_net(tmp_path / "mine.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="it lacks conv1"):
        mq.load_net(tmp_path / "list.pt")


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "_orig_mod."),
        lambda state: prefixed(state, "module._orig_mod."),
        lambda state: prefixed(state, "_orig_mod.module."),
        lambda state: {"state_dict": prefixed(state, "model.net.")},
        lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": state, "loss": torch.tensor(0.1)},
        lambda state: {"net": state},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
)
def test_checkpoints_as_others_save_them(wrap, tmp_path, monkeypatch):
    state = mq.Net().state_dict()
    path = tmp_path / "theirs.pt"
    torch.save(wrap(state), path)
    assert torch.equal(mq.load_net(path).fc1.weight, state["fc1.weight"])
    # What a GPU's tensor is labelled with when it is saved:
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
    torch.save(wrap(state), path)
    assert torch.equal(mq.load_net(path).fc1.weight, state["fc1.weight"])


def test_a_checkpoint_with_a_prefix_that_does_not_fit_names_what_differs(tmp_path):
    state = prefixed(mq.Net().state_dict(), "module.")
    state["module.fc3.bias"] = state.pop("module.fc2.bias")
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match=r"Net: it lacks fc2.bias \(10,\); it has fc3"):
        mq.load_net(tmp_path / "theirs.pt")
    state = prefixed(mq.Net().state_dict(), "model.")
    state["loss.weight"] = torch.ones(10)
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match=r"Net: it has loss.weight \(10,\), unknown"):
        mq.load_net(tmp_path / "theirs.pt")


def test_safetensors(tmp_path):
    state, path = mq.Net().state_dict(), tmp_path / "theirs.safetensors"
    for names in (state, prefixed(state, "module.")):
        safetensors.torch.save_file(names, path)
        assert torch.equal(mq.load_net(path).fc1.weight, state["fc1.weight"])
    for content in (path.read_bytes()[:1000], b"\x09" + bytes(7) + b"{not JSON"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a checkpoint of Net"):
            mq.load_net(path)


def test_a_whole_pickled_network_is_refused_and_says_what_to_save(tmp_path):
    torch.save(mq.Net(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"Save net.state_dict\(\)"):
        mq.load_net(tmp_path / "whole.pt")


def test_a_checkpoint_of_another_network(tmp_path):
    small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    torch.save(small.state_dict(), tmp_path / "small.pt")
    again = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    assert mq.load_net(tmp_path / "small.pt", again.train()) is again
    assert torch.equal(again[1].weight, small[1].weight) and not again.training
    with pytest.raises(ValueError, match="checkpoint of Sequential: it lacks 1"):
        mq.load_net(mq.SHIFTED, again)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv1.weight": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"it holds a .*open, and only tensors"):
        mq.load_net(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()
