"""A drawing or a photograph made as MNIST's pictures were. Notebook 13."""

import math

import torch

BOX = 20  # pixels of the longer side of a digit of MNIST
FINE = 4 * BOX  # the grid on which strokes are made wider or narrower
# 98 % of the test digits lie between the first two; the third is their median.
NARROW, WIDE, USUAL = 1.5, 4.3, 2.3  # widths of a stroke, in MNIST's pixels
TIE = 1e-6  # what ends in .5 but for the order of a sum is rounded up everywhere


def prepare_digit(ink):
    """Return float32 [28, 28], the picture that MNIST's makers would have made of ink.

    ink: [H, W] of any size, 0 (paper) to 1 (ink). What is not 0 is cut out and scaled
    until its longer side has 20 pixels; a stroke narrower than 1.5 or wider than 4.3
    of them is brought towards 2.3; the centre of mass comes to the middle. Ink from 0
    to 1 in steps of 1 / 255, all 0 for an empty picture. 98 % of MNIST's own pictures
    stay as they are. Raises ValueError for other shapes or values.
    Source: LeCun, Cortes, Burges, "The MNIST database". Taught in notebook 13.
    """
    ink = torch.as_tensor(ink).double()
    if ink.dim() != 2 or not bool(((ink >= 0) & (ink <= 1)).all()):
        raise ValueError(
            f"the picture is {tuple(ink.shape)}, not [H, W] of 0 (paper) to 1 (ink)."
        )
    result = torch.zeros(28, 28)
    if not ink.any():
        return result
    fine = with_usual_strokes(scaled(cut_out(ink), FINE))
    small = scaled(cut_out(fine), BOX)
    (h, w), mass = small.shape, small.sum()
    middle_y = float((small.sum(1) * torch.arange(h)).sum() / mass)
    middle_x = float((small.sum(0) * torch.arange(w)).sum() / mass)
    top = min(max(round(14 - middle_y + TIE), 0), 28 - h)
    left = min(max(round(14 - middle_x + TIE), 0), 28 - w)
    result[top : top + h, left : left + w] = (255 * small + TIE).round() / 255
    return result


def cut_out(ink):
    """Return the part of ink, [H, W], that spans all that is not 0."""
    rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def area_average(n, m):
    """Return A, float64 [m, n]: y = A x scales n pixels to m, each a mean.

    A[j, i] = m / n * |[n/m j, n/m (j + 1)] and [i, i + 1]|, the share that old pixel i
    has in what new pixel j covers. Taught in notebook 13.
    """
    edges = torch.arange(m + 1).double() * n / m
    pixel = torch.arange(n)
    end = torch.minimum(edges[1:, None], pixel + 1)
    start = torch.maximum(edges[:-1, None], pixel)
    return (end - start).clamp(min=0) * m / n


def scaled(ink, side):
    """Return ink, [H, W], with a longer side of so many pixels, each a mean."""
    h, w = (max(1, round(side * n / max(ink.shape))) for n in ink.shape)
    return area_average(len(ink), h) @ ink @ area_average(ink.shape[1], w).T


def stroke_width(ink):
    """Return 2 * area / length of the edge: a stroke's mean width, in pixels.

    A stroke of length l and width w, l much longer, has the area l * w and an edge of
    2 * l. Of grey ink, [H, W], the area is its sum and the edge the sum of its slope.
    """
    ink = torch.nn.functional.pad(ink, (1, 1, 1, 1))
    down, right = ink.diff(dim=0), ink.diff(dim=1)
    slope = (down[:, 1:] + down[:, :-1]).square()
    slope += (right[1:] + right[:-1]).square()
    return float(4 * ink.sum() / slope.sqrt().sum())


def seen_width(ink):
    """Return the strokes' width in MNIST's pixels; ink: [H, W], FINE pixels long.

    Seen through a window of one such pixel, or the squares of MNIST's own pictures
    would make stairs, whose edge is too long.
    """
    window = FINE // BOX
    seen = torch.nn.functional.pad(ink, (window,) * 4)[None]
    seen = torch.nn.functional.avg_pool2d(seen, window, 1)[0]
    return stroke_width(seen) / window


def with_usual_strokes(ink):
    """Return ink, [H, W] with a longer side of FINE, with strokes as MNIST has them."""
    width = seen_width(ink)
    if NARROW <= width <= WIDE:
        return ink
    # The whole grows with its strokes: width + 2 r of BOX + 2 r is as USUAL of BOX.
    radius = (USUAL - width) * FINE / (BOX - USUAL) / 2
    ink = torch.nn.functional.pad(ink, (math.ceil(abs(radius)),) * 4)
    # Nothing vanishes: any shape has room for a circle of radius area / edge.
    return thickened(ink, radius) if radius > 0 else 1 - thickened(1 - ink, -radius)


def thickened(ink, radius):
    """Return ink, [H, W], with all that is within radius pixels of ink; soft edges."""
    result, r = ink.clone(), math.ceil(radius)
    padded = torch.nn.functional.pad(ink, (r, r, r, r))
    for y in range(2 * r + 1):
        for x in range(2 * r + 1):
            share = radius + 0.5 - math.sqrt((y - r) ** 2 + (x - r) ** 2)
            if share > 0:
                part = padded[y : y + len(ink), x : x + ink.shape[1]]
                torch.maximum(result, min(share, 1.0) * part, out=result)
    return result
