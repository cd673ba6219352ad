"""The .tflite file: in LiteRT it gives every code that the helper gives."""

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from helpers import (
    assert_same_codes,
    full_range_network,
    random_network,
    run_litert,
)

import mnistq_helpers as mq


@pytest.mark.parametrize("seed", range(12))
def test_litert_reference_kernels_give_every_layers_codes(seed, tmp_path):
    qnet, images = random_network(seed, "fixed")
    codes = qnet.codes(images)
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    assert_same_codes(run_litert(tmp_path / "net.tflite", codes["conv1"]), codes)


@pytest.mark.parametrize("seed", range(4))
def test_litert_default_kernels_round_as_float_does(seed, tmp_path):
    fixed, images = random_network(seed, "fixed")
    rounded, _ = random_network(seed, "float")
    mq.export_tflite(fixed, tmp_path / "net.tflite")
    codes = rounded.codes(images)
    found = run_litert(tmp_path / "net.tflite", codes["conv1"], OpResolverType.AUTO)
    assert_same_codes(found, codes)


def test_full_range_products_do_not_saturate(tmp_path):
    images = torch.ones(4, 1, 28, 28)
    qnet = full_range_network("fixed")
    assert set(qnet.layers["conv2"].weight.flatten().tolist()) == {127}
    assert int(qnet.codes(images)["conv1"].min()) == 255
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    found = run_litert(tmp_path / "net.tflite", qnet.codes(images)["conv1"])
    assert_same_codes(found, qnet.codes(images))


def test_as_it_lies_in_the_file_it_reads_one_image(tmp_path):
    """No runtime has to resize: shapes of 1 image, and any number if asked for."""
    qnet, images = random_network(2, "fixed")
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    for image in images[:3].split(1):
        codes = qnet.codes(image)
        found = run_litert(tmp_path / "net.tflite", codes["conv1"], resize=False)
        assert_same_codes(found, codes)
    interpreter = Interpreter(model_path=str(tmp_path / "net.tflite"))
    ports = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    shapes = {port["name"]: port["shape_signature"].tolist() for port in ports}
    assert shapes == {
        "conv1": [-1, 28, 28, 1],
        "conv2": [-1, 12, 12, 20],
        "fc1": [-1, 4, 4, 50],
        "fc2": [-1, 500],
        "output": [-1, 10],
    }
    assert {port["dtype"] for port in ports} == {np.int8}
    for port in ports:
        assert port["shape"].tolist() == [1, *shapes[port["name"]][1:]]
    grids = {port["name"]: port["quantization"] for port in ports}
    for name, layer in qnet.layers.items():
        stored = grids[name]
        assert stored == (pytest.approx(layer.in_scale), layer.in_zero_point - 128)
    assert grids["output"] == (
        pytest.approx(layer.out_scale),
        layer.out_zero_point - 128,
    )


def test_arrays_in_a_tflite_file_are_aligned(tmp_path):
    qnet, _ = random_network(0, "fixed")
    mq.export_tflite(qnet, tmp_path / "net.tflite")
    content = (tmp_path / "net.tflite").read_bytes()
    assert content[4:8] == b"TFL3"
    model = schema.Model.GetRootAs(content)
    sizes = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if buffer.DataLength():
            start = buffer.DataAsNumpy().ctypes.data
            start -= np.frombuffer(content, np.uint8).ctypes.data
            assert start % 16 == 0
            sizes.append(buffer.DataLength())
    assert sum(sizes) == 430_500 + 4 * 580  # every weight and bias, nothing else


def test_a_rounding_that_litert_does_not_have_is_refused(tmp_path):
    qnet, _ = random_network(0, "float")
    with pytest.raises(ValueError, match="LiteRT cannot round as requantize="):
        mq.export_tflite(qnet, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
