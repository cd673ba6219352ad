"""Ten digits as two hands draw them: strokes, and the ink that a round pen leaves."""

import math
from itertools import pairwise

import torch


def arc(x, y, width, height, start, end):
    """Points of an ellipse around (x, y), from start to end in degrees."""
    angles = [math.radians(start + (end - start) * i / 24) for i in range(25)]
    return [(x + width * math.cos(a), y + height * math.sin(a)) for a in angles]


# Each digit is a list of strokes, a stroke a list of points (x, y), 0 to 1 high.
ROUND = {
    0: [arc(0.3, 0.5, 0.3, 0.5, -90, 270)],
    1: [[(0.1, 0.2), (0.3, 0), (0.3, 1)]],
    2: [[*arc(0.3, 0.28, 0.28, 0.28, -170, 30), (0.05, 1), (0.62, 1)]],
    3: [arc(0.28, 0.25, 0.28, 0.25, -150, 90) + arc(0.28, 0.75, 0.32, 0.25, -90, 150)],
    4: [[(0.1, 0), (0.02, 0.55), (0.6, 0.55)], [(0.48, 0.05), (0.45, 1)]],
    5: [[(0.58, 0), (0.12, 0), (0.08, 0.42), *arc(0.28, 0.68, 0.32, 0.32, -120, 140)]],
    6: [arc(0.6, 0.55, 0.55, 0.55, -95, -180) + arc(0.32, 0.7, 0.28, 0.3, -180, 180)],
    7: [[(0, 0.03), (0.6, 0), (0.2, 1)]],
    8: [arc(0.3, 0.25, 0.24, 0.25, 90, 450) + arc(0.3, 0.75, 0.3, 0.25, -90, 270)],
    9: [[*arc(0.3, 0.28, 0.28, 0.28, 0, -360), (0.56, 0.5), (0.45, 1)]],
}
QUICK = {
    0: [arc(0.3, 0.5, 0.38, 0.5, -60, 300)],
    1: [[(0.3, 0), (0.25, 1)]],
    2: [
        [
            *arc(0.3, 0.25, 0.3, 0.25, -180, 20),
            *arc(0.1, 0.88, 0.12, 0.12, -60, -300),
            (0.65, 0.98),
        ]
    ],
    3: [
        [(0.05, 0.02), (0.55, 0.02), (0.28, 0.4), *arc(0.26, 0.7, 0.33, 0.3, -80, 150)]
    ],
    4: [[(0.45, 0), (0.02, 0.62), (0.65, 0.62)], [(0.45, 0.3), (0.45, 1)]],
    5: [
        [(0.12, 0), (0.08, 0.42), *arc(0.28, 0.68, 0.32, 0.32, -120, 140)],
        [(0.12, 0), (0.6, 0)],
    ],
    6: [[(0.5, 0), (0.15, 0.45), *arc(0.32, 0.7, 0.26, 0.3, -160, 200)]],
    7: [[(0, 0.03), (0.6, 0), (0.25, 1)], [(0.15, 0.5), (0.55, 0.5)]],
    8: [
        [
            (0.55, 0.1),
            *arc(0.3, 0.22, 0.25, 0.22, -30, -200),
            (0.5, 0.6),
            *arc(0.3, 0.78, 0.28, 0.22, -20, 200),
            (0.2, 0.5),
            (0.55, 0.1),
        ]
    ],
    9: [[*arc(0.3, 0.25, 0.28, 0.25, -10, -330), (0.56, 0.2), (0.55, 1)]],
}
HANDS = {"round": ROUND, "quick": QUICK}


def inked(strokes, high, pen, size=112):
    """Return the ink, float64 [size, size], of strokes so many pixels high."""
    axis = torch.arange(size).double() + 0.5
    here = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    ink = torch.zeros(size, size).double()
    for stroke in strokes:
        points = size / 2 + high * (torch.tensor(stroke).double() - 0.5)
        for a, b in pairwise(points):
            along = (here - a) @ (b - a) / (b - a).square().sum().clamp(min=1e-9)
            nearest = a + along.clamp(0, 1)[..., None] * (b - a)
            distance = (here - nearest).square().sum(-1).sqrt()
            ink = torch.maximum(ink, ((pen + 1) / 2 - distance).clamp(0, 1))
    return (255 * ink).round() / 255
