"""Write tests/files/keras_*.tflite: networks as TensorFlow's own converter makes them.

usage: python tools/keras_files.py
Needs tensorflow-cpu (2.21.0 made the files), in an environment of its own: nothing else
of this project uses it. One epoch of 10,000 training images; the tests ask how codes
are computed, not how well digits are read.
"""

import gzip
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.keras import Input, Sequential
from tensorflow.keras import layers as L

ROOT = Path(__file__).resolve().parent.parent
RAW = ROOT / "data" / "MNIST" / "raw"
MEAN, STD = 0.1307, 0.3081  # as in mnistq/data.py


def training_set(count=10_000):
    """Return (images float32 [count, 28, 28, 1], labels)."""
    pixels = gzip.decompress((RAW / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((RAW / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    x = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28, 1)[:count]
    y = np.frombuffer(labels, np.uint8)[:count]
    return ((x / 255 - MEAN) / STD).astype(np.float32), y


def network():
    """Return a network with each padding and activation that the reader takes."""
    return Sequential(
        [
            Input((28, 28, 1)),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.MaxPool2D(2),
            L.Conv2D(16, 3, strides=2, padding="same", activation="relu6"),
            L.DepthwiseConv2D(3, padding="same", activation="relu6"),
            L.Conv2D(16, 5, activation="relu"),
            L.Flatten(),
            L.Dense(32, activation="relu"),
            L.Dense(10),
        ]
    )


def converted(net, images, port, per_channel):
    """Return the content of a file; port: type of what enters and leaves."""
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in images[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = port
    converter._experimental_disable_per_channel = not per_channel
    return converter.convert()


if __name__ == "__main__":
    tf.random.set_seed(1)
    images, labels = training_set()
    net = network()
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile("adam", loss)
    net.fit(images, labels, batch_size=64)
    folder = ROOT / "tests" / "files"
    folder.mkdir(exist_ok=True)
    for name, port, per_channel in (
        ("int8", tf.int8, True),
        ("float", tf.float32, False),
    ):
        content = converted(net, images, port, per_channel)
        (folder / f"keras_{name}.tflite").write_bytes(content)
