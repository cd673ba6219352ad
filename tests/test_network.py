"""Sections 1, 3 and 4: data, checkpoint, calibration, and the network on codes."""

import functools
import itertools
import math
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F

import mnistq_helpers as mq

NAMES = ("conv1", "conv2", "fc1", "fc2", "output")

# -- data and the float network ---------------------------------------------------


def test_mnist_is_what_torchvision_documents(test_set, calibration_images):
    images, labels = test_set
    assert images.shape == (10_000, 1, 28, 28) and images.dtype == torch.float32
    assert labels.dtype == torch.int64
    # The first ten test digits, as printed in countless tutorials.
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = images * mq.STD + mq.MEAN
    assert float(pixels.min()) == pytest.approx(0, abs=1e-6)
    assert float(pixels.max()) == pytest.approx(1, abs=1e-6)
    assert abs(float(calibration_images.mean())) < 0.05


def copy_data(folder):
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, _ in mq.datasets.MNIST.resources:
        (raw / name).write_bytes((mq.ROOT / "data/MNIST/raw" / name).read_bytes())
    return raw


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    raw = copy_data(tmp_path)
    monkeypatch.setattr(mq, "ROOT", tmp_path)
    assert len(mq.mnist(train=False)[0]) == 10_000
    assert sorted(p.name for p in raw.iterdir()) == sorted(
        name for name, _ in mq.datasets.MNIST.resources
    )  # nothing was unpacked into the checkout
    damaged = raw / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"t10k-labels.*is damaged.*delete it"):
        mq.mnist(train=False)


def test_a_missing_file_is_downloaded_or_named(tmp_path, monkeypatch):
    raw = copy_data(tmp_path)
    monkeypatch.setattr(mq, "ROOT", tmp_path)
    monkeypatch.setattr(mq.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"(?s)missing.*could not be downloaded"):
        mq.mnist(train=False)
    handler = functools.partial(
        SimpleHTTPRequestHandler, directory=mq.COMMITTED.parent / "MNIST" / "raw"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(mq.datasets.MNIST, "mirrors", [mirror])
        assert len(mq.mnist(train=False)[1]) == 10_000
        server.shutdown()


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


# -- calibration ------------------------------------------------------------------


def test_activations_are_what_torchs_hooks_see(net, test_set):
    images = test_set[0][:20]
    seen = {}
    for name in mq.LAYERS:

        def remember(module, inputs, output, name=name):
            seen[name], seen["output"] = inputs[0], output

        getattr(net, name).register_forward_hook(remember)
    with torch.inference_mode():
        net(images)
        ours = mq.activations(net, images)
    for name in mq.LAYERS:
        getattr(net, name)._forward_hooks.clear()
    assert list(ours) == list(NAMES) and set(seen) == set(NAMES)
    for name in NAMES:
        assert torch.allclose(ours[name], seen[name], atol=1e-5)


def test_ranges_by_hand():
    x = torch.tensor([[0.0, 1.0, 4.0], [-2.0, 0.0, 2.0]])
    assert mq.range_mean(x) == (-1.0, 3.0)
    assert mq.range_minmax(x) == (-2.0, 4.0)
    low, high = mq.range_ema(x, decay=0.75, batch=1)
    assert (low, high) == (0.75 * 0 + 0.25 * -2, 0.75 * 4 + 0.25 * 2)
    ones = torch.ones(30, 2)
    assert mq.range_ema(ones, batch=7) == pytest.approx((1, 1))  # bug j ran 3, -1, ...
    thousand = torch.arange(1001.0)
    assert mq.range_percentile(thousand, percent=99) == pytest.approx((10, 990))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_beats_every_other_range_of_its_grid(bits):
    torch.manual_seed(bits)
    x = torch.randn(50_000).exp() - 0.5

    def error(low, high):
        scale, zero_point = mq.calc_scale_zero_point(low, high, bits)
        x_hat = mq.dequantize_tensor(mq.quantize_tensor(x, bits, scale, zero_point))
        return float((x - x_hat).square().mean())

    low, high = mq.range_mse(x, bits)
    full = mq.range_minmax(x)
    best = min(error(full[0], full[1] * i / 100) for i in range(1, 101))
    assert error(low, high) <= best * 1.02  # 2048 bins see x a little coarsely
    assert error(low, high) < 0.7 * error(*full) or bits == 8
    assert full[0] <= low <= 0 <= high <= full[1]


def test_entropy_is_the_least_divergence_of_a_plain_loop():
    torch.manual_seed(0)
    x = torch.randn(3000).abs() ** 2
    bits, bins = 2, 256
    counts = np.histogram(x.numpy(), bins, (0, float(x.max())))[0]
    best = None
    for end in range(128, bins + 1, 8):
        p = [float(c) for c in counts[:end]]
        groups = [[i for i in range(end) if i * 4 // end == g] for g in range(4)]
        q = [0.0] * end
        for group in groups:
            filled = [i for i in group if p[i] > 0]
            for i in filled:
                q[i] = sum(p[j] for j in group) / len(filled)
        p[-1] += float(sum(counts[end:]))
        if p[-1] > 0 and q[-1] == 0:
            continue
        p_sum, q_sum = sum(p), sum(q)
        divergence = sum(
            a / p_sum * np.log((a / p_sum) / (b / q_sum))
            for a, b in zip(p, q, strict=True)
            if a > 0
        )
        if best is None or divergence < best[0]:
            best = (divergence, float(x.max()) * end / bins)
    low, high = mq.range_entropy(x, bits, bins)
    assert high == pytest.approx(best[1]) and high < float(x.max())
    assert low == float(x.min())


@pytest.mark.parametrize("method", mq.RANGE_METHODS)
def test_calibrate_gives_usable_ranges(net, calibration_images, method):
    ranges = mq.calibrate(net, calibration_images[:100], method, bits=4)
    assert tuple(ranges) == NAMES
    with torch.inference_mode():
        entering = mq.activations(net, calibration_images[:100])
    for name, (low, high) in ranges.items():
        seen = mq.range_minmax(entering[name])
        assert seen[0] - 1e-4 <= low < high <= seen[1] + 1e-4
    zeros = torch.zeros(5, 3)
    assert mq.RANGE_METHODS[method](zeros, 4) == (0, 0)
    for far_from_0 in (torch.rand(5, 30) + 5, torch.rand(5, 30) - 6):
        low, high = mq.RANGE_METHODS[method](far_from_0, 4)
        assert low < high and max(abs(low), abs(high)) > 5


def test_calibrate_leaves_the_logits_at_8_bits(net, calibration_images):
    images = calibration_images[:100]
    at_2 = mq.calibrate(net, images, "mse", bits=2)
    at_8 = mq.calibrate(net, images, "mse", bits=8)
    assert at_2["output"] == at_8["output"] and at_2["conv2"] != at_8["conv2"]
    named = mq.calibrate(net, images, "mse", dict.fromkeys(NAMES, 2))
    assert named["output"] != at_8["output"] and named["fc2"] == at_2["fc2"]


# -- the network on codes ---------------------------------------------------------


def by_the_book(net, ranges, images, weight_bits, act_bits, per_channel):
    """The codes entering each layer and of the logits, in numpy, from the text alone.

    int64 accumulators by a plain sum over the kernel's positions; float32 multiplier.
    """

    def grid(name):
        bits = 8 if name == "output" else act_bits
        low, high = (float(v) for v in ranges[name])
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / (2**bits - 1)
        zero = min(max(round(-low / scale), 0), 2**bits - 1)
        return np.float32(scale), zero, 2**bits - 1

    scale, zero, qmax = grid("conv1")
    x = np.clip(np.rint(images.numpy() / scale) + zero, 0, qmax).astype(np.int64)
    codes = {"conv1": x}
    for name, following in itertools.pairwise(NAMES):
        w = getattr(net, name).weight.detach().numpy()
        b = getattr(net, name).bias.detach().numpy().astype(np.float64)
        size = np.abs(w).reshape(len(w), -1)
        if weight_bits == 1:
            s_w = size.mean(1, dtype=np.float32) if per_channel else size.mean()
            s_w = np.float32(s_w)
            q_w = np.where(w < 0, -1, 1).astype(np.int64)
        else:
            largest = size.max(1) if per_channel else size.max()
            s_w = (largest.astype(np.float64) / (2 ** (weight_bits - 1) - 1)).astype(
                np.float32
            )
            shape = (-1, *[1] * (w.ndim - 1)) if per_channel else ()
            q_w = np.rint(w / s_w.reshape(shape)).astype(np.int64)
        s_acc = (scale * s_w).astype(np.float32)
        bias = np.rint(b / s_acc.astype(np.float64)).astype(np.int64)
        x = x - zero
        if w.ndim == 4:
            side = x.shape[2] - 4
            acc = np.zeros((len(x), len(w), side, side), np.int64)
            for i in range(5):
                for j in range(5):
                    window = x[:, :, i : i + side, j : j + side]
                    acc += np.einsum("nchw,oc->nohw", window, q_w[:, :, i, j])
            acc += bias.reshape(1, -1, 1, 1)
        else:
            acc = x.reshape(len(x), -1) @ q_w.T + bias
        next_scale, zero, qmax = grid(following)
        multiplier = np.broadcast_to((s_acc / next_scale).astype(np.float32), len(w))
        multiplier = multiplier.reshape(-1, *[1] * (acc.ndim - 2))
        y = np.rint(acc.astype(np.float32) * multiplier) + zero
        y = np.clip(y, 0 if following == "output" else zero, qmax).astype(np.int64)
        if w.ndim == 4:  # pooled after requantization, where the helper pools before
            n, c, h, _ = y.shape
            y = y.reshape(n, c, h // 2, 2, h // 2, 2).max((3, 5))
        codes[following] = x = y.reshape(len(y), -1) if following == "fc1" else y
        scale = next_scale
    return codes, scale, zero


def assert_by_the_book(net, ranges, images, *bits):
    qnet = mq.quantize_net(net, ranges, *bits, requantize="float")
    expected, scale, zero = by_the_book(net, ranges, images, *bits)
    ours = qnet.codes(images)
    assert list(ours) == list(NAMES)
    for name in NAMES:
        assert ours[name].dtype == torch.uint8
        shaped = ours[name].reshape(expected[name].shape).long()
        assert torch.equal(shaped, torch.from_numpy(expected[name])), name
    logits = scale * (expected["output"] - zero).astype(np.float32)
    assert torch.equal(qnet(images), torch.from_numpy(logits))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize("act_bits", [1, 2, 4, 8])
def test_codes_equal_plain_integers(
    net, ranges, test_set, weight_bits, act_bits, per_channel
):
    assert_by_the_book(net, ranges, test_set[0][:8], weight_bits, act_bits, per_channel)


def test_accumulators_beyond_24_bits_are_exact(random_net, test_set):
    """Weights that are all large: float32 could not hold the sums of 800 products."""
    with torch.no_grad():
        for parameter in random_net.parameters():
            parameter.copy_(parameter.sign() * 0.1 + 1)
    ranges = dict.fromkeys(NAMES, (0.0, 1.0)) | {"conv1": (-1.0, 1.0)}
    assert_by_the_book(random_net, ranges, test_set[0][:4].abs(), 8, 8, True)


def test_bits_by_name(net, ranges, test_set):
    images = test_set[0][:50]
    one = mq.quantize_net(net, ranges, 4, 5)
    weights = dict.fromkeys(mq.LAYERS, 4)
    acts = dict.fromkeys(mq.LAYERS, 5)
    same = mq.quantize_net(net, ranges, weights, acts)
    assert torch.equal(one(images), same(images))
    named = mq.quantize_net(net, ranges, weights, acts | {"output": 3})
    assert int(named.codes(images)["output"].max()) <= 7
    assert int(one.codes(images)["output"].max()) > 7


def test_the_float_network_is_only_read(net, ranges, test_set):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    qnet = mq.quantize_net(net, ranges)
    qnet(test_set[0][:10])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_from_outside_are_used_as_they_are(bits, random_net, test_set):
    images, outside = test_set[0][:5], {}
    for name in ("conv2", "fc2"):
        w = mq.quantize_weight(getattr(random_net, name).weight.detach(), bits)
        outside[name] = w._replace(tensor=-w.tensor)
    ranges = dict.fromkeys(NAMES, (-4.0, 4.0))
    qnet = mq.quantize_net(random_net, ranges, bits, weights=outside)
    with torch.no_grad():
        for name in outside:
            getattr(random_net, name).weight.neg_()
    mirrored = mq.quantize_net(random_net, ranges, bits)
    assert torch.equal(qnet.layers["conv2"].weight, mirrored.layers["conv2"].weight)
    assert torch.equal(qnet(images), mirrored(images))


def weighted(net, bits=4, **change):
    """quantize_net with fc2's own weights, some of their fields changed."""
    w = mq.quantize_weight(net.fc2.weight.detach(), bits)._replace(**change)
    return mq.quantize_net(net, GOOD, bits, weights={"fc2": w})


def test_8_bits_lose_at_most_a_tenth_of_a_point(net, ranges, test_set):
    accuracy = mq.evaluate(mq.quantize_net(net, ranges), *test_set)
    assert accuracy >= mq.evaluate(net, *test_set) - 0.001


def test_nbytes(net, ranges):
    """Weights at their bits, 4 + 4 bytes for each of 580 outputs, 5 for each tensor."""
    weights = (20 * 25, 50 * 500, 500 * 800, 10 * 500)
    rest = 580 * (4 + 4) + 5 * 5
    for bits in range(1, 9):
        qnet = mq.quantize_net(net, ranges, bits, requantize="float")
        packed = sum(math.ceil(n * bits / 8) for n in weights)
        assert qnet.nbytes == packed + rest
    float_bytes = sum(p.numel() * 4 for p in net.parameters())
    assert float_bytes / mq.quantize_net(net, ranges).nbytes > 3.9


def test_one_layer_equals_onnx_runtime_bit_for_bit():
    """QLinearConv and QLinearMatMul on random codes, weights, zero points and scales.

    The weights go in as uint8 with zero point 128: with int8 ones ONNX Runtime's
    kernels saturate at 16 bits on processors without VNNI.
    """
    info, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    generator = torch.Generator().manual_seed(5)
    types = onnx.TensorProto
    for trial in range(12):
        torch.manual_seed(trial)
        net = mq.Net()
        ranges = {
            n: (-float(torch.rand((), generator=generator)), 1.5 + trial / 3)
            for n in NAMES
        }
        qnet = mq.quantize_net(
            net, ranges, per_channel=trial % 2 == 0, requantize="float"
        )
        images = torch.randn(4, 1, 28, 28, generator=generator)
        codes = qnet.codes(images)
        grids = {n: mq.calc_scale_zero_point(*ranges[n]) for n in NAMES}
        for name, following in (("conv1", "conv2"), ("fc1", "fc2"), ("fc2", "output")):
            layer = getattr(net, name)
            w = mq.quantize_weight(layer.weight.detach(), 8, trial % 2 == 0)
            w_scale = np.asarray(w.scale, np.float32)
            in_scale, out_scale = (np.float32(grids[n][0]) for n in (name, following))
            bias = np.rint(layer.bias.detach().double().numpy() / (in_scale * w_scale))
            weight = (w.tensor.short() + 128).to(torch.uint8).numpy()
            feed = {
                "x": codes[name].flatten(1 if "fc" in name else -1).numpy()
                if "fc" in name
                else codes[name].numpy(),
                "xs": in_scale,
                "xz": np.uint8(grids[name][1]),
                "ys": out_scale,
                "yz": np.uint8(grids[following][1]),
                "ws": w_scale,
                "wz": np.full(w_scale.shape, 128, np.uint8),
            }
            if "fc" in name:  # as a 1x1 convolution, which takes a bias
                feed["x"] = feed["x"][:, :, None, None]
                weight = weight[:, :, None, None]
            feed |= {"w": weight, "b": bias.astype(np.int32)}
            feed = {k: np.asarray(v) for k, v in feed.items()}
            kinds = {"uint8": types.UINT8, "float32": types.FLOAT, "int32": types.INT32}
            inputs = [info(k, kinds[str(v.dtype)], v.shape) for k, v in feed.items()]
            order = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
            graph = onnx.helper.make_graph(
                [node("QLinearConv", order, ["y"])],
                "layer",
                inputs,
                [info("y", types.UINT8, None)],
            )
            opset = [onnx.helper.make_opsetid("", 13)]
            model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
            session = ort.InferenceSession(
                model.SerializeToString(), providers=["CPUExecutionProvider"]
            )
            y = torch.from_numpy(session.run(None, feed)[0])
            if name != "fc2":  # ReLU, then pooling
                y = y.clamp(min=grids[following][1])
            if name == "conv1":
                y = F.max_pool2d(y.float(), 2).to(torch.uint8)
            assert torch.equal(y.flatten(1), codes[following].flatten(1)), (trial, name)


GOOD = dict.fromkeys(NAMES, (-1.0, 1.0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: mq.calibrate(n, torch.zeros(2, 28, 28)), "use .N, 1, 28, 28."),
        (lambda n: mq.calibrate(n, torch.zeros(0, 1, 28, 28)), "empty"),
        (lambda n: mq.calibrate(n, torch.full((1, 1, 28, 28), float("nan"))), "NaN"),
        (lambda n: mq.calibrate(n, torch.zeros(1, 1, 28, 28), "best"), "one of mean"),
        (lambda n: mq.calibrate(n, torch.zeros(1, 1, 28, 28), "mse", 9), "1 to 8"),
        (lambda n: mq.quantize_net(n, {"conv1": (0, 1)}), "give conv1, conv2"),
        (lambda n: mq.quantize_net(n, GOOD | {"fc1": (2, 1)}), "swap"),
        (lambda n: mq.quantize_net(n, GOOD | {"fc1": (0, float("inf"))}), "not finite"),
        (lambda n: mq.quantize_net(n, GOOD, weight_bits=0), "from 1 to 16"),
        (lambda n: mq.quantize_net(n, GOOD, weight_bits=9), "1 to 8"),
        (lambda n: mq.quantize_net(n, GOOD, act_bits=2.5), "from 1 to 16"),
        (lambda n: mq.quantize_net(n, GOOD, act_bits={"conv1": 8}), "name conv1"),
        (lambda n: mq.quantize_net(n, GOOD, weight_bits={"conv3": 8}), "name conv1"),
        (lambda n: mq.quantize_net(n, GOOD, requantize="int"), "requantize is 'int'"),
        (lambda n: weighted(n, tensor=torch.full((10, 500), 8).char()), "-8 to 7"),
        (lambda n: weighted(n, tensor=torch.full((10, 500), -9).char()), "-8 to 7"),
        (lambda n: weighted(n, 1, tensor=torch.zeros(10, 500).char()), "1 bits hold"),
        (lambda n: weighted(n, tensor=torch.ones(10, 500)), "give int8"),
        (lambda n: weighted(n, tensor=torch.ones(500, 10).char()), "10, 500"),
        (lambda n: weighted(n, zero_point=torch.arange(10)), "zero point other"),
        (lambda n: mq.quantize_net(n, GOOD, weights={"fc3": None}), "name conv1"),
        (lambda n: weighted(n, scale=torch.zeros(10)), "positive and finite"),
        (lambda n: weighted(n, scale=torch.ones(11)), "does not fit"),
        (lambda n: mq.quantize_net(n, GOOD)(torch.zeros(1, 784)), "N, 1, 28, 28"),
        (lambda n: mq.quantize_net(n, GOOD)(torch.zeros(0, 1, 28, 28)), "empty"),
        (
            lambda n: mq.quantize_net(n, GOOD)(torch.full((1, 1, 28, 28), np.inf)),
            "NaN or infinity",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(net, call, words):
    with pytest.raises(ValueError, match=words):
        call(net)


def test_a_network_with_nan_is_refused(random_net):
    with torch.no_grad():
        random_net.fc1.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        mq.quantize_net(random_net, GOOD)
