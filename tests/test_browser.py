"""A person can use it: every notebook in a real JupyterLab and a real browser."""

from functools import partial

import pytest

from tools import browser

*OTHERS, PLAYGROUND = sorted(
    path.name for path in (browser.ROOT / "notebooks").glob("*.ipynb")
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Yield (browser, address of a JupyterLab that serves a copy of the checkout)."""
    executable, missing = browser.find_browser()
    if missing:
        pytest.skip(f"The browser tests are skipped because {missing}.")
    folder = tmp_path_factory.mktemp("checkout")
    browser.copy_checkout(folder)
    with browser.serve(folder) as address, browser.browse(executable) as context:
        yield context, address


def assert_well(page, errors):
    assert page.evaluate(browser.FAILED) == []
    assert errors == []
    text = page.locator(".jp-Notebook").inner_text()
    assert "This setting failed" not in text and "Error displaying widget" not in text


def assert_controls_move(page, errors):
    """By key and by mouse; a slider moves the text and the picture."""
    assert_well(page, errors)
    assert page.evaluate(browser.NOT_RUN) == []
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


@pytest.mark.parametrize("name", OTHERS, ids=lambda name: name[:2])
def test_every_control_moves(lab, name):
    with browser.opened(*lab, name) as (page, errors):
        assert_controls_move(page, errors)


@pytest.fixture(scope="module")
def playground(lab):
    with browser.opened(*lab, PLAYGROUND) as opened:
        yield opened


@pytest.mark.parametrize(
    ("digit", "finger"), [*((digit, False) for digit in browser.DIGITS), (3, True)]
)
def test_a_drawn_digit_is_read_by_float_and_8_bits(playground, digit, finger):
    page, errors = playground
    page.get_by_role("button", name="clear").click()
    browser.settle(page)
    browser.draw(page, browser.DIGITS[digit], finger)
    text = " ".join(page.locator(".widget-html-content").all_inner_texts())
    assert f"Float reads {digit} " in text and f"integers {digit} " in text
    assert "Weights 8, 8, 8, 8 bits, activations 8" in text
    assert_well(page, errors)


def test_a_digit_is_drawn_with_keys_alone_and_cleared(playground):
    page, errors = playground
    page.get_by_role("button", name="clear").click()
    field = page.locator(".field canvas")
    before = field.screenshot()
    field.focus()
    assert field.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert "space" in field.get_attribute("aria-label")
    assert field.screenshot() != before  # the pen is seen where it stands
    keys = ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16 + [" "]  # a 1
    for key in keys:
        field.press(key)
    browser.settle(page)
    text = " ".join(page.locator(".widget-html-content").all_inner_texts())
    assert "Float reads 1 " in text and "integers 1 " in text
    field.press("Delete")
    browser.settle(page)
    text = " ".join(page.locator(".widget-html-content").all_inner_texts())
    assert "The field is empty" in text
    assert_well(page, errors)


def test_every_control_of_the_playground_moves(playground):
    page, errors = playground
    browser.draw(page, browser.DIGITS[3])
    assert_controls_move(page, errors)
