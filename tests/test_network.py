"""The float network: its committed weights, its training, files that are refused."""

import pytest
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
    with pytest.raises(ValueError, match="is missing"):
        mq.load_net(tmp_path)  # a folder
    mine = tmp_path / "mine.pt"
    with pytest.raises(ValueError, match="is missing: run notebook 01"):
        mq.load_net(mine)
    for content in (b"", b"not a network", good[: len(good) // 2]):
        mine.write_bytes(content)
        with pytest.raises(ValueError, match="is not a checkpoint of Net"):
            mq.load_net(mine)
    state = mq.Net().state_dict()
    torch.save({**state, "fc2.bias": torch.zeros(11)}, mine)
    with pytest.raises(ValueError, match="is not a checkpoint of Net"):
        mq.load_net(mine)
    torch.save(state, mine)
    assert torch.equal(mq.load_net(mine).fc1.weight, state["fc1.weight"])


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv1.weight": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of Net"):
        mq.load_net(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()
