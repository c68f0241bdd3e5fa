"""Which input places the positions of a window meet: a convolution's geometry as plain lists of numbers.

Kernels that follow these lists need to know nothing of axes, strides, dilations or padding. Positions, places and taps
are counted in row-major order over all axes; where a window lies in the padding there is nothing to meet.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from cnn.ops.window import Sizes, Window

Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]


class Meetings(NamedTuple):
    """What item i of one side meets on the other: `others` through `taps`, from starts[i] to starts[i + 1] - 1."""

    starts: Numbers
    others: Numbers
    taps: Numbers


class Runs(NamedTuple):
    """Meetings of one tap that lie side by side: `counts` positions from `positions` on meet as many places.

    Positions are cut into chunks; those of chunk q and tap k are runs starts[q * taps + k] to the next start.
    """

    starts: Numbers
    positions: Numbers
    places: Numbers
    counts: Numbers
    chunks: int


@functools.lru_cache(maxsize=256)
def by_position(window: Window, size: Sizes) -> Meetings:
    """For each output position, the input places that it reads."""
    positions, places, taps = _all(window, size)
    return _grouped(positions, places, taps, int(np.prod(window.output_size(size))))


@functools.lru_cache(maxsize=256)
def by_place(window: Window, size: Sizes) -> Meetings:
    """For each input place, the output positions that read it."""
    positions, places, taps = _all(window, size)
    return _grouped(places, positions, taps, int(np.prod(size)))


@functools.lru_cache(maxsize=256)
def by_tap(window: Window, size: Sizes, chunk: int) -> Runs:
    """For each `chunk` positions and each tap, the runs of positions whose places lie side by side as well."""
    positions, places, taps = _all(window, size)
    chunks = -(-int(np.prod(window.output_size(size))) // chunk)
    keys = positions // chunk * window.tap_count + taps
    order = np.lexsort((positions, keys))
    positions, places, keys = positions[order], places[order], keys[order]
    breaks = (np.diff(positions) != 1) | (np.diff(places) != 1) | (np.diff(keys) != 0)
    first = np.flatnonzero(np.concatenate([[True], breaks])[: len(keys)])
    counts = np.diff(np.append(first, len(keys)))
    starts = _starts(keys[first], chunks * window.tap_count)
    return Runs(starts, positions[first], places[first], counts, chunks)


def _all(window: Window, size: Sizes) -> tuple[Numbers, Numbers, Numbers]:
    """Position, place and tap of every meeting, axis by axis: a later axis counts faster."""
    positions = places = taps = np.zeros(1, np.int64)
    axes = zip(window.kernel, window.stride, window.dilation, window.before, size, strict=True)
    for (kernel, stride, dilation, before, extent), count in zip(axes, window.output_size(size), strict=True):
        position, tap = np.arange(count)[:, None], np.arange(kernel)
        place = position * stride + tap * dilation - before
        p, k = np.nonzero((place >= 0) & (place < extent))
        positions = (positions[:, None] * count + p).ravel()
        places = (places[:, None] * extent + place[p, k]).ravel()
        taps = (taps[:, None] * kernel + k).ravel()
    return positions, places, taps


def _grouped(items: Numbers, others: Numbers, taps: Numbers, count: int) -> Meetings:
    order = np.lexsort((taps, items))
    return Meetings(_starts(items, count), others[order], taps[order])


def _starts(keys: Numbers, count: int) -> Any:
    """Where each of `count` keys begins in a sorted list of keys, and the end."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))])
