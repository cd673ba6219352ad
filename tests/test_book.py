"""A small book is built and opened in a browser: all that it shows moves, and alone.

Where the environment's MNISTQ_BOOK names the folder of a book that is already built,
all pages of that one are opened instead.
"""

import functools
import html
import http.server
import io
import json
import os
import threading
from pathlib import Path

import ipywidgets as W
import nbformat
import numpy as np
import pytest
from PIL import Image

import mnistq_helpers as mq
from book import build, player, record
from tools import browser
from tools.execute_notebooks import METADATA

ROOT = mq.ROOT
MATH = ROOT / "notebooks" / "02_quantization_math.ipynb"
CELLS = (
    "import ipywidgets as W\nimport mnistq_helpers as mq",
    """def draw(figure, **values):
    figure.subplots().barh(range(4), [int(bool(v)) for v in values.values()])
    return f"<b> {values}"
""",
    """controls = {
    "box": W.Checkbox(False, description="a box"),
    "choice": W.Dropdown(options=[("one & all", 1), ("two", 2)], value=2),
    "some": W.SelectionSlider(options=[0, 0.1, 0.5], description="some"),
    "name": W.Text("not recorded"),
}
mq.Panel(draw, (4, 2), **controls)""",
)
WHOLE = os.environ.get("MNISTQ_BOOK")
NAMES = [
    "index.html",
    "notebooks/02_quantization_math.html",
    "notebooks/99_other.html",
    "docs/glossary.html",
    "docs/teachers.html",
]
if WHOLE:
    found = [*Path(WHOLE).glob("notebooks/*.html"), *Path(WHOLE).glob("docs/*.html")]
    names = [path.relative_to(WHOLE).as_posix() for path in found]
    NAMES = [*NAMES[:2], *sorted({*names} - {*NAMES[:2]})]
SEEN = """panel => [panel.querySelector("p").textContent,
  panel.querySelector("img").getAttribute("src")]"""
SHOWN = """() => [...document.querySelectorAll("figure.panel img")]
  .every(image => image.complete && image.naturalWidth)"""


def draw(figure, bits, share, box):
    axis = figure.subplots()
    axis.plot([bits, share])
    return f"{bits} < {share} {box}"


def panel():
    return mq.Panel(
        draw,
        (4, 2),
        bits=W.IntSlider(2, 1, 3, description="bits"),
        share=W.FloatSlider(0.3, min=0.1, max=0.5, step=0.1, description="share"),
        box=W.Checkbox(True, description="box"),
    )


def assert_recorded(found, folder):
    """Check that what was recorded of panel() is what it shows."""
    bits, shares, boxes = [1, 2, 3], [0.1, 0.2, 0.3, 0.4, 0.5], [False, True]
    live = panel()
    for setting, (file, text) in found["shots"].items():
        i, j, k = map(int, setting.split(","))
        for name, value in zip(
            live.controls, (bits[i], shares[j], boxes[k]), strict=True
        ):
            live.controls[name].value = value
        assert found["texts"][text] == html.unescape(live.text.value)
        pictures = [folder / found["files"][file], io.BytesIO(live.image.value)]
        a, b = (np.array(Image.open(p).convert("RGB"), dtype=int) for p in pictures)
        assert np.abs(a - b).max() < 32


def test_all_settings_are_recorded_as_the_panel_shows_them(tmp_path):
    found = record.record(panel(), tmp_path, "a", most=30)
    assert len(found["shots"]) == 30 and found["first"] == (1, 2, 1)
    assert len(found["files"]) == 15  # the box changes the text alone
    assert_recorded(found, tmp_path)
    assert [c["kind"] for c in found["controls"]] == ["slider", "slider", "switch"]
    assert found["controls"][1]["steps"] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert "panel-note" not in player.panel_html(found, "there")


def test_where_there_are_too_many_each_control_is_moved_alone(tmp_path):
    found = record.record(panel(), tmp_path, "a", most=29)
    alone = {"1,2,1", "0,2,1", "2,2,1", "1,0,1", "1,1,1", "1,3,1", "1,4,1", "1,2,0"}
    assert set(found["shots"]) == alone
    assert_recorded(found, tmp_path)
    assert "panel-note" in player.panel_html(found, "there")


def test_nothing_recorded_can_end_the_script_it_stands_in(tmp_path):
    live = mq.Panel(lambda figure, box: "</script><b>", (4, 2), box=W.Checkbox())
    found = record.record(live, tmp_path, "a", most=9)
    text = player.panel_html(found, "there")
    assert text.count("</script>") == 1 and "<b>" not in text
    data = text.split('json">')[1].split("</script>")[0]
    assert json.loads(data)["texts"] == ["</script><b>"]


def test_links_lead_to_pages_or_to_the_repository():
    pages = {"notebooks/02.ipynb", "docs/glossary.md"}
    there = f"https://github.com/{build.REPOSITORY}/blob/main"
    for folder, before, after in (
        ("notebooks", "02.ipynb#A-b", "02.ipynb#A-b"),
        ("notebooks", "03.ipynb", f"{there}/notebooks/03.ipynb"),
        ("notebooks", "../README.md", "../index.md"),
        ("docs", "../notebooks/02.ipynb", "../notebooks/02.ipynb"),
        ("docs", "../mnistq/data.py", f"{there}/mnistq/data.py"),
        ("docs", "#here", "#here"),
        ("docs", "https://x.org/y", "https://x.org/y"),
    ):
        text = build.relink(f"[a]({before}) b", Path(folder), pages)
        assert text == f"[a]({after}) b"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a book of notebook 02 and of one that has other controls."""
    if WHOLE:
        return Path(WHOLE)
    for package in ("sphinx", "myst_nb", "sphinx_book_theme", "mathjax"):
        pytest.importorskip(package, reason="pip install -r requirements-book.txt")
    out = tmp_path_factory.mktemp("book")
    shown = nbformat.v4.new_output("execute_result", {"text/plain": "a panel"})
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[-1].outputs = [shown]
    cells.insert(0, nbformat.v4.new_markdown_cell("# 99 · Other controls"))
    other = out / "99_other.ipynb"
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.write(notebook, other)
    build.build(out, [MATH, other], most=12)
    return out / "html"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def pages(site):
    """A function: open a page of the book, for fingers if it is narrow.

    When all is done, no page has had an error or asked anyone else for anything.
    """
    executable, missing = browser.find_browser()
    if missing:
        pytest.skip(f"The book is not opened because {missing}.")
    serve = functools.partial(Quiet, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address, trouble = f"http://127.0.0.1:{server.server_port}", []
    with browser.browse(executable) as context:
        phone = context.browser.new_context(
            viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
        )

        def open_page(name, narrow=False):
            page = (phone if narrow else context).new_page()
            page.on("pageerror", lambda error: trouble.append(str(error)))
            page.on("console", lambda m: m.type == "error" and trouble.append(m.text))
            page.on(
                "request",
                lambda r: (
                    r.url.startswith((address, "data:", "blob:"))
                    or trouble.append(r.url)
                ),
            )
            page.on(
                "response", lambda r: r.status >= 400 and trouble.append(f"no {r.url}")
            )
            page.goto(f"{address}/{name}")
            return page

        yield open_page
        assert trouble == []
    server.shutdown()


def use(page, control, way):
    """Move a control by keys, by the mouse or by a finger."""
    kind = control.evaluate("e => e.type")
    if way == "keys" or kind == "select-one":  # its list is the browser's own
        control.focus()
        if kind == "range":
            last = control.input_value() == control.get_attribute("max")
            control.press("ArrowLeft" if last else "ArrowRight")
        else:
            first = control.evaluate("e => e.selectedIndex == 0")
            choice = "ArrowDown" if first else "ArrowUp"
            control.press("Space" if kind == "checkbox" else choice)
        return
    control.scroll_into_view_if_needed()
    box = control.bounding_box()
    far = control.evaluate("e => e.value / e.max > 0.5")
    x = box["width"] * (0.5 if kind == "checkbox" else 0.05 if far else 0.95)
    place = box["x"] + x, box["y"] + box["height"] / 2
    (page.touchscreen.tap if way == "finger" else page.mouse.click)(*place)


@pytest.mark.parametrize("way", ["keys", "mouse", "finger"])
@pytest.mark.parametrize("name", [name for name in NAMES if "docs" not in name])
def test_every_control_moves_the_text_or_the_picture(pages, name, way):
    page = pages(name, narrow=way == "finger")
    found = page.locator("figure.panel").all()
    assert len(found) >= (4 if "02" in name else 1)
    for panel in found:
        for control in panel.locator("input, select").all():
            before = panel.evaluate(SEEN)
            use(page, control, way)
            assert panel.evaluate(SEEN) != before, control.inner_html()
    page.wait_for_function(SHOWN)
    page.close()


@pytest.mark.skipif(
    bool(WHOLE), reason="There all settings of this panel are recorded."
)
def test_a_slider_says_where_it_stands_and_one_moved_alone_puts_others_back(pages):
    page = pages(NAMES[1])
    panel = page.locator("figure.panel").first
    bits, low = panel.locator("input[type=range]").all()
    where = "e => [e.getAttribute('aria-valuetext'), e.nextElementSibling.value]"
    assert bits.evaluate(where) == ["3", "3"]
    use(page, bits, "keys")
    assert bits.evaluate(where) == ["4", "4"]
    assert "One control" not in panel.inner_text() and "Recorded" in panel.inner_text()
    use(page, low, "keys")
    assert bits.evaluate(where) == ["3", "3"] and low.evaluate(where)[0] == "-0.75"
    page.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_a_phone(pages, name):
    page = pages(name, narrow=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_the_setup_cell_is_folded_and_solutions_open(pages):
    page = pages(NAMES[1])
    page.wait_for_selector("mjx-container svg")  # formulas without a network
    setup = page.locator("details.hide.above-input")
    assert setup.count() == 1 and setup.get_attribute("open") is None
    assert page.get_by_text("REPOSITORY =").count() == 1
    solution = page.locator("details:not(.hide)", has_text="Solution").first
    code = solution.locator("pre")
    assert not code.is_visible()
    solution.locator("summary").click()
    assert code.is_visible()
    page.close()


def test_a_finger_moves_a_slider_of_chapter_2_and_draws_what_four_widths_read(pages):
    page = pages("index.html", narrow=True)
    page.locator("main").get_by_role("link", name="02 · Quantization").first.tap()
    page.wait_for_url("**/02_quantization_math.html")
    panel = page.locator("figure.panel").first
    before = panel.evaluate(SEEN)
    use(page, panel.locator("input[type=range]").first, "finger")
    assert panel.evaluate(SEEN) != before
    page.go_back()
    page.get_by_role("link", name="Draw a digit").tap()
    page.wait_for_url("**/digits/digits.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    browser.draw(page, browser.DIGITS[7], finger=True, wait=False)
    page.wait_for_function(
        "[...document.querySelectorAll('td.answer')].every(e => e.innerText == '7')"
    )
    assert page.locator("td.answer").count() == 4
    page.close()
