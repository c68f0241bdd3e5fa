"""From a picture file to the network's input: reading it, whatever its format, and the plain preparation."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from runners.errors import ImageError

Array = np.ndarray[Any, Any]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 128_000_000
"""Pictures of more are refused before they are decoded."""
MOST_WEBP_PIXELS = MOST_PIXELS // 4
"""Of WebP, whose decoder holds four copies."""
MOST_BYTES = 512 << 20
"""Files of more are refused before they are opened: as much as the pixels take, four bytes each."""
LONGEST_SIDE = 1024
"""Larger pictures are shrunk to this, JPEGs while they are decoded."""
ROWS = 64
"""Shrinking goes by strips that become so many rows."""
LYING = (5, 6, 7, 8)
"""The EXIF orientations of which rows become columns."""


@dataclass(frozen=True)
class Prepared:
    """Pixels in [0, 1], [C, H, W], and what was done to get them."""

    pixels: Array
    done: dict[str, Any]


def find_pictures(folder: Path, unlisted: list[Path] | None = None) -> list[Path]:
    """All files in it, or in folders in it, that are named as pictures, sorted; what is hidden is passed over.

    What can't be listed as a folder goes into `unlisted`; where nobody wants to know that, it raises OSError.
    """

    def failed(error: OSError) -> None:
        if unlisted is None:
            raise error
        unlisted.append(Path(error.filename))

    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    found = []
    for place, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if name[0] != "."]
        paths = [Path(place, name) for name in names if name[0] != "."]
        found += [path for path in paths if path.suffix.lower() in endings]
    return sorted(found)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow warns of much that doesn't matter here. Around all threads that read: it concerns the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_picture(path: Path) -> Image.Image:
    """The picture as somebody sees it: upright, opaque, L or RGB, its longer side 1024 pixels or less.

    Its `info` holds the `size` [width, height] before it was shrunk, the EXIF `orientation` it had (1 is upright), the
    `background` that transparency was laid on ("white", "black" or None), and whether the file has `more_frames` than
    the first, which is the one that is read. Raises ImageError where it can't be read.
    """
    try:
        _require_a_file(path)
        with Image.open(path, formats=FORMATS) as opened:
            return _read(opened)
    except ImageError as error:
        raise ImageError(error.reason, path) from None
    except UnidentifiedImageError:
        raise ImageError("not a picture: none of PNG, JPEG, BMP, GIF, TIFF, WebP and PPM", path) from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(), path) from None
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"can't be read: {' '.join(reason.split()) or type(error).__name__}", path) from None


def _require_a_file(path: Path) -> None:
    """Before anything is opened: a pipe would wait for somebody to write into it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    if stat.S_ISDIR(status.st_mode):
        os.scandir(path).close()  # raises where it is only that nobody may look
        raise ImageError("a folder without pictures")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a file but a pipe, a socket or a device")
    if not status.st_size:
        raise ImageError("an empty file")
    if status.st_size > MOST_BYTES:
        raise ImageError(f"a file of {status.st_size >> 20:,} MB, pictures may have {MOST_BYTES >> 20}")


def _read(opened: Image.Image) -> Image.Image:
    """Decode a picture whose header was read."""
    most = MOST_WEBP_PIXELS if opened.format == "WEBP" else MOST_PIXELS
    if opened.width * opened.height > most:
        raise ImageError(f"{opened.width}x{opened.height} pixels, {_too_large(most)}")
    size, more_frames = opened.size, bool(getattr(opened, "is_animated", False))
    orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    opened.draft(None, (LONGEST_SIDE, LONGEST_SIDE))
    if orientation in LYING:
        size = size[::-1]
    picture = _eight_bits(opened) if opened.mode.startswith(("I", "F")) else opened
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    mode = "RGBA" if transparent else "L" if picture.mode in ("1", "L") else "RGB"
    picture = _shrunk(picture, lambda strip: strip.convert(mode))
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(picture, in_place=True)
    picture, background = _opaque(picture) if transparent else (picture, None)
    picture.info = {
        "size": list(size),
        "orientation": int(orientation) if orientation in range(1, 9) else 1,
        "background": background,
        "more_frames": more_frames,
    }
    return picture


def _too_large(most: int = MOST_PIXELS) -> str:
    return f"more than the {most // 10**6} megapixels that are read"


def _strips(picture: Image.Image, height: int) -> Iterator[Image.Image]:
    for top in range(0, picture.height, height):
        yield picture.crop((0, top, picture.width, min(top + height, picture.height)))


def _shrunk(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Converted, its longer side 1024 pixels or less; a strip at a time, so that none that is huge is there twice."""
    factor = max(picture.size) // (2 * LONGEST_SIDE)  # the last step, which is smooth, halves the picture at least
    if factor > 1:
        strips = [convert(strip).reduce(factor) for strip in _strips(picture, ROWS * factor)]
        small = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
        for number, strip in enumerate(strips):
            small.paste(strip, (0, ROWS * number))
    else:
        small = convert(picture)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return small


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, its range stretched over 8; what isn't a finite number counts as the smallest there."""
    if picture.mode == "F":
        lowest = min(_finite(strip).min(initial=np.inf) for strip in _strips(picture, ROWS))
        if lowest == np.inf:
            raise ImageError("none of its pixels is a number")
        small = _shrunk(picture, lambda strip: _without_holes(strip, lowest))
    else:
        small = _shrunk(picture, lambda strip: strip.convert("I"))
    values = np.asarray(small, np.float64)
    low, high = values.min(), values.max()
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))


def _finite(picture: Image.Image) -> Array:
    values = np.asarray(picture)
    return np.extract(np.isfinite(values), values)


def _without_holes(picture: Image.Image, value: float) -> Image.Image:
    """Floats, with this value where there is no finite one."""
    values = np.asarray(picture)
    return Image.fromarray(np.where(np.isfinite(values), values, np.float32(value)))


def _opaque(picture: Image.Image) -> tuple[Image.Image, str | None]:
    """RGBA laid on white where what is drawn is dark, else on black, so that it stays visible; and on which of them."""
    alpha = np.asarray(picture.getchannel("A"), np.float32)
    if alpha.min() == 255:
        return picture.convert("RGB"), None
    grey = np.asarray(picture.convert("L"), np.float32)
    drawn = float((grey * alpha).sum() / max(float(alpha.sum()), 1.0))
    background = "white" if drawn < 128 else "black"
    return Image.alpha_composite(Image.new("RGBA", picture.size, background), picture).convert("RGB"), background


def original_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height before `read_picture` shrank it."""
    width, height = picture.info.get("size", picture.size)
    return width, height


def prepare_plain(picture: Image.Image, input_shape: tuple[int, ...]) -> Prepared:
    """The whole picture, stretched to the network's height and width; grey or colour as the network wants it."""
    channels, height, width = input_shape
    resized = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, np.float32).reshape(height, width, channels) / 255
    return Prepared(np.moveaxis(pixels, -1, 0), {"inverted": False, "cropped": [0, 0, *original_size(picture)]})
