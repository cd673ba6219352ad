"""Record what notebooks' panels show: their pictures and texts, setting by setting.

Each notebook is executed on a kernel of its own, and where it shows a panel the panel's
own draw is called with every setting, if there are at most `most`; else each control is
moved alone, from where the panel stands. build.py puts the recordings into the book.
"""

import hashlib
import io
import itertools
import json
import math
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
MIME = "application/x-mnistq-recorded+json"
MOST = 300  # settings of a panel that are all recorded


def choices(control):
    """Return ("slider", "switch" or "choice", labels, values), or None if neither."""
    import ipywidgets as W

    from mnistq.widgets import said

    if isinstance(control, W.Checkbox | W.ToggleButton):
        return "switch", ["off", "on"], [False, True]
    if isinstance(control, W.IntSlider | W.FloatSlider):
        count = round((control.max - control.min) / control.step) + 1
        values = [control.min + n * control.step for n in range(count)]
        if isinstance(control, W.FloatSlider):
            values = [round(value, 6) for value in values]
        return "slider", [said(value) for value in values], values
    if hasattr(control, "options"):
        pairs = [o if isinstance(o, tuple) else (said(o), o) for o in control.options]
        kind = "slider" if isinstance(control, W.SelectionSlider) else "choice"
        return kind, [label for label, _ in pairs], [value for _, value in pairs]
    return None


def nearest(values, value):
    """Return the place of value, or of the number next to it."""
    if value in values:
        return values.index(value)
    return min(range(len(values)), key=lambda place: abs(values[place] - value))


def places(counts, first, most):
    """Return the settings to record: all, or those that differ from first in one."""
    if math.prod(counts) <= most:
        return list(itertools.product(*map(range, counts)))
    alone = [
        (*first[:number], place, *first[number + 1 :])
        for number, count in enumerate(counts)
        for place in range(count)
    ]
    return list(dict.fromkeys([first, *alone]))


def record(panel, folder, name, most):
    """Write the panel's pictures into folder; return what the book needs to show it."""
    import html

    from PIL import Image

    found = {key: choices(control) for key, control in panel.controls.items()}
    found = {key: choice for key, choice in found.items() if choice}
    values = {key: values for key, (_, _, values) in found.items()}
    standing = panel.values
    first = tuple(nearest(values[key], standing[key]) for key in found)
    texts, shots, files = {}, {}, {}
    for setting in places([len(v) for v in values.values()], first, most):
        chosen = {k: values[k][n] for k, n in zip(found, setting, strict=True)}
        png, text = panel.picture_of(standing | chosen)
        picture = io.BytesIO()
        image = Image.open(io.BytesIO(png)).convert("RGB")
        few = image.quantize(64, dither=Image.Dither.NONE).convert("RGB")
        few.save(picture, "webp", lossless=True, quality=30, method=2)
        digest = hashlib.sha256(picture.getvalue()).hexdigest()
        if digest not in files:
            files[digest] = f"{name}-{len(files):03d}.webp"
            (folder / files[digest]).write_bytes(picture.getvalue())
        text = texts.setdefault(html.unescape(text), len(texts))
        key = ",".join(map(str, setting))
        shots[key] = [list(files).index(digest), text]
    controls = [
        {"label": panel.controls[key].description or key, "kind": kind, "steps": labels}
        for key, (kind, labels, _) in found.items()
    ]
    return {
        "size": image.size,
        "first": first,
        "controls": controls,
        "files": list(files.values()),
        "texts": list(texts),
        "shots": shots,
    }


def install(folder, most):
    """In the notebook's kernel: let panels record themselves where they are shown."""
    from mnistq.widgets import Panel

    count = itertools.count()
    bundle = Panel._repr_mimebundle_

    def recording(panel, **kwargs):
        shown = bundle(panel, **kwargs)
        recorded = record(panel, Path(folder), f"panel-{next(count)}", most)
        return shown | {MIME: json.dumps(recorded)}

    Panel._repr_mimebundle_ = recording


def sources(path):
    """Return a digest of what a notebook's recordings depend on."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    rooms = [p.read_text("utf-8") for p in sorted(ROOT.glob("mnistq/**/*.py"))]
    tools = Path(__file__).read_text("utf-8")
    return hashlib.sha256("\0".join([*code, *rooms, tools]).encode()).hexdigest()


def record_notebook(path, folder, most=MOST):
    """Execute the notebook and write its panels to folder, unless they are there.

    Return {number of the cell: what record returned}.
    """
    from nbclient import NotebookClient

    index = folder / "panels.json"
    known = f"{sources(path)} {most}"
    if index.exists():
        stored = json.loads(index.read_text("utf-8"))
        if stored["sources"] == known:
            return {int(cell): panel for cell, panel in stored["panels"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("panel-*.webp"):
        old.unlink()
    notebook = nbformat.read(path, as_version=4)
    begin = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    begin += "from book.record import install\n"
    begin += f"install({str(folder.resolve())!r}, {most})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(begin))
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=3600, kernel_name="python3", resources=resources
    ).execute()
    panels = {}
    for number, cell in enumerate(notebook.cells[1:]):
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                panels[number] = json.loads(output.data[MIME])
    stored = {"sources": known, "panels": panels}
    index.write_text(json.dumps(stored), encoding="utf-8")
    return panels
