"""Digits out of photographs, as MNIST has them. Notebook 11."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import ndimage

from mnistq.data import MEAN, STD
from mnistq.drawing import prepare_digit

SIDE = 800  # pixels of the longer side on which a picture is read, at most
LEAST = 8  # pixels: a digit is at least as high
COARSE = 160  # pixels of the longer side on which the strokes' colour is looked for
SHADOW = 0.3  # of the brightest paper: none is darker
FAINT = 0.08  # of the paper's light: ink takes away more
HALF = 0.4  # of the usual ink, or a little less: so that thin strokes hang together
EIGHT = np.ones((3, 3))  # pixels that touch at a corner belong together


def read_digits(source):
    """Return the digits of a picture as mnist gives them: float32 [N, 1, 28, 28].

    In reading order: from the upper line to the lowest, from left to right.
    source, errors: as in digit_stages. Taught in notebook 11.
    """
    return digit_stages(source)["digits"]


def digit_stages(source):
    """Return {"picture", "paper", "ink", "pieces", "digits"}: the way of read_digits.

    picture: grey in [0, 1], [H, W], its longer side at most SIDE pixels; ink is dark.
    paper: the same without ink. ink: 1 - picture / paper, which uneven light does not
    change, over its usual strength; in [0, 1]. pieces: the number of the digit to which
    a pixel belongs, from 1, and 0 elsewhere. digits: each piece's ink by prepare_digit,
    normalised: float32 [N, 1, 28, 28].
    source: the path of a picture (PNG, JPEG, ...), a PIL image, or an array or tensor,
    [H, W], [H, W, channels], [channels, H, W] or flat and square, of bytes, of 0 to 1,
    of 0 to 255, or normalised as mnist's. Grey, RGB or RGBA, dark ink on bright paper
    or the reverse; of an animation, the first picture. The paper may be ruled if its
    lines are much fainter than the pen. Digits must not touch each other. What looks
    like a digit is one: letters and drawings give wrong digits, not an error. Raises
    ValueError for what is no picture, and where no digit is found. Taught in notebook
    11.
    """
    picture = dark_on_bright(grey_picture(source))
    smooth = ndimage.gaussian_filter(picture, max(picture.shape) / 300)
    paper = without_ink(smooth)
    ink = 1 - smooth / paper
    ink = ink - np.median(ink)
    marks = inner_ink(ink)
    ink = (ink / np.percentile(ink[marks], 80)).clip(0, 1)
    pieces = find_pieces(ink * marks)
    near = ndimage.grey_dilation(pieces, (3, 3))  # with a digit's soft edge
    ink = np.where(ink > 0.2, ink, 0)
    cut = [np.where(near == n, ink, 0) for n in range(1, pieces.max() + 1)]
    digits = torch.stack([prepare_digit(one) for one in cut])[:, None]
    stages = {"picture": picture, "paper": paper, "ink": ink, "pieces": pieces}
    return stages | {"digits": (digits - MEAN) / STD}


def grey_picture(source):
    """Return what source shows as grey values in [0, 1], float64 [H, W].

    The longer side has at most SIDE pixels. A transparent picture lies on white paper
    if what is drawn is dark, and on black if it is bright.
    """
    if isinstance(source, str | Path):
        try:
            with Image.open(source) as file:
                return grey_picture(file.copy())
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{source} cannot be opened as a picture: {error}"
            ) from error
    image = source if isinstance(source, Image.Image) else image_of(source)
    image = ImageOps.exif_transpose(image)  # as the camera was held
    if image.mode.startswith(("I", "F")):  # numbers of 16 or 32 bits
        image = image_of(image)
    image = image.convert("RGBA")
    image.thumbnail((SIDE, SIDE))
    *colours, opaque = np.asarray(image, float).transpose(2, 0, 1) / 255
    if not opaque.any():
        raise ValueError("the picture is transparent everywhere: nothing is on it.")
    grey = np.average(colours, axis=0, weights=(0.299, 0.587, 0.114))
    under = float(np.average(grey, weights=opaque) < 0.5)
    return grey * opaque + under * (1 - opaque)


def image_of(values):
    """Return the PIL image of an array or tensor; its numbers as in digit_stages."""
    if torch.is_tensor(values):
        values = values.detach().cpu().numpy()
    try:
        x = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a {type(values).__name__} is no picture: {error}") from error
    if x.ndim == 4 and len(x) > 1:
        raise ValueError(f"an array of shape {x.shape} is {len(x)} pictures: give one.")
    x = x.squeeze()
    if x.ndim == 1 and math.isqrt(x.size) ** 2 == x.size:
        x = x.reshape(math.isqrt(x.size), -1)
    if x.ndim == 3 and x.shape[0] <= 4 < x.shape[2]:
        x = np.moveaxis(x, 0, -1)
    channels = x.shape[2] if x.ndim == 3 else 1
    if x.ndim not in (2, 3) or channels > 4 or min(x.shape[:2]) < LEAST:
        raise ValueError(
            f"an array of shape {tuple(np.shape(values))} is no picture: give one of "
            f"[H, W], [H, W, channels] or [channels, H, W], {LEAST} pixels or more."
        )
    if x.min() < 0:
        x = x * STD + MEAN
    if not (np.isfinite(x).all() and x.min() > -1e-3 and x.max() <= 65535):
        raise ValueError(
            "the picture's numbers are neither 0 to 1, 0 to 255 nor normalised as "
            f"mnist's: they go from {x.min():.4g} to {x.max():.4g}."
        )
    x = x / (1 if x.max() <= 1.001 else 255 if x.max() <= 255 else 65535)
    return Image.fromarray((255 * x.clip(0, 1)).round().astype(np.uint8))


def dark_on_bright(grey):
    """Return the picture, or its negative if the strokes are what is bright.

    Strokes are narrow, the paper between them is wide: so what differs much from its
    surroundings is ink. The edge of a page or a shadow differs as much on both sides.
    """
    factor = max(1, max(grey.shape) / COARSE)
    small = ndimage.zoom(ndimage.uniform_filter(grey, int(factor)), 1 / factor, order=1)
    differs = small - ndimage.gaussian_filter(small, max(2.5, max(small.shape) / 32))
    y, x = (max(1, n // 10) for n in small.shape)  # without what lies beside the paper
    differs = differs[y:-y, x:-x]
    return grey if (differs * np.abs(differs)).sum() < 0 else 1 - grey


def without_ink(picture):
    """Return the paper's brightness at each pixel, [H, W].

    A closing: the brightest in a disc wider than any stroke, then the darkest of these.
    What is dark and narrow goes; slopes and the edges of shadows stay. What is darker
    than any shadow is not paper, however wide it is.
    """
    radius = min(picture.shape) // 8
    paper = np.pad(picture, 2 * radius, mode="edge")
    for brightest_or_darkest in ndimage.grey_dilation, ndimage.grey_erosion:
        left, r = radius, 1
        while left:  # a disc is a sum of rings: each closes the gaps of the next
            paper = brightest_or_darkest(paper, footprint=ring(min(r, left)))
            left, r = left - min(r, left), 2 * r
    paper = paper[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    return paper.clip(max(SHADOW * paper.max(), 1 / 255), 1)


def ring(r):
    """Return bool [2 r + 1, 2 r + 1]: eight points on a circle, and its middle."""
    points = np.zeros((2 * r + 1, 2 * r + 1), bool)
    a, b = round(r - r / math.sqrt(2)), round(r + r / math.sqrt(2))
    points[[0, a, a, r, r, r, b, b, -1], [r, a, b, 0, r, -1, a, b, r]] = True
    return points


def inner_ink(ink):
    """Return where there is ink, bool [H, W], without what comes in over the edge.

    Ink is darker than what is around it, and so a wide shadow is none. Over the edge
    come the table and a thumb; but if all of the ink touches the edge, the picture was
    cut out along the digit. Raises ValueError for no ink.
    """
    around = ndimage.uniform_filter(ink.clip(0), min(ink.shape) // 4)
    around = around.clip(0, ink.max() / 2)  # a shadow; what is darker is a blot
    noise = np.median(np.abs(ink))
    marks = ink - around > max(FAINT, 6 * noise)  # 4 deviations
    labels, _ = ndimage.label(marks, EIGHT)
    inside = marks & ~np.isin(labels, labels[rim(ink, max(ink.shape))])
    marks = inside if inside.sum() >= LEAST else marks
    if marks.sum() < LEAST:
        raise ValueError(
            "the picture is empty: nothing on it is darker than its paper."
        )
    return marks


def rim(picture, part):
    """Return bool [H, W]: the rim, as wide as a part of the longer side."""
    wide = max(1, max(picture.shape) // part)
    inside = np.zeros(np.subtract(picture.shape, 2 * wide), bool)
    return np.pad(inside, wide, constant_values=True)


def find_pieces(ink):
    """Return int [H, W]: the number of the digit to which a pixel belongs, or 0."""
    mask = ink > HALF
    joined = ndimage.binary_dilation(mask, EIGHT)  # over the smallest gaps
    labels = ndimage.label(joined, EIGHT)[0] * mask
    boxes = ndimage.find_objects(labels)
    height = np.array([0] + [rows.stop - rows.start for rows, _ in boxes])
    tallest = height.max()
    labels = with_bars(labels, height)
    boxes = dict(enumerate(ndimage.find_objects(labels), 1))
    darkest = dict.fromkeys(boxes, 0.55) | dict.fromkeys(labels[rim(ink, 25)], 0.8)
    kept = {
        n: box
        for n, box in boxes.items()
        if box and is_digit((labels[box] == n) * ink[box], tallest, darkest[n])
    }
    if not kept:
        raise ValueError("the picture shows ink, but nothing that could be a digit.")
    order = np.zeros(len(boxes) + 1, int)
    order[in_reading_order(kept)] = range(1, len(kept) + 1)
    return order[labels]


def with_bars(labels, height):
    """Return labels in which a small piece near a tall one is a part of it.

    Such is the bar of a 5. height: of each label. Small: less than half as high as the
    tallest. Near: a quarter of that height away.
    """
    tall = np.isin(labels, np.flatnonzero(height > height.max() / 2))
    away, nearest = ndimage.distance_transform_edt(~tall, return_indices=True)
    result = labels.copy()
    for n, box in enumerate(ndimage.find_objects(labels), 1):
        piece = labels[box] == n
        speck = piece.sum() < (height.max() / 8) ** 2
        if not speck and height[n] <= height.max() / 2:
            place = np.argmin(np.where(piece, away[box], np.inf))
            if away[box].flat[place] <= height.max() / 4:
                y, x = (axis[box].flat[place] for axis in nearest)
                result[box][piece] = labels[y, x]
    return result


def is_digit(ink, tallest, least):
    """Return whether a piece's ink, [H, W], has a digit's size and shape.

    Neither dirt nor a ruled line nor a shadow, which is never as dark as least, nor a
    blot: a digit fills a part of its box alone, unless it is as narrow as a 1.
    """
    (h, w), piece = ink.shape, ink > 0
    high, narrow = h >= max(LEAST, tallest / 4), w <= h / 2
    dark = np.percentile(ink[piece], 90) > least
    return high and dark and w <= 2 * h and (narrow or piece.mean() < 0.8)


def in_reading_order(boxes):
    """Return the keys of {n: box}, line by line from above, each from left to right.

    The page is turned back first (slope: of its lines). A piece belongs to the line
    whose last piece is least above or below it, by less than half of the higher one.
    """
    rows, columns = np.array(
        [[(side.start, side.stop) for side in box] for box in boxes.values()]
    ).transpose(1, 2, 0)
    high, left = rows[1] - rows[0], columns[0]
    middle = rows.mean(0) - slope(rows, columns) * columns.mean(0)
    lines = []
    for n in np.argsort(left, kind="stable"):
        last = np.array([line[-1] for line in lines], int)
        off = abs(middle[n] - middle[last]) / np.maximum(high[n], high[last])
        if lines and min(off) < 1 / 2:
            lines[np.argmin(off)].append(n)
        else:
            lines.append([n])
    lines.sort(key=lambda line: middle[line].mean())
    keys = list(boxes)
    return [keys[n] for line in lines for n in line]


def slope(rows, columns):
    """Return the tangent with which lines of pieces fall; rows, columns: [2, N].

    The one of at most 0.2 with which the pieces lie in the fewest and tightest lines.
    """
    limit = np.median(rows[1] - rows[0]) / 2

    def spread(tangent):
        middle = np.sort((rows - tangent * columns).mean(0))
        return np.minimum(np.diff(middle), limit).sum()

    return min(sorted(np.linspace(-0.2, 0.2, 41), key=abs), key=spread)
