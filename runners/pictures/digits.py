"""Turn a handwritten digit in a photo or drawing into an image like MNIST's.

Paper and pen are distinguished by width alone. The *ground* is everything wider than a stroke: a morphological closing
with a square removes dark strokes, and leaves uneven light, shadows and the table around a sheet as they are; applied
to the negative, it removes light strokes (Serra, Image Analysis and Mathematical Morphology, 1982). *Ink* is the
difference from the ground, in proportion to it. Whether the strokes are dark or light is decided by which of the two,
removed with small squares, leaves the calmer ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from runners.errors import ImageError
from runners.pictures.morphology import closing
from runners.pictures.reading import Prepared, original_size

Array = np.ndarray[Any, Any]

WORKING_SIZE = 512
"""Larger pictures are shrunk to this longer side, in pixels. A digit of a twentieth of it is still 25 pixels high."""
SCALES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Widths of the squares to try, as fractions of the picture's side."""
MIN_CONTRAST = 0.08
"""Ink must differ from the ground by this much; from black to white is 1."""
MAX_PIECES = 64
"""A digit in more pieces is noise; a dotted digit has about 25."""
STRONG = 0.6
"""Ink above this fraction of the darkest certainly belongs to a stroke; printed lines and shadows are fainter."""
SPECK = 0.05
"""A piece of ink below this fraction of the largest piece is dirt."""
STRAIGHT, SLANT = 0.9, 0.06
"""A side of a frame is drawn for this fraction of its length, within this fraction of the box from its edge."""
FAINT = 0.1
"""Fainter ink doesn't widen the box around a digit."""
MIN_STROKE_WIDTH = 0.12
"""Thinner strokes are thickened, as a fraction of the digit's longer side. MNIST's median is 0.13."""


def prepare_digit(picture: Image.Image, input_shape: tuple[int, ...]) -> Prepared:
    """A digit in MNIST's form: light on dark, its longer side 20 of 28 pixels, its centre of mass in the middle.

    Reports whether it was `inverted`, the box [left, top, right, bottom] that it was `cropped` to, and the number of
    `pieces` that it is drawn in. Raises ImageError if nothing stands out from the ground.
    """
    grey = _brightness(picture)
    ink, inverted = _ink(grey)
    drawn, pieces = _drawn(ink)
    if pieces > MAX_PIECES:
        raise ImageError("nothing is drawn on it but noise")
    strokes, (rows, columns) = _strokes(ink, drawn)
    channels, height, width = input_shape
    digit = _fit(_thickened(strokes), round(height * 20 / 28), round(width * 20 / 28))
    pixels = np.repeat(_centre(digit, height, width)[None], channels, axis=0)
    scale = np.divide(original_size(picture), grey.shape[::-1])
    corners = np.multiply([(columns.start, rows.start), (columns.stop, rows.stop)], scale).round().astype(int)
    return Prepared(pixels, {"inverted": inverted, "cropped": corners.ravel().tolist(), "pieces": pieces})


def _brightness(picture: Image.Image) -> Array:
    """Grey in [0, 1], or one colour band if grey hardly shows the strokes, as with red on equally bright green."""
    small = picture.copy()
    small.thumbnail((WORKING_SIZE, WORKING_SIZE))
    grey = np.asarray(small.convert("L"), np.float32) / 255
    if small.mode != "L":
        bands = [np.asarray(band, np.float32) / 255 for band in small.split()]
        clearest = max(bands, key=_detail)
        if _detail(clearest) > 2 * _detail(grey):
            grey = clearest
    return np.asarray(ndimage.gaussian_filter(grey, max(grey.shape) / WORKING_SIZE))


def _detail(band: Array) -> float:
    """How much pixels differ from their wider surroundings."""
    return float(np.std(band - ndimage.uniform_filter(band, max(band.shape) // 4 + 1)))


def _ink(grey: Array) -> tuple[Array, bool]:
    """How much each pixel differs from the ground, in proportion to it; and whether the strokes are dark."""
    step = -(-max(grey.shape) // 256)
    small = ndimage.gaussian_filter(grey, (step - 1) / 2)[::step, ::step]
    sizes = [max(2, round(scale * min(small.shape))) for scale in SCALES]
    both = np.stack([small, 1 - small])
    unrest = {size: [_unrest(ground) for ground in closing(both, size)] for size in set(sizes)}  # some are the same
    dark, light = zip(*(unrest[size] for size in sizes), strict=True)
    inverted = _area(dark) <= _area(light)
    calm = dark if inverted else light
    enough = calm[-1] + 0.1 * (_unrest(small) - calm[-1])
    wider_than_strokes = next(scale for scale, left in zip(SCALES, calm, strict=True) if left <= enough)
    size = round(2 * wider_than_strokes * max(grey.shape)) + 1
    if inverted:
        ground = closing(grey, size)
        return (ground - grey) / (ground + 0.1), inverted
    return grey + closing(1 - grey, size) - 1, inverted


def _area(curve: Sequence[float]) -> float:
    """The area under a curve over the logarithm of the scales, by the trapezoidal rule."""
    return sum(curve) - (curve[0] + curve[-1]) / 2


def _unrest(grey: Array) -> float:
    """The total variation: small for soft light, large for many sharp edges."""
    down, across = grey[1:] - grey[:-1], grey[:, 1:] - grey[:, :-1]
    return float(np.abs(down).sum() + np.abs(across).sum())


def _drawn(ink: Array) -> tuple[Array, int]:
    """A mask of the digit's strong ink, the heaviest piece and the pieces near it; and their number."""
    if ink.max() < MIN_CONTRAST:
        raise ImageError("nothing is drawn on it")
    pieces, count = ndimage.label(ink > STRONG * ink.max(), structure=np.ones((3, 3)))
    masses = np.concatenate([[0], ndimage.sum_labels(ink, pieces, range(1, count + 1))])
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        if masses[number] >= SPECK * masses.max() and _is_frame(pieces[box], number, ink[box]):
            masses[number] = 0
    large = (masses >= SPECK * masses.max())[pieces] & (pieces > 0)
    digit = pieces == masses.argmax()
    while (large & ~digit).any():
        reach = max(np.ptp(np.nonzero(digit), axis=1).max() / 2, max(ink.shape) / 16)
        near = large & (ndimage.distance_transform_edt(~digit) <= reach)
        if not (near & ~digit).any():
            break
        digit = np.isin(pieces, np.unique(pieces[near]))
    return digit, len(np.unique(pieces[digit]))


def _is_frame(pieces: Array, number: int, ink: Array) -> bool:
    """Whether a piece is drawn around others, like the box of a form around a digit; one side may be missing."""
    piece = pieces == number
    others = ~piece & (pieces > 0)
    if not others.any():  # a digit in one piece is spared the rest, a tenth of the time that it takes
        return False
    closed = piece.copy()
    sides = [edge for side in (piece, piece.T) for edge in (side, side[::-1])]
    if sum(side[: round(SLANT * len(side)) + 1].any(axis=0).mean() > STRAIGHT for side in sides) >= 3:
        closed[[0, -1]] = closed[:, [0, -1]] = True
    inside = ndimage.binary_fill_holes(closed) & others
    return bool(ink[inside].sum() > 0.1 * ink[piece].sum())


def _strokes(ink: Array, drawn: Array) -> tuple[Array, tuple[slice, slice]]:
    """The digit with its fainter edges, 0 for the ground to 1 for full ink, cropped; and its bounding box."""
    reach = max(3, np.ptp(np.nonzero(drawn), axis=1).max() / 14)
    near = ndimage.distance_transform_edt(~drawn) <= reach
    full = float(ink[drawn].max())
    middle = noise = 0.0
    if not near.all():
        middle = float(np.median(ink[~near]))
        noise = 1.4826 * float(np.median(np.abs(ink[~near] - middle)))
    if full < MIN_CONTRAST:
        raise ImageError("nothing is drawn on it")
    strokes = np.where(near, np.clip((ink - middle - 2 * noise) / (full - middle - 2 * noise), 0, 1), 0)
    ((rows, columns),) = ndimage.find_objects((strokes > FAINT).astype(int))
    return strokes[rows, columns].astype(np.float32), (rows, columns)


def _thickened(strokes: Array) -> Array:
    """The strokes, thickened if they would be too thin at 28 pixels."""
    inside = np.pad(strokes > 0.5, 1)
    depth = float(ndimage.distance_transform_edt(inside)[inside].mean())  # a quarter of a stroke's width
    width = 4 * depth
    radius = (MIN_STROKE_WIDTH * max(strokes.shape) - width) / 2
    if radius < 1:
        return strokes
    reach = round(radius)
    rows, columns = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    return np.asarray(ndimage.grey_dilation(np.pad(strokes, reach), footprint=rows**2 + columns**2 <= radius**2))


def _fit(strokes: Array, height: int, width: int) -> Array:
    """Resized to fit a box of this height and width, keeping its proportions."""
    scale = min(height / strokes.shape[0], width / strokes.shape[1])
    size = (max(1, round(strokes.shape[1] * scale)), max(1, round(strokes.shape[0] * scale)))
    resized = Image.fromarray(strokes).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def _centre(digit: Array, height: int, width: int) -> Array:
    """Placed on an empty image with its centre of mass in the middle, or as near as it fits."""
    rows, columns = np.indices(digit.shape)
    mass = max(float(digit.sum()), 1e-9)
    top = round(height / 2 - float((rows * digit).sum()) / mass)  # MNIST's own centre is pixel 14 of 28, counted from 0
    left = round(width / 2 - float((columns * digit).sum()) / mass)
    top = min(max(top, 0), height - digit.shape[0])
    left = min(max(left, 0), width - digit.shape[1])
    image = np.zeros((height, width), np.float32)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
