"""Draw the example photographs of notebook 11: data/photographs/*.jpg.

usage: python tools/draw_photographs.py
Test digits of MNIST on paper, seen by a camera: the same files to the byte each time.
"""

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mnistq_helpers as mq  # noqa: E402

PAGES = {  # name: (first test digit, how many, columns, seed)
    "one_digit": (0, 1, 1, 9),
    "a_line": (61, 5, 5, 4),
    "a_page": (140, 12, 4, 14),
}


def draw(folder):
    images = (mq.mnist(train=False)[0][:, 0] * mq.STD + mq.MEAN).clamp(0, 1)
    for name, (first, count, columns, seed) in PAGES.items():
        photo = mq.photograph(images[first : first + count], seed, columns)
        Image.fromarray(photo).save(folder / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    draw(ROOT / "data" / "photographs")
