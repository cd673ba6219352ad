"""One look for all figures: `plt.style.use(mq.STYLE)`. From notebook 01 on."""

from itertools import pairwise

import numpy as np
from cycler import cycler

ACCENT = "#c2410c"  # what the title talks about; all else is drawn in greys
SECOND = "#1d4ed8"  # where two things must be told apart
GREYS = ["#3f3f3f", "#7a7a7a", "#a3a3a3", "#5c5c5c"]
STYLE = {
    "figure.figsize": (6, 3.2),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=GREYS) + cycler(linestyle=["-", "--", "-.", ":"]),
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "image.cmap": "gray_r",
}


def label_lines(axis, gap=11):
    """Write the label of each of the axis's lines at its right end, in its colour.

    Labels that would lie on one another are moved apart, to gap points. To be called
    last, when the limits of the axis stand. Used from notebook 01 on.
    """
    axis.get_ylim()  # matplotlib fits the limits only when they are asked for
    lines = [x for x in axis.get_lines() if not x.get_label().startswith("_")]
    ends = []
    for line in lines:
        points = line.get_xydata()
        points = points[np.isfinite(points).all(1)]
        ends.append(points[axis.transData.transform(points)[:, 0].argmax()])
    to_points = 72 / axis.figure.dpi
    wanted = axis.transData.transform(ends)[:, 1] * to_points
    order = np.argsort(wanted)
    placed = wanted.copy()
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    placed -= np.mean(placed - wanted)  # up for one is down for another
    for line, end, shift in zip(lines, ends, placed - wanted, strict=True):
        axis.annotate(
            line.get_label(),
            end,
            (6, shift),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            annotation_clip=False,
        )
