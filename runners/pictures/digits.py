"""A handwritten digit on a photo or drawing, made to look as MNIST shows it.

Paper and pen are told apart by width alone. The *ground* is what a square fits into that is wider than any stroke: a
morphological closing takes dark strokes away and leaves uneven light, shadows and the table around a sheet as they are;
on the negative it does so with light strokes (Serra, Image Analysis and Mathematical Morphology, 1982). *Ink* is what
differs from the ground, in proportion to it. Of the two, dark strokes or light ones, those are drawn whose removal
with small squares already leaves the calmer ground.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from runners.errors import ImageError
from runners.pictures.reading import Prepared, original_size

Array = np.ndarray[Any, Any]

WORKING_SIZE = 512
"""The longer side in pixels to which larger pictures are shrunk: a digit a twentieth of it high is still 25 pixels."""
SCALES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Widths of the squares that are tried, as shares of the picture's side."""
CONTRAST = 0.08
"""Ink that differs less than this from the ground, of 1 between black and white, isn't drawn."""
MOST_PIECES = 64
"""What is of more pieces than this is noise; a dotted digit has about 25."""
STRONG = 0.6
"""Ink of more than this share of the darkest is certainly drawn; printed lines and shadows' edges are fainter."""
SPECK = 0.05
"""Connected ink of less than this fraction of the largest piece is dirt."""
STRAIGHT, SLANT = 0.9, 0.06
"""A side of a frame: so much of its length is drawn, no farther from the edge than this share of the other side."""
FAINT = 0.1
"""Ink below this doesn't widen the box around a digit."""
THINNEST = 0.12
"""Thinner strokes, as a share of the digit's longer side, are thickened; the median of MNIST's is 0.13."""


def prepare_digit(picture: Image.Image, input_shape: tuple[int, ...]) -> Prepared:
    """A digit as MNIST shows it: light on dark, its longer side 20 of 28 pixels, its centre of mass in the middle.

    Says whether it was `inverted`, to which box `cropped` [left, top, right, bottom], and how many `pieces` it is
    drawn in.
    Raises ImageError where nothing stands out of the ground.
    """
    grey = _brightness(picture)
    ink, inverted = _ink(grey)
    drawn, pieces = _drawn(ink)
    if pieces > MOST_PIECES:
        raise ImageError("there is nothing on it but noise")
    strokes, (rows, columns) = _strokes(ink, drawn)
    channels, height, width = input_shape
    digit = _fit(_thickened(strokes), round(height * 20 / 28), round(width * 20 / 28))
    pixels = np.repeat(_centre(digit, height, width)[None], channels, axis=0)
    scale = np.divide(original_size(picture), grey.shape[::-1])
    corners = np.multiply([(columns.start, rows.start), (columns.stop, rows.stop)], scale).round().astype(int)
    return Prepared(pixels, {"inverted": inverted, "cropped": corners.ravel().tolist(), "pieces": pieces})


def _brightness(picture: Image.Image) -> Array:
    """Grey in [0, 1], or one band of the colours where grey hardly shows what is drawn: red on a green as bright."""
    small = picture.copy()
    small.thumbnail((WORKING_SIZE, WORKING_SIZE))
    grey = np.asarray(small.convert("L"), np.float32) / 255
    bands = [np.asarray(band, np.float32) / 255 for band in small.split()]
    clearest = max(bands, key=_detail)
    if _detail(clearest) > 2 * _detail(grey):
        grey = clearest
    return np.asarray(ndimage.gaussian_filter(grey, max(grey.shape) / WORKING_SIZE))


def _detail(band: Array) -> float:
    """How far pixels differ from their wider surroundings."""
    return float(np.std(band - ndimage.uniform_filter(band, max(band.shape) // 4 + 1)))


def _ink(grey: Array) -> tuple[Array, bool]:
    """How much each pixel differs from the ground, as a share of it; and whether the strokes were the darker."""
    step = -(-max(grey.shape) // 256)
    small = ndimage.gaussian_filter(grey, (step - 1) / 2)[::step, ::step]
    sizes = [max(2, round(scale * min(small.shape))) for scale in SCALES]
    dark, light = ([_unrest(_ground(image, size)) for size in sizes] for image in (small, 1 - small))
    inverted = _area(dark) <= _area(light)
    calm = dark if inverted else light
    enough = calm[-1] + 0.1 * (_unrest(small) - calm[-1])
    wider_than_strokes = next(scale for scale, unrest in zip(SCALES, calm, strict=True) if unrest <= enough)
    size = round(2 * wider_than_strokes * max(grey.shape)) + 1
    if inverted:
        ground = _ground(grey, size)
        return (ground - grey) / (ground + 0.1), inverted
    return grey + _ground(1 - grey, size) - 1, inverted


def _ground(grey: Array, size: int) -> Array:
    """What is left without dark strokes narrower than `size`; beyond its edges the picture goes on as it ends."""
    return np.asarray(ndimage.grey_closing(np.pad(grey, size, mode="edge"), (size, size))[size:-size, size:-size])


def _area(curve: list[float]) -> float:
    """The area under a curve over the logarithm of the scales, by the trapezoidal rule."""
    return sum(curve) - (curve[0] + curve[-1]) / 2


def _unrest(grey: Array) -> float:
    """The total variation: small for soft light, large for many sharp edges."""
    return float(np.abs(np.diff(grey, axis=0)).sum() + np.abs(np.diff(grey, axis=1)).sum())


def _drawn(ink: Array) -> tuple[Array, int]:
    """Where strong ink is that belongs to the digit: the heaviest piece and the pieces around it; and their number."""
    if ink.max() < CONTRAST:
        raise ImageError("there is nothing on it")
    pieces, count = ndimage.label(ink > STRONG * ink.max(), structure=np.ones((3, 3)))
    masses = np.concatenate([[0], ndimage.sum_labels(ink, pieces, range(1, count + 1))])
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        if masses[number] >= SPECK * masses.max() and _is_frame(pieces[box], number, ink[box]):
            masses[number] = 0
    large = (masses >= SPECK * masses.max())[pieces] & (pieces > 0)
    digit = pieces == masses.argmax()
    while True:
        reach = max(np.ptp(np.nonzero(digit), axis=1).max() / 2, max(ink.shape) / 16)
        near = large & (ndimage.distance_transform_edt(~digit) <= reach)
        if not (near & ~digit).any():
            return digit, len(np.unique(pieces[digit]))
        digit = np.isin(pieces, np.unique(pieces[near]))


def _is_frame(pieces: Array, number: int, ink: Array) -> bool:
    """Whether a piece is drawn around others, as the box of a form is around a digit; one side may be missing."""
    piece = pieces == number
    closed = piece.copy()
    sides = [edge for side in (piece, piece.T) for edge in (side, side[::-1])]
    if sum(side[: round(SLANT * len(side)) + 1].any(axis=0).mean() > STRAIGHT for side in sides) >= 3:
        closed[[0, -1]] = closed[:, [0, -1]] = True
    inside = ndimage.binary_fill_holes(closed) & ~piece & (pieces > 0)
    return bool(ink[inside].sum() > 0.1 * ink[piece].sum())


def _strokes(ink: Array, drawn: Array) -> tuple[Array, tuple[slice, slice]]:
    """What is drawn with its fainter edges, from 0 for the ground to 1 for full ink, cropped; and the box of that."""
    reach = max(3, np.ptp(np.nonzero(drawn), axis=1).max() / 14)
    near = ndimage.distance_transform_edt(~drawn) <= reach
    full = float(ink[drawn].max())
    middle = noise = 0.0
    if not near.all():
        middle = float(np.median(ink[~near]))
        noise = 1.4826 * float(np.median(np.abs(ink[~near] - middle)))
    if full < CONTRAST:
        raise ImageError("there is nothing on it")
    strokes = np.where(near, np.clip((ink - middle - 2 * noise) / (full - middle - 2 * noise), 0, 1), 0)
    ((rows, columns),) = ndimage.find_objects((strokes > FAINT).astype(int))
    return strokes[rows, columns].astype(np.float32), (rows, columns)


def _thickened(strokes: Array) -> Array:
    """Strokes that would be too thin on 28 pixels made thicker."""
    inside = np.pad(strokes > 0.5, 1)
    depth = float(ndimage.distance_transform_edt(inside)[inside].mean())  # a quarter of a stroke's width
    width = 4 * depth
    radius = (THINNEST * max(strokes.shape) - width) / 2
    if radius < 1:
        return strokes
    reach = round(radius)
    rows, columns = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    return np.asarray(ndimage.grey_dilation(np.pad(strokes, reach), footprint=rows**2 + columns**2 <= radius**2))


def _fit(strokes: Array, height: int, width: int) -> Array:
    """Resized to touch a box of this height and width, the proportions kept."""
    scale = min(height / strokes.shape[0], width / strokes.shape[1])
    size = (max(1, round(strokes.shape[1] * scale)), max(1, round(strokes.shape[0] * scale)))
    resized = Image.fromarray(strokes).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def _centre(digit: Array, height: int, width: int) -> Array:
    """Placed on an empty image with its centre of mass in the middle, as far as it stays inside."""
    rows, columns = np.indices(digit.shape)
    mass = max(float(digit.sum()), 1e-9)
    top = round(height / 2 - float((rows * digit).sum()) / mass)  # MNIST's own centre is pixel 14 of 28, counted from 0
    left = round(width / 2 - float((columns * digit).sum()) / mass)
    top = min(max(top, 0), height - digit.shape[0])
    left = min(max(left, 0), width - digit.shape[1])
    image = np.zeros((height, width), np.float32)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
