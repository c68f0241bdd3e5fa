"""Figures in a page: small copies as data, while they fit."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

SIDE = 360
"""Pixels that a thumbnail is wide and high at most."""

MAX_PIXELS = 40_000_000
QUALITY = 60
FORMAT = "WEBP"


def thumbnail(file: Path) -> str | None:
    """A small copy of a picture as a `data:` address; None if it can't be read. Of an animation, the first frame."""
    from PIL import Image  # only a page with figures needs it

    if not file.is_file():  # a pipe would be waited for
        return None
    small = io.BytesIO()
    try:
        with warnings.catch_warnings(), Image.open(file) as picture:
            warnings.simplefilter("ignore")
            if picture.width * picture.height > MAX_PIXELS:
                return None
            shown = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "RGBA" else "RGB")
        shown.thumbnail((SIDE, SIDE))
        shown.save(small, FORMAT, quality=QUALITY, method=4)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/{FORMAT.lower()};base64,{base64.b64encode(small.getvalue()).decode()}"
