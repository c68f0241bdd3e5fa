"""Grey pictures of more than 8 bits: which value is white is decided by the kind of numbers, never by the contrast."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, TiffTags

from runners.errors import ImageError

Array = np.ndarray[Any, Any]

DEPTHS = (255, 4095, 65535)
"""White in 8, 12 and 16 bits."""
PROMOTED = 257
"""A byte becomes 16 bits by this factor, which turns 255 into 65535."""
TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
UNSIGNED, MIN_IS_WHITE = (1,), 0


class Depth:
    """How the values of a picture of Pillow's modes I and F become brightness.

    Black is 0. White is the largest value of the file's type: 65535 in a 16-bit PNG. But many files use a part of it:
    if no value of the picture is above 1 (of floats only), 255, 4095 or 65535, then that is white; unless all of them
    are bytes that were turned into 16 bits. A PGM file and a TIFF of 12 bits say what white is.
    """

    def __init__(self, picture: Image.Image, strips: Iterable[Image.Image]) -> None:
        tags = getattr(picture, "tag_v2", {})
        bits = tags.get(TAGS["BitsPerSample"], (16 if picture.mode != "I" or picture.format == "PNG" else 32,))[0]
        unsigned = tags.get(TAGS["SampleFormat"], UNSIGNED) == UNSIGNED
        self._unsigned = picture.mode == "I" and bits == 32 and picture.format == "TIFF" and unsigned
        self._inverted = tags.get(TAGS["PhotometricInterpretation"]) == MIN_IS_WHITE
        if picture.format == "PPM" and picture.mode != "F":
            self.white = DEPTHS[-1]  # Pillow has scaled them
        elif bits == 12:
            self.white = 4095
        else:
            self.white = self._guessed(picture.mode, 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1, strips)

    def _guessed(self, mode: str, largest: int, strips: Iterable[Image.Image]) -> int:
        highest, promoted = -math.inf, largest == DEPTHS[-1]
        for strip in strips:
            values = self._values(strip)
            finite = values[np.isfinite(values)] if mode == "F" else values
            highest = max(highest, float(finite.max())) if finite.size else highest
            promoted = promoted and not (values % PROMOTED).any()
        if highest == -math.inf:
            raise ImageError("none of its pixels is a finite number")
        if mode == "F":
            return next((white for white in (1, *DEPTHS) if highest <= white), math.ceil(highest))
        return largest if promoted else next((white for white in DEPTHS if highest <= white < largest), largest)

    def _values(self, strip: Image.Image) -> Array:
        values = np.asarray(strip)
        return values.view(np.uint32) if self._unsigned else values

    def in_bytes(self, strip: Image.Image) -> Image.Image:
        """The picture, or a strip of it, in 8 bits. What isn't finite is black, or white where 0 is white."""
        values = np.clip(np.nan_to_num(self._values(strip), posinf=0, neginf=0) / self.white, 0, 1)
        return Image.fromarray(np.rint(255 * (1 - values if self._inverted else values)).astype(np.uint8))
