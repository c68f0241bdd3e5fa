"""Morphology with squares, where every extreme of n neighbours comes from two of n/2, in whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def closing(images: Array, size: int) -> Array:
    """Dark things narrower than a square of this size are removed, from each of the images [..., H, W].

    Beyond its edges an image goes on as it is there.
    """
    for axis in (-2, -1):
        length = images.shape[axis]
        images = images.take(np.arange(1 - size, length + size - 1), axis, mode="clip")
    for extreme in (np.maximum, np.minimum):
        for axis in (-2, -1):
            images = _running(extreme, images, size, axis)
    return images


def _running(extreme: np.ufunc, values: Array, size: int, axis: int) -> Array:
    """The extreme of each `size` neighbours along an axis, which has `size - 1` values less in the result."""
    known, rest = 1, (slice(None),) * (-1 - axis)
    while known < size:
        step = min(known, size - known)
        first: Any = (..., slice(None, -step), *rest)
        second: Any = (..., slice(step, None), *rest)
        values = extreme(values[first], values[second])
        known += step
    return values
