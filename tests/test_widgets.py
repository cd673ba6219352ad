"""Section 5: a control moves, the text and the picture change, errors are shown."""

import pytest

import mnistq_helpers as mq


def draw(figure, bits):
    figure.subplots().plot([0, bits])
    if bits == 7:
        raise ValueError("seven is <bad>")
    return f"{bits} bits & more"


def test_the_slider_redraws_text_and_picture():
    panel = mq.bits_slider(draw, bits=3, low=2, high=7)
    assert panel.text.value == "3 bits &amp; more"
    before = panel.image.value
    assert bytes(before).startswith(b"\x89PNG")
    panel.controls["bits"].value = 4
    assert panel.text.value == "4 bits &amp; more"
    assert panel.image.value != before
    slider = panel.controls["bits"]
    assert (slider.min, slider.max, slider.value) == (2, 7, 4)
    assert slider.continuous_update
    assert not mq.bits_slider(draw, live=False).controls["bits"].continuous_update
    assert panel.children[0].children == (slider,)
    assert panel.children[1:] == (panel.text, panel.image)


def test_an_error_is_raised_at_first_and_shown_later():
    with pytest.raises(ValueError, match="seven"):
        mq.bits_slider(draw, bits=7)
    panel = mq.bits_slider(draw, bits=6)
    panel.controls["bits"].value = 7
    assert "This setting failed" in panel.text.value
    assert "ValueError: seven is &lt;bad&gt;" in panel.text.value
    panel.controls["bits"].value = 6
    assert panel.text.value == "6 bits &amp; more"


def test_the_height_is_fixed_and_the_text_names_the_controls():
    box = mq.W.Checkbox(True, description="per channel")
    panel = mq.Panel(lambda figure, box: f"{box}", size=(5, 2), box=box)
    assert panel.image.layout.height == "144px" and panel.text.layout.min_height
    assert repr(panel) == "[interactive: per channel; run the notebook to move it]"
    box.value = False
    assert panel.text.value == "False"
