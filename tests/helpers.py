"""What several tests share: random networks, and the codes that other runtimes give."""

import numpy as np
import onnxruntime as ort
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import mnistq_helpers as mq

NAMES = ("conv1", "conv2", "fc1", "fc2", "output")  # of the tensors of Net
LAYERS = NAMES[:-1]
GOOD = dict.fromkeys(NAMES, (-1.0, 1.0))  # ranges that can be used, if not well
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


# -- the sources, in Python's integers ----------------------------------------------


def saturating_rounding_doubling_high_mul(a, b):
    """gemmlowp, fixedpoint.h; C++ divides towards 0."""
    if a == b == INT32_MIN:
        return INT32_MAX
    nudged = a * b + (2**30 if a * b >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def rounding_divide_by_pot(x, exponent):
    """gemmlowp, fixedpoint.h."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


def tflite_multiply(acc, m0, shift):
    """TFLite, common.h; its left shift saturates here instead of being undefined."""
    left = min(max(acc * 2 ** max(-shift, 0), INT32_MIN), INT32_MAX)
    high = saturating_rounding_doubling_high_mul(left, m0)
    return rounding_divide_by_pot(high, max(shift, 0))


# -- networks, and the runtimes that others wrote -------------------------------------


def random_network(seed, requantize):
    """Return (QuantizedNet, images): weights, ranges, zero points, bits at random."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    net = mq.Net()
    with torch.no_grad():
        for parameter in net.parameters():
            spread = 0.02 + 0.3 * rand(len(parameter), *[1] * (parameter.dim() - 1))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * spread)
    images = torch.randn((30, 1, 28, 28), generator=generator)
    ranges = {}
    for name, (low, high) in mq.calibrate(net, images, "minmax").items():
        # Below 0 also after a ReLU, so that the zero point is not 0.
        low, high = low * float(rand(1)), high * (0.3 + float(rand(1)))
        ranges[name] = (round(low - high * float(rand(1)), 2), round(high, 2))
    bits = 1 + (rand(9) * 8).int()
    if seed % 3 == 0:  # a third with 8 bits throughout, where nothing is clipped
        bits[:] = 8
    weight_bits = dict(zip(NAMES, bits[:4].tolist(), strict=False))
    act_bits = dict(zip(NAMES, bits[4:].tolist(), strict=True))
    per_channel = seed % 2 == 0
    return (
        mq.quantize_net(net, ranges, weight_bits, act_bits, per_channel, requantize),
        images,
    )


def full_range_network(requantize):
    """A network whose products are as large as they get, all of one sign."""
    net = mq.Net()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(0.5 if name.endswith("weight") else 0.1)
        net.conv1.weight[0], net.fc1.weight[0] = -0.5, -0.5
    ranges = {"conv1": (0, 1), "conv2": (0, 13), "fc1": (0, 3200), "fc2": (0, 9e5)}
    return mq.quantize_net(net, {**ranges, "output": (0, 2e8)}, requantize=requantize)


def run_onnx(path, codes):
    """Return {name: uint8 codes} of the file in ONNX Runtime."""
    session = ort.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"conv1": codes.numpy()})
    return dict(zip(names, map(torch.from_numpy, outputs), strict=True))


def run_litert(path, codes, resolver=OpResolverType.BUILTIN_REF, resize=True):
    """Return {name: uint8 codes, channels first} of the file in LiteRT."""
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=resolver
    )
    if resize:
        interpreter.resize_tensor_input(0, [len(codes), 28, 28, 1])
    interpreter.allocate_tensors()
    nhwc = (codes ^ 128).view(torch.int8).permute(0, 2, 3, 1)
    interpreter.set_tensor(0, np.ascontiguousarray(nhwc.numpy()))
    interpreter.invoke()
    found = {}
    for detail in interpreter.get_output_details():
        x = torch.from_numpy(interpreter.get_tensor(detail["index"]))
        x = x.view(torch.uint8) ^ 128
        found[detail["name"]] = x.permute(0, 3, 1, 2) if x.dim() == 4 else x
    return found


def assert_same_codes(found, expected):
    """All layers' codes are those expected, to the last one."""
    assert list(found) == list(NAMES[1:])
    for name, codes in found.items():
        if name == "fc1":  # the engines keep [N, 50, 4, 4]
            codes = codes.flatten(1)
        assert codes.dtype == torch.uint8 and codes.shape == expected[name].shape
        different = int((codes != expected[name]).sum())
        assert different == 0, f"{different} of {codes.numel()} codes of {name}"


# -- any network, not only Net ----------------------------------------------------


def channels_first(codes):
    """Return uint8 codes, [N, channels, ...], of LiteRT's int8 ones."""
    codes = torch.from_numpy(codes).view(torch.uint8) ^ 128
    return codes.movedim(-1, 1)


def in_onnx_runtime(qnet, codes, path):
    """Return {name: codes} of qnet's .onnx file, written to path."""
    mq.export_onnx(qnet, path)
    session = ort.InferenceSession(path)
    names = [port.name for port in session.get_outputs()]
    feed = {session.get_inputs()[0].name: codes.numpy()}
    found = session.run(names, feed)
    return dict(zip(names, map(torch.from_numpy, found), strict=True))


def in_litert(qnet, codes, path):
    """Return {name: codes, channels first} of qnet's .tflite file, written to path."""
    mq.export_tflite(qnet, path)
    interpreter = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    nhwc = np.ascontiguousarray((codes ^ 128).view(torch.int8).movedim(1, -1).numpy())
    interpreter.resize_tensor_input(0, nhwc.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, nhwc)
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {
        d["name"]: channels_first(interpreter.get_tensor(d["index"])) for d in details
    }


# -- files that are none --------------------------------------------------------------


def refusals(read, source, path, count=200, changes=4, cut=0):
    """Return how many of count damaged copies of a file read refuses, by ValueError.

    The others must come out as networks. Each has changed bytes at random; with cut,
    every second one is shorter than the source by so many bytes at least. path: where
    to write them.
    """
    content = np.frombuffer(source.read_bytes(), np.uint8)
    generator, refused = np.random.default_rng(0), 0
    for number in range(count):
        noise = content.copy()
        places = generator.integers(0, len(content), changes)
        noise[places] = generator.integers(0, 256, changes)
        if cut and number % 2:
            noise = noise[: generator.integers(0, len(content) - cut)]
        path.write_bytes(noise.tobytes())
        try:
            assert isinstance(read(path), mq.QuantizedNet)
        except ValueError:
            refused += 1
    return refused
