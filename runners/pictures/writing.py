"""Encode pictures. The same pixels always give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
"""The formats of single pictures, and how they are written: small pictures show every loss."""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def suffixes() -> list[str]:
    """The suffixes of single pictures that can be written here: Pillow may be built without a format."""
    Image.init()
    return [suffix for suffix, kind in FORMATS.items() if kind in Image.SAVE]


def encoded(array: Array, suffix: str) -> bytes:
    """A picture [H, W] or [H, W, 3] of bytes, in the format of one of the `suffixes`.

    Raises ValueError or OSError if the format can't hold it, as of a WebP with more than 16,383 pixels a side.
    """
    kind, stream = FORMATS[suffix], io.BytesIO()
    Image.fromarray(array).save(stream, kind, **OPTIONS[kind])
    return stream.getvalue()


def png(array: Array) -> bytes:
    """A picture [H, W] or [H, W, 3] of bytes as a PNG file."""
    return encoded(array, ".png")


def gif(frames: Sequence[Array], milliseconds: int = 80) -> bytes:
    """Frames [H, W] or [H, W, 3] of bytes as an animated GIF that repeats for ever, each shown for so long.

    Viewers count in hundredths of a second, and show frames of less than two of them more slowly.
    """
    first, *others = map(Image.fromarray, frames)
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return stream.getvalue()
