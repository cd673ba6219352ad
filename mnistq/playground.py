"""A field to draw in, and what a row of networks reads there. Notebook 13."""

from collections import namedtuple
from pathlib import Path

import anywidget
import ipywidgets as W
import torch
import traitlets

from mnistq.data import MEAN, STD
from mnistq.drawing import prepare_digit
from mnistq.figures import ACCENT
from mnistq.widgets import Panel

FIELD = 112  # pixels of a side of the field
HEAD, ROW = 1.0, 0.25  # inches above the rows of answers, and of each
SCRIPTS = Path(__file__).parent / "js"
EMPTY = "The field is empty: draw a digit."
Kept = namedtuple("Kept", "picture label answers")  # [28, 28], digit, {name: digit}


class Drawing(anywidget.AnyWidget):
    """A field to draw a digit in: mouse, finger or keys, pen width, undo, clear.

    value: its ink, a byte for each of 112 x 112 pixels, row by row. The page owns the
    drawing: it sends the whole, one at a time, and the latest last, so that nothing is
    lost while the kernel is busy. Used in notebook 13.
    """

    _esm = "\n".join(
        (SCRIPTS / f"{name}.js").read_text("utf-8") for name in ("field", "widget")
    )
    value = traitlets.CBytes(bytes(FIELD * FIELD)).tag(sync=True)  # the page only reads
    puts = traitlets.Int(0).tag(sync=True)

    def __init__(self):
        super().__init__()
        self.on_msg(self._drawn)

    def _drawn(self, _, content, buffers):
        try:
            self.value = buffers[0]
        finally:
            self.send({"kind": "read"})

    def put(self, ink):
        """Show ink, [112, 112] from 0 to 1, in place of the drawing."""
        if tuple(ink.shape) != (FIELD, FIELD):
            raise ValueError(f"the ink is {tuple(ink.shape)}: give [{FIELD}, {FIELD}].")
        with self.hold_sync():
            self.value = (255 * ink).round().to(torch.uint8).numpy().tobytes()
            self.puts += 1

    @property
    def ink(self):
        """The drawing, float32 [112, 112], 0 (paper) to 1 (ink)."""
        ink = torch.frombuffer(bytearray(self.value), dtype=torch.uint8)
        return ink.view(FIELD, FIELD) / 255


def network_input(picture):
    """Return [1, 1, 28, 28], normalised as MNIST, of a picture from 0 to 1."""
    return (picture[None, None] - MEAN) / STD


class Playground(Panel):
    """A field, and what networks, {name: images -> scores}, read in it, all at once.

    Attributes: drawing (Drawing); answers, {name: digit}, none of an empty field; kept,
    a list of Kept, one for each drawing that was labelled. Used in notebook 13.
    """

    def __init__(self, networks):
        self.networks, self.drawing = networks, Drawing()
        self.kept, self.answers = [], {}
        size = (4.6, HEAD + ROW * len(networks))
        super().__init__(self._read, size, drawing=self.drawing)
        self.image.layout.max_width = "100%"
        labels = [W.Button(description=str(digit)) for digit in range(10)]
        for digit, button in enumerate(labels):
            button.layout = W.Layout(width="40px", height="36px")
            button.on_click(lambda _, digit=digit: self.keep(digit))
        forget = W.Button(description="forget the last")
        forget.on_click(lambda _: self.forget())
        self.tally = W.HTML(layout=W.Layout(min_height="4em"))
        self._count()
        wrap = W.Layout(flex_flow="row wrap", align_items="center")
        keep = W.HBox([W.HTML("<b>Keep it as a</b>"), *labels, forget], layout=wrap)
        beside = W.Layout(flex="1 1 250px", min_width="0", margin="0 0 0 12px")
        answers = W.VBox([self.text, self.image], layout=beside)
        both = W.HBox([self.drawing, answers], layout=W.Layout(flex_flow="row wrap"))
        self.children = [both, keep, self.tally]

    @torch.inference_mode()
    def _read(self, figure, drawing):
        picture, self.answers = prepare_digit(self.drawing.ink), {}
        if not picture.any():
            return EMPTY
        x = network_input(picture)
        scores = {name: net(x)[0].softmax(0) for name, net in self.networks.items()}
        self.answers = {name: int(row.argmax()) for name, row in scores.items()}
        draw_answers(figure, picture, scores)
        return said(self.answers)

    def keep(self, label):
        """Keep the drawing with its label; once more, and the label is corrected."""
        if not self.answers:
            self.tally.value = f"<b>Nothing to keep.</b> {EMPTY}"
            return
        picture = prepare_digit(self.drawing.ink)
        if self.kept and torch.equal(self.kept[-1].picture, picture):
            self.kept.pop()
        self.kept.append(Kept(picture, label, self.answers))
        self._count()

    def forget(self):
        """Forget the drawing that was kept last."""
        del self.kept[-1:]
        self._count()

    def _count(self):
        if not self.kept:
            self.tally.value = "No digit is kept yet."
            return
        right = {
            name: sum(kept.answers[name] == kept.label for kept in self.kept)
            for name in self.networks
        }
        counts = ", ".join(f"{name}: {count}" for name, count in right.items())
        self.tally.value = (
            f"<b>{len(self.kept)} kept</b>, the last as a {self.kept[-1].label}. "
            f"Right so far: {counts}."
        )


def said(answers):
    """Return in words what {name: digit} holds, the first network's answer first."""
    (first, digit), *others = answers.items()
    unlike = [f"{name} ({answer})" for name, answer in others if answer != digit]
    alike = len(others) - len(unlike)
    text = f"{first} reads {digit}, as do {alike} of the {len(others)} others."
    return f"{text} Not so: {', '.join(unlike)}." if unlike else text


def draw_answers(figure, picture, scores):
    """Draw the picture that is read and a row of ten scores for each network."""
    figure.set_layout_engine("none")  # the automatic one is slow
    height = HEAD + ROW * len(scores)
    seen = figure.add_axes((0.02, 1 - 0.72 / height, 0.2, 0.72 / height))
    seen.imshow(picture.numpy(), "Greys", vmin=0, vmax=1, interpolation="nearest")
    seen.axis("off")
    figure.text(0.23, 1 - 0.2 / height, "what is read", fontsize=9, va="center")
    axis = figure.add_axes((0.26, 0.04 / height, 0.54, ROW * len(scores) / height))
    shares = torch.stack([*scores.values()])
    axis.imshow(shares.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    answers = shares.argmax(1).tolist()
    for row, digit in enumerate(answers):
        color = "k" if digit == answers[0] else ACCENT
        text = f"{digit}  {float(shares[row, digit]):.0%}"
        axis.text(9.8, row, text, va="center", color=color, weight="bold")
    axis.set_yticks(range(len(scores)), [*scores], fontsize=9)
    axis.set_xticks(range(10), range(10))
    axis.tick_params(length=0)
    axis.xaxis.tick_top()
    axis.grid(False)
    axis.spines[:].set_visible(False)


def tiles(codes, rows):
    """Return one picture of the maps of codes, [C, H, W], in rows, a line between."""
    c, h, w = codes.shape
    maps = torch.nn.functional.pad(codes, (0, 1, 0, 1), value=float(codes.max()) / 2)
    maps = maps.reshape(rows, c // rows, h + 1, w + 1).permute(0, 2, 1, 3)
    return maps.reshape(rows * (h + 1), -1)[:-1, :-1]


def draw_layers(figure, codes):
    """Draw the codes of one picture that enter Net's four layers, and its ten scores.

    codes: what QuantizedNet.codes returns.
    """
    shapes = {"conv1": (1, 28, 28, 1), "conv2": (20, 12, 12, 4)}
    shapes |= {"fc1": (50, 4, 4, 5), "fc2": (1, 20, 25, 1)}
    figure.set_layout_engine("none")
    for place, (name, (*shape, rows)) in enumerate(shapes.items()):
        x = codes[name][0].float()
        axis = figure.add_axes((0.01 + 0.2 * place, 0.05, 0.18, 0.75))
        axis.imshow(tiles(x.reshape(shape), rows).numpy(), cmap="Greys", vmin=0)
        axis.set_title(f"enters {name}\n0 to {int(x.max())}", fontsize=9)
        axis.axis("off")
    scores = codes["output"][0].tolist()
    axis = figure.add_axes((0.82, 0.14, 0.17, 0.58))
    colors = [ACCENT if score == max(scores) else "silver" for score in scores]
    axis.bar(range(10), scores, color=colors)
    axis.set(xticks=range(10), yticks=[], ylim=(0, 255))
    axis.set_title(f"the scores\n{min(scores)} to {max(scores)}", fontsize=9)
    axis.tick_params(length=0, labelsize=8)
    axis.grid(False)
