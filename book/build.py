"""Build the book: a static site of the notebooks whose panels move without Python.

usage: python -m book.build OUT [NOTEBOOK ...]    (default: all of notebooks/)
The site comes to lie in OUT/html: open its index.html. Its pages are index.md,
the stored notebooks and docs/; the notebooks are executed to record their panels
(record.py), which takes long, and the recordings are kept in OUT/recorded for the next
time. What static/ holds is found by the pages as _static/NAME.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from tqdm import tqdm

from book import record
from book.player import panel_html

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
REPOSITORY = (ROOT / "tools" / "repository.txt").read_text("utf-8").strip()
DIGITS = BOOK / "digits" / "build.py"  # makes digits/digits.html, a page of its own
MOST_BYTES = 40_000_000  # of the whole site
BADGE = r"\[!\[Open in Colab\]\([^)]*\)\]"  # its picture lies elsewhere


def relink(text, folder, pages):
    """Return Markdown of a file in folder, its links to what is no page made whole.

    pages: the book's files, by their paths in the checkout.
    """

    def whole(match):
        target = match[1]
        link = urlsplit(target)
        if link.scheme or not link.path:
            return match[0]
        name = os.path.normpath(folder / link.path).replace(os.sep, "/")
        if name == "README.md":
            return f"]({os.path.relpath('index.md', folder)})"
        if name in pages:
            return match[0]
        return f"](https://github.com/{REPOSITORY}/blob/main/{name})"

    return re.sub(r"\]\(([^)\s]+)\)", whole, text)


def notebook_page(path, panels, pages):
    """Return a stored notebook as the book shows it: its recorded panels put in."""
    notebook = nbformat.read(path, as_version=4)
    folder = f"../_static/panels/{path.stem}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].metadata.setdefault("tags", []).append("hide-input")  # the setup cell
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            text = re.sub(BADGE, "[Open in Colab]", cell.source)
            cell.source = relink(text, Path("notebooks"), pages)
        if number in panels:
            data = cell.outputs[-1].data
            data.clear()
            data["text/html"] = panel_html(panels[number], folder)
    return notebook


def put_panels(text, panels):
    """Return text, each `<!-- panel STEM N -->` in it made a notebook's Nth panel."""

    def panel(match):
        stem, number = match[1], int(match[2])
        if stem not in panels:  # a book of other notebooks
            return ""
        return panel_html(panels[stem][number - 1], f"_static/panels/{stem}")

    return re.sub(r"<!-- panel (\w+) (\d+) -->", panel, text)


def write_source(source, recordings, recorded):
    """Write what sphinx reads: pages, pictures, scripts.

    recorded: {path of a notebook: its panels}.
    """
    static = source / "_static"
    shutil.copytree(BOOK / "static", static)
    shutil.copy(BOOK / "conf.py", source)
    package = Path(importlib.util.find_spec("mathjax").origin).parent
    shutil.copy(package / "static/mathjax/es5/tex-svg.js", static / "mathjax.js")
    for folder in ("notebooks", "docs"):
        (source / folder).mkdir()
    texts = sorted((ROOT / "docs").glob("*.md"))
    pages = {f"notebooks/{path.name}" for path in recorded}
    pages |= {f"docs/{path.name}" for path in texts}
    panels = {path.stem: [*found.values()] for path, found in recorded.items()}
    for path, found in recorded.items():
        ignore = shutil.ignore_patterns("*.json")
        place = static / "panels" / path.stem
        shutil.copytree(recordings / path.stem, place, ignore=ignore)
        page = notebook_page(path, found, pages)
        nbformat.write(page, source / "notebooks" / path.name)
    for path in texts:
        text = relink(path.read_text("utf-8"), Path("docs"), pages)
        (source / "docs" / path.name).write_text(text, "utf-8")
    text = put_panels((BOOK / "index.md").read_text("utf-8"), panels)
    if not DIGITS.exists():
        text = re.sub(r'<p class="digits">.*</p>', "", text)
    (source / "index.md").write_text(relink(text, Path(), pages), "utf-8")


def build(out, notebooks, most=record.MOST):
    """Record the notebooks' panels, with at most `most` settings all of them, and
    write the site to out/html.
    """
    recordings = out / "recorded"
    recorded = {
        path: record.record_notebook(path, recordings / path.stem, most)
        for path in tqdm(notebooks)
    }
    for old in ("source", "html"):
        shutil.rmtree(out / old, ignore_errors=True)
    write_source(out / "source", recordings, recorded)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MNISTQ_REPOSITORY": REPOSITORY,
    }
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    command += ["-d", out / "doctrees", out / "source", out / "html"]
    subprocess.run(command, check=True, env=environment)
    if DIGITS.exists():
        command = [sys.executable, DIGITS, out / "html" / "digits"]
        subprocess.run(command, check=True)
    files = [path for path in (out / "html").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{size / 1e6:.1f} MB in {len(files)} files")
    if size > MOST_BYTES:
        raise SystemExit(f"That is more than {MOST_BYTES / 1e6:.0f} MB.")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    chosen = [Path(name).resolve() for name in sys.argv[2:]]
    found = sorted(ROOT.glob("notebooks/*.ipynb"))
    build(Path(sys.argv[1]).resolve(), chosen or found)
