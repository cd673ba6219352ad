"""Controls with a text and a picture. From notebook 02 on."""

import base64
import html
import io
import textwrap
from pathlib import Path

import ipywidgets as W
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from PIL import Image, ImageDraw, ImageFont

FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


class Panel(W.VBox):
    """Controls, a line of text and a picture: text = draw(figure, **values).

    draw gets an empty matplotlib Figure of size inches and returns the text shown above
    it. controls: ipywidgets with a value, by the name of draw's argument. ahead: dicts
    of values whose pictures are drawn now, once, so that they are shown at once. An
    error in draw is raised now, and shown in the panel when a control moves.
    Attributes: controls (dict), text (W.HTML), image (W.Image), drawn (what ahead gave:
    a list of pairs, values and (PNG, text as HTML)). Used from notebook 02 on.
    """

    def __init__(self, draw, size=(9, 3), ahead=(), **controls):
        self.draw, self.size, self.controls = draw, size, controls
        self.text = W.HTML(layout=W.Layout(min_height="3em"))
        width, height = (f"{72 * inches:.0f}px" for inches in size)
        # The height is fixed so that the page does not jump while a picture is redrawn.
        layout = W.Layout(width=width, height=height, object_fit="contain")
        self.image = W.Image(format="png", layout=layout)
        self.drawn = [(values, self.picture_of(values)) for values in ahead]
        for control in controls.values():
            if hasattr(control, "style"):
                control.style.description_width = "initial"
            control.observe(self._moved, names="value")
        self._redraw()
        wrap = W.Layout(flex_flow="row wrap")  # many switches side by side
        row = W.HBox([*controls.values()], layout=wrap)
        super().__init__([row, self.text, self.image])

    @property
    def values(self):
        """{name: value} of the controls as they stand."""
        return {name: control.value for name, control in self.controls.items()}

    def picture_of(self, values):
        """Return (PNG, text as HTML) for values of the controls, which stay."""
        figure = Figure(figsize=self.size, dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        text = self.draw(figure, **values)
        for axis in figure.axes:
            axis.minorticks_off()  # unlabelled, yet half a millisecond each
        canvas.draw()  # Figure.savefig would lay everything out twice
        png = io.BytesIO()
        quick = {"compress_level": 1}  # larger, sooner
        imsave(png, canvas.buffer_rgba(), format="png", pil_kwargs=quick)
        return png.getvalue(), html.escape(text)

    def _redraw(self):
        values = self.values
        found = [drawing for known, drawing in self.drawn if known == values]
        self.image.value, self.text.value = (
            found[0] if found else self.picture_of(values)
        )

    def _moved(self, change):
        try:
            self._redraw()
        except Exception as error:  # the browser would drop it unseen
            problem = html.escape(f"{type(error).__name__}: {error}")
            self.text.value = f"<b>This setting failed.</b> {problem}"

    def __repr__(self):  # what a screen reader says where nothing runs
        names = self.controls.items()
        labels = ", ".join(getattr(c, "description", "") or n for n, c in names)
        return f"[interactive: {labels}; run the notebook to move it]"

    def still(self):
        """Return a PNG: first and last of what was drawn ahead, or the panel as it is.

        Above each picture stand its settings and its text; 128 colours are enough.
        """
        shown = [self.drawn[0], self.drawn[-1]] if self.drawn else []
        shown = shown or [(self.values, (self.image.value, self.text.value))]
        parts = []
        for values, (png, text) in shown:
            settings = ", ".join(
                f"{control.description} = {said(values[name])}"
                for name, control in self.controls.items()
                if getattr(control, "description", "")
            )
            picture = Image.open(io.BytesIO(png)).convert("RGB")
            lines = [settings, html.unescape(text)]
            parts += [lettering(lines, picture.width), picture]
        whole = Image.fromarray(np.concatenate(parts))
        png = io.BytesIO()
        whole.quantize(128, dither=Image.Dither.NONE).save(png, "png", optimize=True)
        return png.getvalue()

    # ipywidgets 7 shows itself by _ipython_display_, 8 by _repr_mimebundle_. A page
    # takes the live view where a kernel runs, else the picture.
    _ipython_display_ = None

    def _repr_mimebundle_(self, **kwargs):
        text = repr(self)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {
            "text/plain": text if len(text) <= 110 else f"{text[:110]}…",
            "image/png": base64.b64encode(self.still()).decode(),
            "application/vnd.jupyter.widget-view+json": view,
        }


def said(value):
    """Return a control's value in words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def lettering(lines, width):
    """Return lines, wrapped, as a white picture that is width pixels wide."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, width // 7)]
    font = ImageFont.truetype(str(FONT), 13)
    picture = Image.new("RGB", (width, 18 * len(wrapped) + 10), "white")
    ImageDraw.Draw(picture).text((8, 5), "\n".join(wrapped), "black", font)
    return picture


def bits_slider(draw, bits=8, low=1, high=8, size=(9, 3)):
    """Return a Panel with one slider, bits from low to high: text = draw(figure, bits).

    Its pictures are drawn now; run the cell again if what draw reads has changed.
    Used from notebook 02 on.
    """
    slider = W.IntSlider(bits, low, high, description="bits")
    return Panel(draw, size, [{"bits": b} for b in range(low, high + 1)], bits=slider)
