"""From a picture to the network's input: reading it, and making it look like what the network was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from runners.errors import ImageError

Array = np.ndarray[Any, Any]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
FAINT = 0.1
"""Ink below this fraction of the darkest ink doesn't widen the box around a digit."""
SPECK = 0.05
"""Connected ink of less than this fraction of the largest piece is dirt."""
CONTRAST = 0.06
"""Less difference than this, of 1 between black and white, and there is nothing on the picture."""


@dataclass(frozen=True)
class Prepared:
    """Pixels in [0, 1], [C, H, W], and what was done to get them."""

    pixels: Array
    done: dict[str, Any]


def read_picture(path: Path) -> Image.Image:
    """The picture, upright, without transparency, as L or RGB. Raises ImageError where it can't be read."""
    if not path.is_file():
        raise ImageError(f"{path}: {'not a file' if path.exists() else 'there is no such file'}")
    try:
        with Image.open(path, formats=FORMATS) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ImageError(f"{path}: can't be read: {reason}") from None
    if picture.mode.startswith(("I", "F")):
        return _eight_bit(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        return _opaque(picture.convert("RGBA"))
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, its range stretched over 8."""
    values = np.asarray(picture, np.float32)
    low, high = float(values.min()), float(values.max())
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))


def _opaque(picture: Image.Image) -> Image.Image:
    """A transparent picture on white where what is drawn is dark, else on black, so that it stays visible."""
    alpha = np.asarray(picture.getchannel("A"), np.float32)
    grey = np.asarray(picture.convert("L"), np.float32)
    drawn = float((grey * alpha).sum() / max(float(alpha.sum()), 1.0))
    ground = Image.new("RGBA", picture.size, "white" if drawn < 128 else "black")
    return Image.alpha_composite(ground, picture).convert("RGB")


def prepare_plain(picture: Image.Image, input_shape: tuple[int, ...]) -> Prepared:
    """The whole picture, resized; grey or colour as the network wants it."""
    channels, height, width = input_shape
    resized = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, np.float32).reshape(height, width, channels) / 255
    return Prepared(np.moveaxis(pixels, -1, 0), {"resized_from": list(picture.size)})


def prepare_digit(picture: Image.Image, input_shape: tuple[int, ...]) -> Prepared:
    """A digit as MNIST shows it: light on dark, its longer side 20 of 28 pixels, its centre of mass in the middle.

    Raises ImageError where the picture is all of one grey.
    """
    ink, inverted = _ink(np.asarray(picture.convert("L"), np.float32) / 255)
    top, bottom, left, right = _box(ink)
    _, height, width = input_shape
    digit = _fit(ink[top:bottom, left:right], round(height * 20 / 28), round(width * 20 / 28))
    pixels = _centre(digit, height, width)
    done = {"inverted": inverted, "box": [left, top, right, bottom], "resized_from": [right - left, bottom - top]}
    return Prepared(pixels[None], done)


def _ink(grey: Array) -> tuple[Array, bool]:
    """How much each pixel differs from the ground, scaled to 1; and whether the ground was the lighter."""
    low, high = float(grey.min()), float(grey.max())
    if high - low < CONTRAST:
        raise ImageError("there is nothing on it: all of it is of one grey")
    ground = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    inverted = ground > (low + high) / 2
    ink = np.clip(ground - grey if inverted else grey - ground, 0, None)
    return (ink / ink.max()).astype(np.float32), inverted


def _box(ink: Array) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is drawn, specks of dirt left out."""
    pieces, count = ndimage.label(ink > FAINT, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(ink, pieces, range(1, count + 1))
    kept = np.concatenate([[False], sizes >= SPECK * sizes.max()])
    rows, columns = np.nonzero(kept[pieces])
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def _fit(ink: Array, height: int, width: int) -> Array:
    """Resized to touch a box of this height and width, the proportions kept."""
    scale = min(height / ink.shape[0], width / ink.shape[1])
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    resized = Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)
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
