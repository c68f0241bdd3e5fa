"""The input places under a window at each position: a convolution's geometry as plain lists of numbers.

Kernels that follow these lists need no axes, strides, dilations or padding. Positions, places and taps are numbered in
row-major order over all axes. Pairs in the padding aren't listed.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from cnn.ops.window import Sizes, Window

Numbers = np.ndarray[Any, np.dtype[Any]]
P = ParamSpec("P")
T = TypeVar("T", bound=tuple[Any, ...])

MAX_BYTES = 1 << 29
"""Of all tables together. A network for images of one size needs a few; with many sizes they are made again."""


class TableCache:
    """The most recently used tables, read-only, up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._tables: OrderedDict[Hashable, Any] = OrderedDict()

    def __call__(self, make: Callable[P, T]) -> Callable[P, T]:
        """A function that keeps the tables it has made."""

        @functools.wraps(make)
        def remembered(*args: P.args, **kwargs: P.kwargs) -> T:
            key = make.__name__, args
            table: T | None = self._tables.get(key)
            if table is None:
                table = make(*args, **kwargs)
                for part in _arrays(table):
                    part.flags.writeable = False
                self._tables[key] = table
                self.nbytes += _size(table)
                while self.nbytes > self.limit and len(self._tables) > 1:
                    self.nbytes -= _size(self._tables.popitem(last=False)[1])
            else:
                self._tables.move_to_end(key)
            return table

        return remembered


def _arrays(table: tuple[Any, ...]) -> list[Numbers]:
    return [part for part in table if isinstance(part, np.ndarray)]


def _size(table: tuple[Any, ...]) -> int:
    return sum(part.nbytes for part in _arrays(table))


cached = TableCache(MAX_BYTES)


class GatherList(NamedTuple):
    """Runs of items, and the partners of each run's first item, whose followers have the partners after those.

    Run i has the items from firsts[i] to firsts[i + 1] - 1, and the partners `others`, by way of `taps`, from starts[i]
    to starts[i + 1] - 1.
    """

    starts: Numbers
    firsts: Numbers
    others: Numbers
    taps: Numbers


class Runs(NamedTuple):
    """Runs of pairs of one tap: `counts` positions from `positions` on read as many places from `places` on.

    Positions are cut into chunks; those of chunk q and tap k are runs starts[q * taps + k] up to the next start.
    """

    starts: Numbers
    positions: Numbers
    places: Numbers
    counts: Numbers
    chunks: int


@cached
def by_position(window: Window, size: Sizes, longest: int) -> GatherList:
    """For runs of at most `longest` output positions, the input places that they read."""
    positions, places, taps = _all(window, size)
    return _grouped(positions, places, taps, int(np.prod(window.output_size(size))), longest)


@cached
def by_place(window: Window, size: Sizes, longest: int) -> GatherList:
    """For runs of at most `longest` input places, the output positions that read them."""
    positions, places, taps = _all(window, size)
    return _grouped(places, positions, taps, int(np.prod(size)), longest)


@cached
def by_tap(window: Window, size: Sizes, chunk: int) -> Runs:
    """For each `chunk` positions and each tap, the runs of positions whose places are consecutive too."""
    positions, places, taps = _all(window, size)
    chunks = -(-int(np.prod(window.output_size(size))) // chunk)
    keys = positions // chunk * window.tap_count + taps
    order = np.lexsort((positions, keys))
    positions, places, keys = positions[order], places[order], keys[order]
    breaks = (np.diff(positions) != 1) | (np.diff(places) != 1) | (np.diff(keys) != 0)
    first = np.flatnonzero(np.concatenate([[True], breaks])[: len(keys)])
    counts = np.diff(np.append(first, len(keys)))
    starts = _starts(keys[first], chunks * window.tap_count)
    return Runs(starts, _short(positions[first]), _short(places[first]), _short(counts), chunks)


@cached
def one_run(length: int) -> Runs:
    """The only run of this many positions, of one tap and in one chunk."""
    zero = _short(np.zeros(1))
    return Runs(np.array([0, 1]), zero, zero, _short(np.array([length])), 1)


def _all(window: Window, size: Sizes) -> tuple[Numbers, Numbers, Numbers]:
    """Position, place and tap of every pair, axis by axis; later axes vary faster."""
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


def _grouped(items: Numbers, others: Numbers, taps: Numbers, count: int, longest: int) -> GatherList:
    order = np.lexsort((taps, items))
    items, others, taps = items[order], others[order], taps[order]
    starts = _starts(items, count)
    sizes = np.diff(starts)
    before = np.arange(len(items)) - sizes[items]  # the same partner of the item before, if that has as many
    shifted = (taps == taps[before]) & (others == others[before] + 1) & (items == items[before] + 1)
    follows = np.append(False, sizes[1:] == sizes[:-1]) & (np.bincount(items, shifted, count) == sizes)
    firsts = _cut(np.flatnonzero(~follows), count, longest)
    keep = np.concatenate([np.arange(starts[first], starts[first + 1]) for first in firsts])
    return GatherList(
        np.append(0, np.cumsum(sizes[firsts])), np.append(firsts, count), _short(others[keep]), _short(taps[keep])
    )


def _cut(firsts: Numbers, count: int, longest: int) -> Numbers:
    """The starts of runs, with long ones cut into pieces of at most `longest`."""
    ends = np.append(firsts[1:], count)
    return np.concatenate([np.arange(first, end, longest) for first, end in zip(firsts, ends, strict=True)])


def _short(numbers: Numbers) -> Numbers:
    """As int32, which is enough for the places of any tensor here."""
    return numbers.astype(np.int32)


def _starts(keys: Numbers, count: int) -> Any:
    """The start of each of `count` keys in a sorted list, and the end."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))])
