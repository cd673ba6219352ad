"""Run the notebooks with the older packages of Colab's runtime 2026.01.

usage: python tools/colab_stack.py FOLDER [NOTEBOOK ...]    (default: all of notebooks/)
The environment is made in FOLDER unless it is there already: about 6 GB. It is of
Python 3.12, Colab's, if the command python3.12 answers (py -3.12 on Windows), else of
the Python that runs this; which one is printed. The cells are run and must not raise;
their outputs are not compared (nbval's --nbval-lax), because float results and
messages differ between versions.
"""

import os
import subprocess
import sys
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
    "protobuf==5.29.5",  # too old for onnx: notebook 09 installs a later one
    "ml_dtypes==0.5.4",
    "scipy==1.16.3",
    "pillow==11.3.0",
    "safetensors==0.7.0",
)
OURS = ("pytest==9.2.0", "nbval==0.11.0")
ENGINES = ("onnx", "ai-edge-litert", "flatbuffers", "protobuf", "backports.strenum")
CHIPS = ("ziglang", "unicorn", "pyelftools")
PYTHON = "3.12"


def pinned(names):
    """Return what notebooks 09 and 10 install in Colab, as requirements.txt pins it."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.startswith(names)]


def base_python():
    """Return the command of a Python 3.12, or of this one if there is none."""
    commands = [[f"python{PYTHON}"]]
    if sys.platform == "win32":
        commands = [["py", f"-{PYTHON}"]]
    for command in [*commands, [sys.executable]]:
        show = [*command, "-c", "import sys; print(sys.version.split()[0])"]
        try:
            done = subprocess.run(show, capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return command, done.stdout.strip()
    raise SystemExit("no Python answers")


def main(folder, notebooks):
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        command, version = base_python()
        if not version.startswith(PYTHON):
            print(
                f"No Python {PYTHON} is here: the environment is of Python {version}."
            )
        subprocess.run([*command, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *COLAB, *OURS], check=True)
        subprocess.run([*pip, "--no-deps", *pinned(ENGINES)], check=True)
        subprocess.run([*pip, *pinned(CHIPS)], check=True)
    print("run by", flush=True, end=" ")
    subprocess.run([python, "--version"], check=True)
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
