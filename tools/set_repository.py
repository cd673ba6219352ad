"""Write the project's address into every badge, setup cell and the README.

usage: python tools/set_repository.py OWNER/REPO
tools/repository.txt holds the address that stands there now.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "tools" / "repository.txt"


def set_repository(new):
    """Replace the old address by new in all files that name it."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise SystemExit(f"{new!r} is not of the form OWNER/REPO.")
    old = PLACE.read_text().strip()
    for path in [ROOT / "README.md", *sorted(ROOT.glob("notebooks/*.ipynb")), PLACE]:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    set_repository(sys.argv[1])
