"""read_tflite: files as other converters write them, compared in LiteRT."""

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import OpResolverType
from helpers import refusals
from tflite_files import Made, interpreted, outputs, random_file

import mnistq_helpers as mq
from mnistq.steps import QuantizedFlatten
from mnistq.tflite_file import tflite_bytes

KERNELS = {"float": OpResolverType.AUTO, "fixed": OpResolverType.BUILTIN_REF}
FILES = mq.ROOT / "tests" / "files"


# -- a real converter's files, see tools/keras_files.py -------------------------------


def test_a_file_of_tensorflows_converter_gives_litert_codes():
    """It has every padding and activation, and computes its own shapes."""
    qnet, images = mq.read_tflite(FILES / "keras_int8.tflite"), digits()
    assert qnet.requantize == "float" and len(qnet.layers) == 6
    codes = qnet.codes(images, [qnet.in_name])[qnet.in_name]
    for resolver, wrong in ((OpResolverType.AUTO, 0), (OpResolverType.BUILTIN_REF, 1)):
        found = outputs(interpreted(FILES / "keras_int8.tflite", codes, resolver))
        ((name, theirs),) = found.items()
        different = int((qnet.codes(images, [name])[name] != theirs).sum())
        assert (different > 0) == wrong  # the reference kernels round otherwise


def test_a_file_with_floats_at_its_ends_gives_litert_logits():
    path, images = FILES / "keras_float.tflite", digits()
    interpreter = interpreted(path, images, OpResolverType.AUTO)
    (port,) = interpreter.get_output_details()
    theirs = torch.from_numpy(interpreter.get_tensor(port["index"]))
    assert torch.equal(mq.read_tflite(path)(images), theirs)


def digits():
    return mq.mnist(train=False)[0][:1000]


@pytest.mark.parametrize("file", ["keras_int8", "keras_float"])
def test_a_converters_file_cut_or_full_of_noise_is_refused_or_read(file, tmp_path):
    source, path = FILES / f"{file}.tflite", tmp_path / "net"
    assert refusals(mq.read_tflite, source, path, 100, 9, cut=200) > 40


# -- random files ---------------------------------------------------------------------


def compare(path, requantize, dense):
    """Compare every tensor that both have, of 50 images; return how many there were."""
    qnet = mq.read_tflite(path, requantize)
    assert qnet.requantize == requantize
    images = torch.randn(50, *qnet.in_shape) * 2
    entering = qnet.codes(images, [qnet.in_name])[qnet.in_name]
    theirs = outputs(interpreted(path, entering, KERNELS[requantize]))
    made = [s.output for s in qnet.steps if not isinstance(s, QuantizedFlatten)]
    names = set(theirs) & set(made)  # a flattened one is in another order here
    ours = qnet.codes(images, names)
    for name in names:
        wrong = ours[name].flatten(1) != theirs[name].flatten(1)
        assert int(wrong.sum()) == 0, name
    return len(names)


@pytest.mark.parametrize(
    ("requantize", "dense"), [("float", False), ("float", True), ("fixed", False)]
)
def test_random_files_give_litert_codes(requantize, dense, tmp_path):
    """SAME padding, alike on both sides or not, RELU6, one scale or many, dense."""
    compared = [
        compare(random_file(tmp_path / "net", seed, dense), requantize, dense)
        for seed in range(30)
    ]
    assert min(compared) > 0 and sum(compared) > 60


def test_the_rounding_is_that_of_what_the_file_holds(tmp_path):
    assert mq.read_tflite(random_file(tmp_path / "a", 0, False)).requantize == "fixed"
    path = random_file(tmp_path / "b", 0, True)
    assert mq.read_tflite(path).requantize == "float"
    words = "FULLY_CONNECTED, .* no step here rounds as it does: FULLY_CONNECTED is"
    with pytest.raises(ValueError, match=words):
        mq.read_tflite(path, "fixed")
    with pytest.raises(ValueError, match="requantize is 'both'"):
        mq.read_tflite(path, "both")


# -- what is refused ------------------------------------------------------------------


def dense_file():
    """Return a file in the making: a convolution, flattened, and a dense layer."""
    made = Made(3, (6, 6, 1))
    made.convolution(depthwise=False)
    made.flatten()
    made.dense(4)
    return made


def option(number, **fields):
    def change(graph):
        for key, value in fields.items():
            setattr(graph.operators[number].builtinOptions, key, value)

    return change


def flattened_in_half(graph):
    count = graph.tensors[graph.operators[1].outputs[0]].shape[1]
    graph.tensors[graph.operators[1].outputs[0]].shape = [1, 2, count // 2]


def ends_flattened(graph):
    del graph.operators[2:]
    graph.outputs = graph.outputs[:-1]


def flattened_twice(graph):
    """The dense layer's place is taken by another flattening."""
    graph.operators[2].opcodeIndex = graph.operators[1].opcodeIndex


def weights(**fields):
    def change(graph):
        tensor = graph.tensors[graph.operators[2].inputs[1]]
        for key, value in fields.items():
            place = tensor if hasattr(tensor, key) else tensor.quantization
            setattr(place, key, value)

    return change


def circle(graph):
    graph.operators[0].inputs[0] = graph.operators[2].outputs[0]


def lost(graph):
    graph.operators[2].inputs[1] = 999


WRONG = [
    (option(2, fusedActivationFunction=4), "FULLY_CONNECTED, .*fused activation is 4"),
    (option(2, weightsFormat=1), "FULLY_CONNECTED, .*: its weights are shuffled"),
    (option(2, keepNumDims=True), "or it keeps dimensions"),
    (flattened_in_half, r"RESHAPE, which makes .*: only flattening is read"),
    (ends_flattened, "is flattened, channels last: only FULLY_CONNECTED is read"),
    (flattened_twice, "RESHAPE, .*is flattened, channels last"),
    (weights(shape=[4, 7]), "FULLY_CONNECTED, .*cannot reshape"),
    (weights(scale=[0.0]), "the scale 0.0 must be positive"),
    (weights(scale=[np.nan]), "the scale nan must be positive"),
    (weights(scale=[1.0, 1.0, 1.0]), "FULLY_CONNECTED, "),
    (weights(scale=[1.0] * 4, quantizedDimension=1), "scales along another axis"),
    (weights(type=schema.TensorType.FLOAT32), "is no constant of int8"),
    (circle, "no operator that was read makes"),
    (lost, "it names tensor 999, and holds no such one"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_dense_network_that_cannot_be_read_is_refused(change, words, tmp_path):
    made = dense_file()
    change(made.graph)
    (tmp_path / "net").write_bytes(tflite_bytes(made.model))
    with pytest.raises(ValueError, match=words):
        mq.read_tflite(tmp_path / "net")
