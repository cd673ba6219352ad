"""Write the page of digits to a folder: it needs nothing else, and no server.

usage: python book/digits/build.py FOLDER    then open FOLDER/digits.html
"""

import base64
import gzip
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402

import mnistq_helpers as mq  # noqa: E402

JS = HERE.parents[1] / "mnistq" / "js"
SCRIPTS = (HERE / "digits.html", HERE / "page.js")
SCRIPTS += tuple(JS / f"{name}.js" for name in ("field", "prepare", "network"))


def networks():
    """Return {name: QuantizedNet} of the page: 8, 4, 2 and 1 bits."""
    net = mq.load_net(mq.SHIFTED)  # as the trained ones, it has seen shifted digits
    ranges = mq.calibrate(net, mq.mnist(train=True)[0][:1000])
    rounded = {f"{b}_bits": mq.quantize_net(net, ranges, b, b) for b in (8, 4)}
    trained = {"2_bits": "w2a2_long", "1_bit": "w1a1_long"}
    return rounded | {
        name: mq.QuantizedNet.load(mq.LOW_BITS / f"{file}.mnistq")
        for name, file in trained.items()
    }


def build(folder):
    """Write the page, its scripts and its four networks to folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in SCRIPTS:
        shutil.copy(path, folder)
    images, labels = mq.mnist(train=False)
    facts = {"networks": {}, "examples": []}
    for name, qnet in networks().items():
        script = folder / f"{name}.js"
        mq.export_js(qnet, script)
        facts["networks"][name] = {
            "download": len(gzip.compress(script.read_bytes())),
            "right": round(mq.evaluate(qnet, images, labels) * len(labels)),
        }
    for digit in range(10):
        image = images[(labels == digit).nonzero()[0, 0], 0]
        pixels = ((image * mq.STD + mq.MEAN) * 255).round().to(torch.uint8)
        picture = base64.b64encode(pixels.numpy().tobytes()).decode()
        facts["examples"].append(picture)
    text = f"globalThis.digitFacts = {json.dumps(facts)};\n"
    (folder / "facts.js").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    build(sys.argv[1])
