"""Train the networks of few bits in data/low_bits, and the float network beside them.

usage: python tools/train_low_bits.py {seeds,long} [--threads 2] [--into data]
seeds: what notebook 08 trains, 2 epochs each, with 3 seeds; about 8 minutes on 2 cores.
long: first the committed float network learns on, on images shifted by up to 2 pixels;
then it teaches the networks of few bits, which start from its weights and see the same
shifts; about 15 minutes. Each file is written when its network is done.
"""

import argparse
import io
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import mnistq_helpers as mq

SEEDS, SHORT = (1, 2, 3), ((4, 4), (2, 2), (1, 2), (1, 1))
FLOAT_EPOCHS, LONG = 8, {(2, 2): 10, (1, 1): 15}
SHIFT = 2  # pixels


def train_short(folder, images, labels, test):
    """Save a network for each pair of weight and activation bits, and each seed."""
    net = mq.load_net()
    for bits in SHORT:
        for seed in SEEDS:
            qat = start(net, images, bits, seed)
            mq.fine_tune(qat, images, labels)
            finish(qat, folder / mq.LOW_BITS.name, f"seed{seed}", test)


def train_long(folder, images, labels, test):
    """Save the float network that saw shifted images, and its pupils."""
    teacher = mq.load_net()
    torch.manual_seed(1)
    mq.fine_tune(teacher, images, labels, FLOAT_EPOCHS, shift=SHIFT)
    content = io.BytesIO()
    torch.save(teacher.state_dict(), content)
    mq.write_whole(folder / mq.SHIFTED.name, content.getvalue())
    print("float", mq.evaluate(teacher, *test), flush=True)
    for bits, epochs in LONG.items():
        qat = start(teacher, images, bits, 1)
        mq.fine_tune(qat, images, labels, epochs, shift=SHIFT, teacher=teacher)
        finish(qat, folder / mq.LOW_BITS.name, "long", test)


def start(net, images, bits, seed):
    """Return the QatNet of net, its ranges measured on 1,000 training images."""
    act_bits = dict.fromkeys(mq.read_layers(net), bits[1]) | {"conv1": 8}
    ranges = mq.calibrate(net, images[:1000], "mse", act_bits)
    torch.manual_seed(seed)
    return mq.QatNet(net, ranges, *bits)


def finish(qat, folder, name, test):
    """Save the QuantizedNet, and print its accuracy."""
    qnet = qat.quantize()
    folder.mkdir(exist_ok=True)
    path = folder / f"w{qat.weight_bits}a{qat.act_bits}_{name}.mnistq"
    qnet.save(path)
    print(path.name, mq.evaluate(qnet, *test), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("seeds", "long"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, default=mq.ROOT / "data")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train = train_short if options.which == "seeds" else train_long
    train(options.into, *mq.mnist(train=True), mq.mnist(train=False))
