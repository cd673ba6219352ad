"""Write the project's address into every badge, link and setup cell.

usage: python tools/set_repository.py OWNER/REPO
tools/repository.txt holds the address that stands there now. Only addresses change: a
name is replaced after github.com/, after Colab's address, and in the setup cells; and
OWNER.github.io/REPO, where the book is published. The workflow book.yml does it too.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "tools" / "repository.txt"
BEFORE = (  # none of them can stand in a picture's base64
    r"https://github\.com/",
    r"https://colab\.research\.google\.com/github/",
    r'REPOSITORY = \\?"',
)


def with_address(text, old, new):
    """Return text with the addresses of old made those of new."""
    end = r"(?![\w-]|\.\w)"  # else it is a longer name
    places = rf"({'|'.join(BEFORE)}){re.escape(old)}{end}"
    text = re.sub(places, lambda match: match[1] + new, text)
    sites = ["https://{}.github.io/{}".format(*name.split("/")) for name in (old, new)]
    return re.sub(re.escape(sites[0]) + end, lambda match: sites[1], text)


def set_repository(new):
    """Replace the old address by new in all files that name it."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise SystemExit(f"{new!r} is not of the form OWNER/REPO.")
    old = PLACE.read_text().strip()
    texts = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    for path in [*texts, *sorted(ROOT.glob("notebooks/*.ipynb"))]:
        text = path.read_text(encoding="utf-8")
        path.write_text(with_address(text, old, new), encoding="utf-8")
    PLACE.write_text(f"{new}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    set_repository(sys.argv[1])
