"""The field and the row of answers, without a browser."""

import pytest
import torch
from hands import HANDS, inked
from matplotlib.figure import Figure

import mnistq_helpers as mq
from mnistq.playground import draw_answers, said

SEVEN = inked(HANDS["quick"][7], 70, 6)
THREE = inked(HANDS["round"][3], 70, 6)


@pytest.fixture
def playground(net, ranges):
    return mq.Playground(
        {"float": net, "8 bits": mq.quantize_net(net, ranges)}
        | {"1 bit": mq.quantize_net(net, ranges, 1, 1)}
    )


def test_what_is_put_in_the_field_comes_out():
    drawing = mq.Drawing()
    assert not drawing.ink.any() and drawing.ink.shape == (mq.FIELD, mq.FIELD)
    drawing.put(SEVEN)
    assert torch.allclose(drawing.ink.double(), SEVEN, atol=1e-6)
    assert drawing.puts == 1
    with pytest.raises(ValueError, match=r"\(28, 28\): give \[112, 112\]"):
        drawing.put(torch.zeros(28, 28))


def test_every_drawing_of_the_page_is_answered(monkeypatch):
    """Else the page would wait for ever, and send nothing more."""
    drawing, sent = mq.Drawing(), []
    monkeypatch.setattr(drawing, "send", lambda content: sent.append(content))
    ink = (255 * SEVEN).to(torch.uint8).numpy().tobytes()
    drawing._handle_custom_msg({"kind": "drawn"}, [memoryview(ink)])
    assert drawing.value == ink and drawing.puts == 0
    drawing.observe(lambda change: 1 / 0, "value")
    with pytest.raises(ZeroDivisionError):
        drawing._drawn(drawing, {"kind": "drawn"}, [memoryview(bytes(len(ink)))])
    assert sent == [{"kind": "read"}] * 2


def test_an_empty_field_is_empty(playground):
    assert playground.text.value.startswith("The field is empty")
    assert playground.answers == {} and playground.kept == []
    blank = playground.image.value
    playground.drawing.put(SEVEN)
    assert playground.text.value.startswith("float reads 7, as do 1 of the 2 others.")
    assert playground.answers["8 bits"] == 7 and playground.image.value != blank
    playground.drawing.put(0 * SEVEN)
    assert playground.text.value.startswith("The field is empty")
    assert playground.answers == {} and playground.image.value == blank


def test_drawings_are_kept_and_counted(playground):
    buttons = {b.description: b for b in playground.children[1].children[1:]}
    assert [*buttons] == [*"0123456789", "forget the last"]
    buttons["7"].click()
    assert "Nothing to keep" in playground.tally.value and playground.kept == []
    playground.drawing.put(SEVEN)
    buttons["1"].click()
    assert "float: 0, 8 bits: 0" in playground.tally.value
    buttons["7"].click()  # the same drawing: the label is corrected
    assert [kept.label for kept in playground.kept] == [7]
    assert "float: 1, 8 bits: 1, 1 bit: " in playground.tally.value
    playground.drawing.put(THREE)
    buttons["3"].click()
    assert "2 kept" in playground.tally.value
    assert "float: 2, 8 bits: 2" in playground.tally.value
    assert torch.equal(playground.kept[1].picture, mq.prepare_digit(THREE))
    buttons["forget the last"].click()
    assert [kept.label for kept in playground.kept] == [7]
    buttons["forget the last"].click()
    buttons["forget the last"].click()
    assert playground.tally.value == "No digit is kept yet."


def test_what_differs_from_the_first_network_is_named():
    assert said({"a": 3, "b": 3, "c": 3}) == "a reads 3, as do 2 of the 2 others."
    text = "a reads 3, as do 1 of the 3 others. Not so: b (8), d (0)."
    assert said({"a": 3, "b": 8, "c": 3, "d": 0}) == text


def test_a_format_of_notebook_12_is_a_row_like_any_other(net):
    form = mq.FORMATS["NVFP4"]
    weights = {k: form.round(v.weight) for k, v in mq.read_layers(net).items()}
    rounded = mq.rounded_net(net, weights, form)
    playground = mq.Playground({"float": net, "NVFP4": rounded})
    playground.drawing.put(SEVEN)
    assert playground.answers == {"float": 7, "NVFP4": 7}


@pytest.mark.parametrize("count", (2, 17))
def test_a_row_is_a_quarter_inch_high_however_many_there_are(net, count):
    playground = mq.Playground({f"{number}": net for number in range(count)})
    playground.drawing.put(SEVEN)
    assert playground.image.layout.height == f"{72 + 18 * count}px"
    figure = Figure(figsize=(4.6, 1 + count / 4))
    draw_answers(figure, *pictured(net, count))
    picture, rows = (axis.get_position() for axis in figure.axes)
    inches = figure.get_figheight()
    assert rows.height * inches == pytest.approx(count / 4)
    assert picture.height * inches == pytest.approx(0.72) and rows.y0 > 0
    assert picture.y1 == pytest.approx(1) and rows.y1 < picture.y0


def pictured(net, count):
    """Return what draw_answers draws: the picture and the scores of count networks."""
    picture = mq.prepare_digit(SEVEN)
    scores = net(mq.network_input(picture))[0].detach().softmax(0)
    return picture, {f"{number}": scores for number in range(count)}


def test_codes_are_drawn_for_each_layer(net, ranges):
    figure = Figure()
    x = mq.network_input(mq.prepare_digit(SEVEN))
    codes = mq.quantize_net(net, ranges, 4, 4).codes(x)
    mq.draw_layers(figure, codes)
    titles = [axis.get_title().split("\n")[0] for axis in figure.axes]
    layers = ["conv1", "conv2", "fc1", "fc2"]
    assert titles == [*(f"enters {name}" for name in layers), "the scores"]
    first = figure.axes[0].images[0].get_array()
    assert (torch.as_tensor(first.data) == codes["conv1"][0, 0]).all()
    heights = [bar.get_height() for bar in figure.axes[-1].patches]
    assert heights == codes["output"][0].tolist()
