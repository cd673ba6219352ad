"""Execute notebooks on fresh kernels and write them back with normalised outputs.

usage: python tools/execute_notebooks.py [NOTEBOOK ...]    (default: all of notebooks/)
Executed twice, a notebook comes out the same to the byte. If a cell fails, the
notebook on disk stays as it was. The picture of the cell tagged readme-picture goes to
docs/accuracy.png too.
"""

import base64
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {  # all but the version, which differs between machines
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}


def normalise(notebook):
    """Drop what differs between two runs of the same notebook; return it."""
    # Widget state without its view, or a view without its state, shows an error; the
    # text that stands beside the view remains.
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)
    return notebook


def execute(path):
    """Execute the notebook in its own folder, then replace the file in one step."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    temporary = path.with_suffix(".tmp")
    nbformat.write(normalise(notebook), temporary)
    os.replace(temporary, path)
    for cell in notebook.cells:
        if "readme-picture" in cell.metadata.get("tags", []):
            picture = cell.outputs[0].data["image/png"]
            (ROOT / "docs" / "accuracy.png").write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    for path in tqdm(chosen or sorted(ROOT.glob("notebooks/*.ipynb"))):
        execute(path)
