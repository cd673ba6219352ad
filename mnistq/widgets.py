"""Controls with a text and a picture. From notebook 02 on."""

import html
import io

import ipywidgets as W
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave


class Panel(W.VBox):
    """Controls, a line of text and a picture: text = draw(figure, **values).

    draw gets an empty matplotlib Figure of size inches and returns the text shown above
    it. controls: ipywidgets with a value, by the name of draw's argument. ahead: dicts
    of values whose pictures are drawn now, once, so that they are shown at once. An
    error in draw is raised now, and shown in the panel when a control moves.
    Attributes: controls (dict), text (W.HTML), image (W.Image).
    Used from notebook 02 on.
    """

    def __init__(self, draw, size=(9, 3), ahead=(), **controls):
        self.draw, self.size, self.controls = draw, size, controls
        self.text = W.HTML(layout=W.Layout(min_height="3em"))
        width, height = (f"{72 * inches:.0f}px" for inches in size)
        # The height is fixed so that the page does not jump while a picture is redrawn.
        layout = W.Layout(width=width, height=height, object_fit="contain")
        self.image = W.Image(format="png", layout=layout)
        self.drawn = [(values, self._drawing(values)) for values in ahead]
        for control in controls.values():
            if hasattr(control, "style"):
                control.style.description_width = "initial"
            control.observe(self._moved, names="value")
        self._redraw()
        wrap = W.Layout(flex_flow="row wrap")  # many switches side by side
        row = W.HBox([*controls.values()], layout=wrap)
        super().__init__([row, self.text, self.image])

    def _drawing(self, values):
        """Return (PNG, text as HTML)."""
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
        values = {name: control.value for name, control in self.controls.items()}
        found = [drawing for known, drawing in self.drawn if known == values]
        drawing = found[0] if found else self._drawing(values)
        self.image.value, self.text.value = drawing

    def _moved(self, change):
        try:
            self._redraw()
        except Exception as error:  # the browser would drop it unseen
            problem = html.escape(f"{type(error).__name__}: {error}")
            self.text.value = f"<b>This setting failed.</b> {problem}"

    def __repr__(self):  # what a reader sees where nothing runs
        names = self.controls.items()
        labels = ", ".join(getattr(c, "description", "") or n for n, c in names)
        return f"[interactive: {labels}; run the notebook to move it]"


def bits_slider(draw, bits=8, low=1, high=8, size=(9, 3)):
    """Return a Panel with one slider, bits from low to high: text = draw(figure, bits).

    Its pictures are drawn now; run the cell again if what draw reads has changed.
    Used from notebook 02 on.
    """
    slider = W.IntSlider(bits, low, high, description="bits")
    return Panel(draw, size, [{"bits": b} for b in range(low, high + 1)], bits=slider)
