"""Run the notebooks with the older packages of Colab's runtime 2026.01.

usage: python tools/colab_stack.py FOLDER [NOTEBOOK ...]    (default: all of notebooks/)
The environment is made in FOLDER unless it is there already: about 6 GB. The cells are
run and must not raise; their outputs are not compared (nbval's --nbval-lax), because
float results and messages differ between versions.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLAB = (
    "torch==2.9.1",
    "torchvision==0.24.1",
    "numpy==2.0.2",
    "matplotlib==3.10.9",
    "ipywidgets==7.7.1",
    "ipython==7.34.0",
    "ipykernel==6.17.1",
    "anywidget==0.9.21",
    "tqdm",
    "packaging",
    "protobuf",  # what notebook 09's --no-deps expects to be there
    "ml_dtypes",
)
OURS = ("pytest==9.2.0", "nbval==0.11.0")
ENGINES = ("onnx", "onnxruntime", "ai-edge-litert", "flatbuffers", "backports.strenum")


def main(folder, notebooks):
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *COLAB, *OURS], check=True)
        subprocess.run([*pip, "--no-deps", *ENGINES], check=True)  # as notebook 09 does
    options = ["-c", os.devnull, "--rootdir=.", "--nbval-lax", "--nbval-current-env"]
    options += ["--nbval-cell-timeout=3600", "-p", "no:cacheprovider"]
    command = [python, "-m", "pytest", *options, *notebooks]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    chosen = [Path(name).resolve() for name in sys.argv[2:]]
    found = sorted(ROOT.glob("notebooks/*.ipynb"))
    sys.exit(main(Path(sys.argv[1]).resolve(), chosen or found))
