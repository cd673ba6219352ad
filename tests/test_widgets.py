"""A control moves, the text and the picture change, errors are shown."""

import base64
import io

import ipywidgets as W
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

import mnistq_helpers as mq

calls = []  # the bits that draw was called with


def draw(figure, bits):
    calls.append(bits)
    figure.subplots().plot([0, bits])
    if bits == 7:
        raise ValueError("seven is <bad>")
    return f"{bits} bits & more"


def test_the_slider_redraws_text_and_picture():
    panel = mq.bits_slider(draw, bits=3, low=2, high=6)
    assert panel.text.value == "3 bits &amp; more"
    before = panel.image.value
    assert bytes(before).startswith(b"\x89PNG")
    panel.controls["bits"].value = 4
    assert panel.text.value == "4 bits &amp; more"
    assert panel.image.value != before
    slider = panel.controls["bits"]
    assert (slider.min, slider.max, slider.value) == (2, 6, 4)
    assert slider.continuous_update
    assert panel.children[0].children == (slider,)
    assert panel.children[1:] == (panel.text, panel.image)


def test_without_numbers_the_slider_goes_from_1_to_8_and_starts_at_8():
    calls.clear()
    panel = mq.bits_slider(lambda figure, bits: calls.append(bits) or f"{bits}")
    assert calls == [1, 2, 3, 4, 5, 6, 7, 8]
    slider = panel.controls["bits"]
    assert (slider.min, slider.max, slider.value) == (1, 8, 8)
    assert panel.image.layout.width == "648px" and panel.text.value == "8"
    assert panel.size == mq.Panel(draw, bits=W.IntSlider(3, 2, 6)).size == (9, 3)


def test_pictures_drawn_ahead_are_drawn_once_and_the_same():
    calls.clear()
    panel = mq.bits_slider(draw, bits=3, low=2, high=6)
    assert calls == [2, 3, 4, 5, 6]
    slider = W.IntSlider(3, 2, 6)
    other = mq.Panel(draw, ahead=[{"bits": 3}], bits=slider)
    for bits in (6, 2, 3):
        panel.controls["bits"].value = slider.value = bits
        assert panel.text.value == other.text.value
        assert panel.image.value == other.image.value
    assert calls[5:] == [3, 6, 2]  # all by the other panel, which knew 3 alone


def test_an_error_is_raised_at_first_and_shown_later():
    for low, high in ((2, 7), (7, 8)):
        with pytest.raises(ValueError, match="seven"):
            mq.bits_slider(draw, high, low, high)
    slider = W.IntSlider(6, 1, 8)
    panel = mq.Panel(draw, bits=slider)
    slider.value = 7
    assert "This setting failed" in panel.text.value
    assert "ValueError: seven is &lt;bad&gt;" in panel.text.value
    slider.value = 6
    assert panel.text.value == "6 bits &amp; more"


def test_the_height_is_fixed_and_the_text_names_the_controls():
    box = W.Checkbox(True, description="per channel")
    panel = mq.Panel(lambda figure, box: f"{box}", size=(5, 2), box=box)
    assert panel.image.layout.height == "144px" and panel.text.layout.min_height
    assert repr(panel) == "[interactive: per channel; run the notebook to move it]"
    box.value = False
    assert panel.text.value == "False"


VIEW = "application/vnd.jupyter.widget-view+json"


def shown(panel):
    """Return (what a page is sent for a panel, its picture as integers)."""
    data, _ = DisplayFormatter().format(panel)
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    return data, np.array(picture.convert("RGB"), dtype=int)


def pixels(panel):
    picture = Image.open(io.BytesIO(panel.image.value)).convert("RGB")
    return np.array(picture, dtype=int)


def test_a_page_is_sent_the_live_view_and_a_picture_of_the_panel_as_it_stands():
    panel = mq.Panel(draw, size=(4, 2), bits=W.IntSlider(3, 1, 8, description="bits"))
    panel.controls["bits"].value = 5
    data, picture = shown(panel)
    assert set(data) == {"text/plain", "image/png", VIEW}
    assert data[VIEW]["model_id"] == panel.model_id
    assert data["text/plain"] == repr(panel)
    whole = pixels(panel)
    strip = len(picture) - len(whole)  # settings and text stand above
    assert 30 < strip < 60 and picture[:strip].min() < 100
    assert np.abs(picture[strip:] - whole).max() < 32
    panel.controls["bits"].value = 3
    assert np.abs(shown(panel)[1] - picture).max() > 100


def test_what_was_drawn_ahead_is_shown_at_both_ends():
    panel = mq.bits_slider(draw, bits=3, low=2, high=6, size=(4, 2))
    picture = shown(panel)[1]
    half = len(picture) // 2
    ends = picture[half - 200 : half], picture[-200:]
    for end, bits in zip(ends, (2, 6), strict=True):
        panel.controls["bits"].value = bits
        assert np.abs(end - pixels(panel)).max() < 32


def test_the_picture_says_the_settings_and_leaves_out_what_has_no_label():
    labelled = W.FloatSlider(0.5, min=0, max=1, description="share")
    other = W.Text("no label", description="")
    text = lambda figure, **values: "one line"  # noqa: E731
    strips = []
    for controls in ({"a": labelled}, {"a": labelled, "b": other}, {"b": other}):
        panel = mq.Panel(text, size=(4, 1), **controls)
        picture = shown(panel)[1]
        strips.append(picture[: len(picture) - 100])
    assert np.array_equal(strips[0], strips[1])
    assert len(strips[2]) < len(strips[0])


def test_a_long_name_is_cut_for_a_page_and_ipywidgets_7_would_show_the_same():
    boxes = {f"b{n}": W.Checkbox(False, description="x" * 20) for n in range(6)}
    panel = mq.Panel(lambda figure, **values: "", size=(4, 1), **boxes)
    assert len(shown(panel)[0]["text/plain"]) == 111
    assert panel._ipython_display_ is None  # it would be asked first, and show no PNG
