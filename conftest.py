"""Each notebook is a test: its cells' outputs are compared, its controls are moved.

nbval makes an item of each cell and compares. Where there is a browser, a cell is run
by a real JupyterLab in that browser, as a reader runs it, and nbval is given what the
kernel sent to the page; then further items use the controls of this same page. So each
notebook is executed once. Without a browser nbval executes it, nothing is moved.
"""

import json
import os
import re
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from queue import Empty

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbFile

from tools import browser

if "PYTEST_XDIST_WORKER" in os.environ:  # pytest -n: others want processors, too
    os.environ["OMP_NUM_THREADS"] = "1"
SESSION = ExitStack()  # what is started once and serves all notebooks


@cache
def start_lab(executable):
    """Return (browser, address of a JupyterLab that serves a copy of the checkout)."""
    temporary = SESSION.enter_context(tempfile.TemporaryDirectory())
    folder = Path(temporary, "a checkout")  # with a space, as some readers have it
    folder.mkdir()
    browser.copy_checkout(folder)
    address = SESSION.enter_context(browser.serve(folder))
    return SESSION.enter_context(browser.browse(executable)), address


def pytest_unconfigure():
    SESSION.close()


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that pytest -n has no long one left at last."""
    items.sort(key=lambda item: -getattr(item.parent, "seconds", 0))


class PageKernel(RunningKernel):
    """The kernel of a notebook in JupyterLab, with the methods nbval asks for."""

    def __init__(self, page):
        self.page, self.messages, self.stopped = page, deque(), False
        page.evaluate(browser.RECORD)

    def execute_cell_input(self, cell_input, allow_stdin=None):
        number = self.page.evaluate("kept.requests.length")
        if not self.page.evaluate(browser.RUN_NEXT, cell_input):
            raise RuntimeError("JupyterLab's copy of the notebook has no such cell.")
        self.wait("number => kept.requests.length > number", number, 20)
        return self.page.evaluate("kept.requests.at(-1)")

    def await_reply(self, msg_id, timeout=None):
        self.wait("id => kept.died || kept.replies.includes(id)", msg_id, timeout)
        if self.page.evaluate("kept.died"):
            raise RuntimeError("The kernel died.")

    def get_message(self, stream, timeout=None):
        if not self.messages:
            self.wait("() => kept.messages.length", None, timeout)
            text = self.page.evaluate("JSON.stringify(kept.messages.splice(0))")
            self.messages.extend(json.loads(text))
        return self.messages.popleft()

    def wait(self, condition, value, seconds):
        """Return when the condition holds in the page; raise Empty after seconds."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition, value):
            if time.monotonic() > end:
                raise Empty(f"not so after {seconds} s: {condition}")
            self.page.wait_for_timeout(50)

    def is_alive(self):
        return not (self.stopped or self.page.evaluate("kept.died"))

    def interrupt(self):
        self.page.evaluate(f"{browser.KERNEL}.interrupt()")

    def stop(self):
        self.stopped = True  # JupyterLab ends it when the page is closed


class Notebook(IPyNbFile):
    """A notebook's cells, then what is done with it in the browser."""

    def collect(self):
        yield from super().collect()
        text = "\n".join(cell.source for cell in self.nb.cells)
        said = re.search(r"\*\*Runs in\*\* about ([\d.]+) (s|min)", text)
        self.seconds = float(said[1]) * {"s": 1, "min": 60}[said[2]] if said else 0
        for name, check in checks(self.path.stem):
            yield Check.from_parent(self, name=name, check=check)

    def setup(self):
        executable, self.missing = browser.find_browser()
        self.opened = ExitStack()
        if self.missing:
            super().setup()
            return
        way = browser.opened(*start_lab(executable), self.path.name, run=False)
        self.page, self.errors = self.opened.enter_context(way)
        self.kernel = PageKernel(self.page)
        self.setup_sanitize_files()

    def teardown(self):
        self.opened.close()
        if self.missing:
            super().teardown()


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    """Let nbval decide what it collects, and make Notebooks of that."""
    found = yield
    for place, collector in enumerate(found):
        if isinstance(collector, IPyNbFile):
            found[place] = Notebook.from_parent(parent, path=collector.path)
    return found


class Check(pytest.Item):
    """A function of a notebook's page and its errors, called after all cells."""

    def __init__(self, name, parent, check):
        super().__init__(name, parent)
        self.check = check

    def runtest(self):
        if self.parent.missing:
            pytest.skip(f"No control is moved because {self.parent.missing}.")
        if not self.parent.kernel.is_alive():
            pytest.fail("The kernel died, or a cell could not be interrupted.")
        self.check(self.parent.page, self.parent.errors)

    def repr_failure(self, excinfo):
        """Leave out what pytest did before it called this file."""
        return excinfo.getrepr(
            style="short", tbfilter=lambda info: info.traceback.cut(path=__file__)
        )

    def reportinfo(self):
        return self.path, None, self.nodeid


def checks(stem):
    """Yield (name, check) of what is done with a notebook in the browser."""
    if stem.endswith("playground"):
        for digit in browser.DIGITS:
            yield f"a drawn {digit} is read", partial(a_digit_is_read, digit=digit)
        finger = partial(a_digit_is_read, digit=3, finger=True)
        yield "a 3 drawn by a finger is read", finger
        yield "a digit is drawn by keys alone and cleared", keys_alone_draw
        yield "undo, pen width, a right click", undo_and_other_buttons
        yield "a clear is never lost", a_clear_is_never_lost
    yield "every control moves", every_control_moves


def assert_well(page, errors):
    assert page.evaluate(browser.FAILED) == []
    assert errors == []
    text = page.locator(".jp-Notebook").inner_text()
    assert "This setting failed" not in text and "Error displaying widget" not in text


def every_control_moves(page, errors):
    """By key and by mouse; a slider moves the text and the picture."""
    browser.settle(page)
    assert_well(page, errors)
    assert page.evaluate(browser.NOT_RUN) == []
    assert page.evaluate(browser.TWICE) == []
    if page.locator(".field canvas").count():  # nothing is read from an empty one
        browser.draw(page, browser.DIGITS[3])
    found = browser.controls(page)
    assert found
    changed = {"keys": [], "mouse": []}
    for how, use in (("keys", browser.press), ("mouse", partial(browser.drag, page))):
        for kind, _, element in found:
            element.scroll_into_view_if_needed()
            act = partial(use, kind, element)
            changed[how].append(browser.changes(page, element, act))
    still = {}
    for (kind, label, _), *seen in zip(found, *changed.values(), strict=True):
        wanted = {"text", "picture"} if kind == "slider" else {"text"}
        if not all(seen) or not wanted <= set.union(*seen):
            still[f"{kind} {label!r}"] = dict(zip(changed, seen, strict=True))
    assert still == {}
    assert_well(page, errors)


def panel_text(page):
    return " ".join(page.locator(".widget-html-content").all_inner_texts())


def press_tool(page, name):
    page.locator(f".field .{name}").click()


def inked(page):
    """Return how many pixels of the field bear ink, as the page has it."""
    return page.locator(".field canvas").evaluate(
        "e => e.getContext('2d').getImageData(0, 0, e.width, e.height)"
        ".data.filter(Boolean).length"
    )


def assert_read(page, digit):
    """By the float network and by 8-bit integers."""
    text = panel_text(page)
    assert f"float reads {digit}, as do " in text and "8 bits (" not in text


def a_digit_is_read(page, errors, digit, finger=False):
    press_tool(page, "clear")
    browser.settle(page)
    browser.draw(page, browser.DIGITS[digit], finger)
    assert_read(page, digit)
    assert_well(page, errors)


def keys_alone_draw(page, errors):
    press_tool(page, "clear")
    field = page.locator(".field canvas")
    before = field.screenshot()
    page.locator(".field .clear").focus()
    field.focus()
    page.keyboard.press("ArrowUp")  # by a key, so that the focus is one of keys
    assert field.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert "space" in field.get_attribute("aria-label")
    assert field.screenshot() != before  # the pen is seen where it stands
    keys = ["ArrowUp"] * 7 + [" "] + ["ArrowDown"] * 16 + [" "]  # a 1
    for key in keys:
        field.press(key)
    browser.settle(page)
    assert_read(page, 1)
    field.press("Delete")
    browser.settle(page)
    assert "The field is empty" in panel_text(page) and inked(page) == 0
    assert_well(page, errors)


def undo_and_other_buttons(page, errors):
    """Undo takes back a stroke, by button or key; a right click draws nothing."""
    press_tool(page, "clear")
    browser.draw(page, browser.DIGITS[1])
    one = inked(page)
    field = page.locator(".field canvas")
    for undo in (lambda: press_tool(page, "undo"), lambda: field.press("Control+z")):
        browser.draw(page, browser.DIGITS[7])
        assert inked(page) > one
        undo()
        assert inked(page) == one
    field.click(button="right", position={"x": 40, "y": 40})
    page.keyboard.press("Escape")  # the browser's own menu
    assert inked(page) == one
    browser.settle(page)
    assert_read(page, 1)
    page.locator(".field input").fill("16")
    browser.draw(page, "10 90, 90 90")
    thick = inked(page) - one
    press_tool(page, "undo")
    page.locator(".field input").fill("4")
    browser.draw(page, "10 90, 90 90")
    assert 0 < inked(page) - one < thick / 2
    page.locator(".field input").fill("6")
    assert_well(page, errors)


def a_clear_is_never_lost(page, errors):
    """Twenty times right after a stroke, while the kernel is busy."""
    busy = f"{browser.KERNEL}.requestExecute({{code: 'import time; time.sleep(0.2)'}})"
    for _ in range(20):
        browser.draw(page, browser.DIGITS[3], wait=False)
        page.evaluate(f"() => {{ {busy}; }}")
        browser.draw(page, browser.DIGITS[7], wait=False)
        press_tool(page, "clear")
        page.locator(".widget-html-content", has_text="field is empty").wait_for()
        browser.settle(page)
        assert "The field is empty" in panel_text(page) and inked(page) == 0
    assert_well(page, errors)
