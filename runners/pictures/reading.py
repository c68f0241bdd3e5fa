"""Read picture files of many formats, and prepare pictures in general as input for a network."""

from __future__ import annotations

import io
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from runners.errors import ImageError
from runners.pictures.depth import Depth

Array = np.ndarray[Any, Any]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 128_000_000
"""Larger pictures are refused before they are decoded."""
MAX_WEBP_PIXELS = MAX_PIXELS // 4
"""For WebP, whose decoder holds four copies."""
MAX_BYTES = 512 << 20
"""Larger files are refused before they are opened. This is the size of MAX_PIXELS at four bytes each."""
MAX_SIDE = 1024
"""Larger pictures are shrunk to this, JPEGs during decoding."""
STRIP_ROWS = 64
"""Pictures are shrunk in strips, each of which becomes this many rows."""
TRANSPOSED = (5, 6, 7, 8)
"""The EXIF orientations that swap rows and columns."""
STDIN = Path("-")
"""This object stands for the standard input. An equal path is a file of this name."""


@dataclass(frozen=True)
class Prepared:
    """Pixels [C, H, W] in [0, 1], and a record of how they were made."""

    pixels: Array
    done: dict[str, Any]


def find_pictures(folder: Path, unlisted: list[Path] | None = None) -> list[Path]:
    """All files with a picture's suffix in a folder and its subfolders, sorted. Hidden ones are skipped.

    Links to folders are followed, except to a folder that has been searched or that `folder` is in. Paths that can't
    be listed as folders are appended to `unlisted`; without it, the first raises OSError.
    """

    def failed(error: OSError) -> None:
        if unlisted is None:
            raise error
        unlisted.append(Path(error.filename))

    found = []
    start = Path(os.path.realpath(folder))
    searched: set[Path] = set()
    waiting = [folder]
    for top in waiting:
        for place, folders, names in os.walk(top, onerror=failed):
            real = Path(os.path.realpath(place))
            folders[:] = sorted(name for name in folders if name[0] != ".")
            if real in searched or (top != folder and start.is_relative_to(real)):
                folders.clear()
                continue
            searched.add(real)
            found += [Path(place, name) for name in names if _is_named_as_picture(name)]
            waiting += [path for name in folders if (path := Path(place, name)).is_symlink()]
    return sorted(found)


def has_pictures(folder: Path) -> bool:
    """Whether pictures are in the folder itself, not only in its subfolders."""
    return any(_is_named_as_picture(file.name) for file in folder.iterdir() if not file.is_dir())


def _is_named_as_picture(name: str) -> bool:
    return name[0] != "." and Path(name).suffix.lower() in _endings()


@cache
def _endings() -> set[str]:
    return {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings. They are silenced for the whole process: enter this outside of reading threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_picture(path: Path) -> Image.Image:
    """The picture as a viewer shows it: upright, opaque, L or RGB, its longer side at most 1024 pixels.

    Its `info` holds the `size` [width, height] before it was shrunk, its EXIF `orientation` (1 is upright), the
    `background` that replaced transparency ("white", "black" or None), the value that is `white` (see `Depth`; 255 in
    8 bits), and whether the file has `more_frames` than the first, which is read. Raises ImageError if it can't be
    read.
    """
    try:
        source = _standard_input() if path is STDIN else _checked(path)
        with Image.open(source, formats=FORMATS) as opened:
            return _read(opened)
    except ImageError as error:
        raise ImageError(error.reason, path) from None
    except UnidentifiedImageError:
        raise ImageError("not a picture in PNG, JPEG, BMP, GIF, TIFF, WebP or PPM format", path) from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(), path) from None
    except Exception as error:  # decoders raise all kinds of errors for broken files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"can't be read: {' '.join(reason.split()) or type(error).__name__}", path) from None


def _standard_input() -> io.BytesIO:
    """All that comes from the standard input, which can't be searched as a file can."""
    if sys.stdin.isatty():
        raise ImageError("the standard input is a terminal, give it a picture with < or |")
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not content:
        raise ImageError("nothing came from the standard input")
    if len(content) > MAX_BYTES:
        raise ImageError(f"more than {MAX_BYTES >> 20} MB came from the standard input")
    return io.BytesIO(content)


def _checked(path: Path) -> Path:
    """Check before opening: opening a pipe would block until something writes to it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    if stat.S_ISDIR(status.st_mode):
        os.scandir(path).close()  # raises if the folder is merely unreadable
        raise ImageError("a folder without pictures")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file but a pipe, socket or device")
    if not status.st_size:
        raise ImageError("an empty file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"the file has {status.st_size >> 20:,} MB, at most {MAX_BYTES >> 20} are allowed")
    return path


def _read(opened: Image.Image) -> Image.Image:
    """Decode a picture that Pillow has opened."""
    limit = MAX_WEBP_PIXELS if opened.format == "WEBP" else MAX_PIXELS
    if opened.width * opened.height > limit:
        raise ImageError(f"it has {opened.width}x{opened.height} pixels, {_too_large(limit)}")
    size, more_frames = opened.size, bool(getattr(opened, "is_animated", False))
    orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    opened.draft(None, (MAX_SIDE, MAX_SIDE))
    if orientation in TRANSPOSED:
        size = size[::-1]
    white, transparent = 255, False
    if opened.mode.startswith(("I", "F")):
        depth = Depth(opened, _strips(opened, STRIP_ROWS))
        picture, white = _shrunk(opened, depth.in_bytes), depth.white
    else:
        transparent = "A" in opened.getbands() or "transparency" in opened.info
        mode = "RGBA" if transparent else "L" if opened.mode in ("1", "L") else "RGB"
        picture = _shrunk(opened, lambda strip: strip.convert(mode))
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(picture, in_place=True)
    picture, background = _opaque(picture) if transparent else (picture, None)
    picture.info = {
        "size": list(size),
        "orientation": int(orientation) if orientation in range(1, 9) else 1,
        "background": background,
        "white": white,
        "more_frames": more_frames,
    }
    return picture


def _too_large(limit: int = MAX_PIXELS) -> str:
    return f"more than the limit of {limit // 10**6} megapixels"


def _strips(picture: Image.Image, height: int) -> Iterator[Image.Image]:
    for top in range(0, picture.height, height):
        yield picture.crop((0, top, picture.width, min(top + height, picture.height)))


def _shrunk(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Converted, and shrunk to at most 1024 pixels; strip by strip, so that a huge picture is never copied whole."""
    factor = max(picture.size) // (2 * MAX_SIDE)  # the smooth resize at the end still halves it at least
    if factor > 1:
        strips = [convert(strip).reduce(factor) for strip in _strips(picture, STRIP_ROWS * factor)]
        small = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
        for number, strip in enumerate(strips):
            small.paste(strip, (0, STRIP_ROWS * number))
    else:
        small = convert(picture)
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    return small


def _opaque(picture: Image.Image) -> tuple[Image.Image, str | None]:
    """RGBA on white if the strokes are dark, else on black, so that they stay visible; and the background's name."""
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
    """The whole picture, stretched to the network's height and width, in grey or colour as the network expects."""
    channels, height, width = input_shape
    resized = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, np.float32).reshape(height, width, channels) / 255
    return Prepared(np.moveaxis(pixels, -1, 0), {"inverted": False, "cropped": [0, 0, *original_size(picture)]})
