"""Labels at the ends of lines."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

import mnistq_helpers as mq


@pytest.fixture
def axis():
    with plt.style.context(mq.STYLE):
        figure, axis = plt.subplots()
        yield axis
        plt.close(figure)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    "ends", [[0, 1, 2], [5, 5, 5], [3, 2.99, 0], [1, np.nan, 1], [500, 500.1, 499]]
)
def test_labels_stand_right_of_the_lines_ends_and_apart(axis, inverted, ends):
    if inverted:
        axis.invert_xaxis()
    axis.axhline(1)  # without a label
    for n, end in enumerate(ends):
        y = [0.5, n / 2, end] if not inverted else [end, n / 2, 0.5]
        axis.plot(range(3), y, label=f"line {n}")
    mq.label_lines(axis)
    axis.figure.draw_without_rendering()
    assert [t.get_text() for t in axis.texts] == ["line 0", "line 1", "line 2"]
    assert [t.get_color() for t in axis.texts] == [
        line.get_color() for line in axis.get_lines()[1:]
    ]
    boxes = [t.get_window_extent() for t in axis.texts]
    for box, end in zip(boxes, ends, strict=True):
        if np.isfinite(end):
            assert box.x0 > axis.get_window_extent().x0 + 0.9 * axis.bbox.width
    for below, above in pairwise(sorted(boxes, key=lambda box: box.y0)):
        assert above.y0 > below.y0 + 10  # pixels
    assert max(box.x1 for box in boxes) <= axis.figure.bbox.x1
