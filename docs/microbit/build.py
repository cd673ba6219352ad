"""Write the program of a BBC micro:bit V1 that reads one digit: mnistq.hex.

usage: python docs/microbit/build.py FOLDER [NUMBER OF A TEST DIGIT]
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import mnistq_helpers as mq
from mnistq.chips import CORTEX_M0, zig

HERE = Path(__file__).resolve().parent


def build(folder, number=0):
    """Write mnistq.elf and mnistq.hex to folder; return the digit's label."""
    folder = Path(folder)
    mq.export_c(mq.QuantizedNet.load(mq.LOW_BITS / "w1a1_long.mnistq"), folder)
    images, labels = mq.mnist(train=False)
    pixels = ((images[number] * mq.STD + mq.MEAN) * 255).round().int().flatten()
    numbers = ", ".join(map(str, pixels.tolist()))
    line = f"static const unsigned char DIGIT[784] = {{{numbers}}};\n"
    (folder / "digit.h").write_text(line)
    script = ["-T", str(HERE / "microbit.ld"), "-Wl,-e,start", f"-I{folder}"]
    flags = [flag for flag in CORTEX_M0 if flag != "-Wl,-e,reset"]
    sources = [HERE / "main.c", folder / "mnistq_net.c"]
    mq.compile_c(sources, folder / "mnistq.elf", [*flags, *script], zig())
    copy = [*zig()[:-1], "objcopy", "-O", "hex", folder / "mnistq.elf"]
    subprocess.run([*copy, folder / "mnistq.hex"], check=True)
    return int(labels[number])


if __name__ == "__main__":
    folder, *number = sys.argv[1:]
    label = build(folder, *map(int, number))
    print(f"{Path(folder) / 'mnistq.hex'}: a micro:bit should show a {label}.")
