"""The rooms' claims about ONNX Runtime's roundings, compared with ONNX Runtime."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from mnistq.branches import quantized_add, quantized_average, quantized_concat
from mnistq.onnx_rounding import check_add, check_concat, check_mean, check_windows

TYPES = np.uint8, np.int8
HAS_FMA = torch.backends.cpu.get_cpu_capability().startswith("AVX")
CODES = torch.arange(256)


def run(kind, scheme, constants, inputs, **attributes):
    """Return what an operator makes; scheme: names of its inputs, x0 and x1 theirs."""
    types = {np.dtype(np.uint8): "UINT8", np.dtype(np.int8): "INT8"}
    number = getattr(onnx.TensorProto, types[inputs[0].dtype])
    node = onnx.helper.make_node(
        kind, scheme.split(), ["y"], domain="com.microsoft", **attributes
    )
    port = onnx.helper.make_tensor_value_info
    ins = [port(f"x{n}", number, x.shape) for n, x in enumerate(inputs)]
    values = [onnx.numpy_helper.from_array(v, n) for n, v in constants.items()]
    graph = onnx.helper.make_graph([node], "g", ins, [port("y", number, None)], values)
    opsets = [("", 13), ("com.microsoft", 1)]
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(*pair) for pair in opsets],
        ir_version=8,
    )
    session = ort.InferenceSession(model.SerializeToString())
    feed = {f"x{n}": x for n, x in enumerate(inputs)}
    return unsigned(session.run(None, feed)[0])


def unsigned(codes):
    return codes.astype(int) + (128 if codes.dtype == np.int8 else 0)


def typed(codes, dtype):
    """Return codes from 0 to 255 as uint8, or as int8, code - 128."""
    return (np.asarray(codes) - (128 if dtype == np.int8 else 0)).astype(dtype)


def grids(generator, finer=(0.7, 2.0)):
    """Return two grids at random, and a third about as coarse."""
    scales = np.exp(generator.uniform(-4, 0, 2)).astype(np.float32)
    out = np.float32(scales.max() * generator.uniform(*finer))
    return [*zip([*scales, out], generator.integers(0, 256, 3).tolist(), strict=True)]


def fields(*grids):
    *entering, (scale, zero) = [(float(scale), zero) for scale, zero in grids]
    names = tuple(f"x{n}" for n in range(len(entering)))
    return {
        "inputs": names,
        "output": "y",
        "in_grids": tuple(entering),
        "out_scale": scale,
        "out_zero_point": zero,
        "out_bits": 8,
        "low": 0,
        "high": 255,
    }


def constants(dtype, *grids):
    found = {}
    for n, (scale, zero) in enumerate(grids):
        found |= {f"s{n}": np.float32(scale), f"z{n}": typed(zero, dtype)}
    return {name: np.array(value) for name, value in found.items()}


def verdict(check, *arguments):
    """Return how many the check says differ."""
    try:
        check(*arguments)
    except ValueError as error:
        return int(str(error).split()[1])
    return 0


def stored(codes):
    return (codes - 128).to(torch.int8)


def numbers(codes):
    """Return the numpy codes, from 0 to 255, that a step makes."""
    return codes.numpy().astype(int) + 128


@pytest.mark.skipif(not HAS_FMA, reason="its additions have two roundings here")
def test_the_check_of_additions_counts_what_differs_in_onnx_runtime():
    generator, counts = np.random.default_rng(0), []
    first, second = CODES.repeat_interleave(256), CODES.repeat(256)
    for number in range(80):
        dtype, three = TYPES[number % 2], grids(generator)
        step = quantized_add("float", **fields(*three))
        inputs = [typed(q, dtype) for q in (first, second)]
        scheme = "x0 s0 z0 x1 s1 z1 s2 z2"
        theirs = run("QLinearAdd", scheme, constants(dtype, *three), inputs)
        ours = numbers(step(stored(first), stored(second)))
        counts.append(int((ours != theirs).sum()))
        assert verdict(check_add, step, dtype == np.int8) == counts[-1]
    assert 0 < sum(n > 0 for n in counts) < 40


def test_the_check_of_concatenations_counts_what_differs_in_onnx_runtime():
    generator, counts = np.random.default_rng(0), []
    for number in range(80):
        dtype, three = TYPES[number % 2], grids(generator)
        if number % 4 > 1:  # three times such a number is in the middle of two codes
            (scale, zero), second, _ = three
            three = [(np.float32(scale * 5 / 6), zero), second, (scale, zero)]
        step = quantized_concat("float", **fields(*three))
        q, scheme = typed(CODES, dtype), "s2 z2 x0 s0 z0 x1 s1 z1"
        theirs = run("QLinearConcat", scheme, constants(dtype, *three), [q, q], axis=0)
        ours = numbers(step(stored(CODES), stored(CODES)))
        counts.append(int((ours != theirs).sum()))
        assert verdict(check_concat, step) == counts[-1]
    assert 0 < sum(n > 0 for n in counts) < 60


def in_the_middle(generator, count, zero):
    """Return two grids on which sum / 64 is the mean, in this order of operations."""
    count = np.float32(count)
    while True:
        scale = np.float32(generator.uniform(0.1, 1))
        out = scale * np.float32(64) / count
        if scale / (out * count) == 1 / 64 != scale / out / count:
            return [(scale, zero), (out, 100)]


def with_sum(total, count, zero):
    """Return count codes whose q - zero add up to total."""
    total += count * zero
    codes = np.full(count, total // count)
    codes[: total % count] += 1
    return codes


def test_the_check_of_means_counts_what_differs_in_onnx_runtime():
    generator, counts = np.random.default_rng(0), []
    for number in range(60):
        dtype, size = TYPES[number % 2], ((7, 7), (3, 5), (5, 5))[number % 3]
        count, pair = math.prod(size), grids(generator, (0.4, 1.0))[1:]
        zero = pair[0][1]
        if number % 4 > 1:  # sums in the middle of two codes
            pair = in_the_middle(generator, count, zero)
        step = quantized_average("float", (size, size), **fields(*pair))
        totals = range(-count * zero, count * (255 - zero) + 1)
        x = np.array([with_sum(t, count, zero) for t in totals])
        x = typed(x, dtype).reshape(1, len(x), *size)
        theirs = run(
            "QLinearGlobalAveragePool", "x0 s0 z0 s1 z1", constants(dtype, *pair), [x]
        )
        ours = step(stored(torch.from_numpy(unsigned(x)[0])).unsqueeze(-1))
        counts.append(int((numbers(ours).ravel() != theirs.ravel()).sum()))
        assert verdict(check_mean, step) == counts[-1]
    assert 0 < sum(n > 0 for n in counts) < 50


def test_windows_that_pass_their_check_have_onnx_runtimes_means():
    generator, passed = np.random.default_rng(0), 0
    for number in range(60):
        dtype, size = TYPES[number % 2], ((2, 2), (3, 3), (2, 1))[number % 3]
        pair = grids(generator, (0.4, 1.0))[1:]
        step = quantized_average("float", (size, size), **fields(*pair))
        if verdict(check_windows, step):
            continue
        x = typed(generator.integers(0, 256, (30, 8, 6, 6)), dtype)
        attributes = {"kernel_shape": size, "strides": size}
        theirs = run(
            "QLinearAveragePool",
            "x0 s0 z0 s1 z1",
            constants(dtype, *pair),
            [x],
            **attributes,
        )
        ours = step(stored(torch.from_numpy(unsigned(x))).movedim(0, -1))
        passed += 1
        assert np.array_equal(numbers(ours.movedim(-1, 0)), theirs)
    assert 30 < passed < 60


def test_windows_in_the_middle_of_two_codes_are_refused():
    """On one grid many means of four end in .5, which ONNX Runtime rounds otherwise."""
    step = quantized_average("float", ((2, 2), (2, 2)), **fields((0.5, 7), (0.5, 7)))
    assert verdict(check_windows, step) > 100
    with pytest.raises(ValueError, match="it averages 10000 numbers: 4096 at most"):
        window = ((100, 100), (1, 1))
        check_mean(quantized_average("float", window, **fields((0.5, 7), (0.5, 7))))
