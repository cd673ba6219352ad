"""Photographs of handwriting, made from MNIST's digits. Notebook 11."""

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE = 96  # pixels of a digit's field on the paper


def photograph(images, seed, columns=None):
    """Return a photograph, uint8 [H, W, 3], of a page on which digits are written.

    images: float32 [N, 28, 28], 0 (paper) to 1 (ink), written in lines of so many
    columns (all in one line without it), each where a hand may put it. seed: decides
    the pen, the paper, the light, the place of the camera, its blur and its noise.
    """
    random = np.random.default_rng(seed)
    ink = written(images, columns or len(images), random)
    pen, paper = random.uniform(0, 0.45, 3), random.uniform(0.6, 0.97)
    grain = ndimage.gaussian_filter(random.normal(size=ink.shape), 1.5)
    page = paper + 0.04 * grain[..., None] + np.zeros(3)
    page = page + ink[..., None] * (pen - page) * random.uniform(0.75, 1)
    page = seen_aslant(page * light(ink.shape, random)[..., None], random)
    page = ndimage.gaussian_filter(page, (*[random.uniform(0.5, 1.8)] * 2, 0))
    page = page + random.normal(size=page.shape) * random.uniform(0.01, 0.04)
    return (255 * page.clip(0, 1)).round().astype(np.uint8)


def written(images, columns, random):
    """Return ink, [H, W] from 0 to 1: each digit enlarged, somewhere in its field."""
    lines = -(-len(images) // columns)
    page = np.zeros((SIZE * (lines + 1), SIZE * (columns + 1)))
    for number, image in enumerate(images):
        size = random.uniform(0.75, 1)
        digit = ndimage.zoom(np.asarray(image, float), size * SIZE / 28, order=1)
        free = SIZE - len(digit)
        top, left = (SIZE // 2 + random.integers(0, free + 1, 2)).tolist()
        top, left = top + number // columns * SIZE, left + number % columns * SIZE
        h, w = digit.shape
        page[top : top + h, left : left + w] = digit
    return page


def light(shape, random):
    """Return the light on a page, [H, W]: a slope, a corner that is dark, a shadow."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    a, b, c = random.uniform(-0.2, 0.2, 3)
    slope = 1 + a * x + b * y + c * x * y
    vignette = 1 - random.uniform(0, 0.25) * (x**2 + y**2) / 2
    turn, place = random.uniform(0, 2 * np.pi), random.uniform(-0.7, 0.7)
    edge = np.cos(turn) * x + np.sin(turn) * y - place
    shadow = 1 - random.uniform(0, 0.4) / (1 + np.exp(-edge / 0.05))
    return 0.9 * slope * vignette * shadow


def seen_aslant(page, random):
    """Return the page, [H, W, 3], as a camera sees it that is not right above it."""
    h, w, _ = page.shape
    square = np.array([(0, 0), (w, 0), (w, h), (0, h)], float)
    corners = square + random.uniform(-0.06, 0.06, (4, 2)) * (w, h)
    rows = []
    for (x, y), (u, v) in zip(square, corners, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    form = np.linalg.solve(rows, corners.ravel())
    bands = [
        Image.fromarray(band.astype(np.float32)) for band in page.transpose(2, 0, 1)
    ]
    way = Image.Transform.PERSPECTIVE, form, Image.Resampling.BILINEAR
    table = random.uniform(0.1, 0.5, 3)
    seen = [
        np.asarray(band.transform((w, h), *way, fillcolor=colour))
        for band, colour in zip(bands, table, strict=True)
    ]
    return np.stack(seen, -1)
