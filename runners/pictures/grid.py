"""Many pictures as one."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

GAP = 2
"""Pixels between two pictures."""
GROUND = 128
"""The grey between pictures, which sets off black and white ones alike."""


def as_bytes(pictures: Array) -> Array:
    """Values in [0, 1] as bytes 0 to 255; others are clamped."""
    return np.asarray(np.rint(255 * np.clip(pictures, 0, 1)), np.uint8)


def grid(pictures: Array, columns: int) -> Array:
    """Pictures [C, H, W, N], of 1 or 3 channels, side by side in rows of `columns`: [H, W] or [H, W, 3] in bytes.

    Pictures are bytes, or values that `as_bytes` converts. There is no margin around them.
    """
    channels, height, width, count = pictures.shape
    if channels not in (1, 3):
        raise ValueError(f"pictures have 1 or 3 channels, these have {channels}")
    values = pictures if pictures.dtype == np.uint8 else as_bytes(pictures)
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), GROUND, np.uint8)
    for index in range(count):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = np.moveaxis(values[..., index], 0, -1)
    return sheet[..., 0] if channels == 1 else sheet
