"""Windows as kernels take them: three axes, and for the gradient of an input the phases of its places."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from cnn.ops.window import Sizes, Window


def volume(x: Tensor) -> Sizes:
    """The size of an image in three axes, of a tensor [C, *S, N]."""
    return on_three_axes(tuple(x.shape[1:-1]))


def on_three_axes(size: Sizes) -> Sizes:
    return (1,) * (3 - len(size)) + size


@functools.lru_cache(maxsize=1024)
def constants(window: Window, x: Sizes, y: Sizes) -> tuple[Sizes, ...]:
    """The constants of a kernel whose window moves over an image: X, Y, STRIDE, DILATION, BEFORE, KERNEL."""
    kernel, stride, dilation, before = window.on_three_axes()
    return on_three_axes(x), on_three_axes(y), stride, dilation, before, kernel


NO_WINDOW: tuple[Sizes, ...] = ((1, 1, 1),) * 4 + ((0, 0, 0), (1, 1, 1))
"""The constants of features without spatial axes: images of one place."""


@dataclass(frozen=True)
class Phases:
    """The places of an input by the remainder of their division by the stride.

    `table` [phases, 3 axes, 5]: places, taps that meet them, first tap, base, start (`kernels/conv.py`). From a tap to
    the next one of a phase, there are `step` taps of the window and `shift` outputs.
    """

    table: Sequence[Sequence[int]]
    step: Sizes
    shift: Sizes

    def patches(self, height: int, width: int) -> int:
        """The number of patches of this size in the phase that has most."""
        return max(row[0] * -(-row[5] // height) * -(-row[10] // width) for row in self.table)


@functools.lru_cache(maxsize=1024)
def phases_of(window: Window, size: Sizes) -> Phases:
    """The phases of an input of this size."""
    kernel, stride, dilation, before = window.on_three_axes()
    axes, steps = [], []
    for extent, taps, step, apart, pad in zip(on_three_axes(size), kernel, stride, dilation, before, strict=True):
        rows = []
        for start in range(min(step, extent)):
            meeting = [tap for tap in range(taps) if (start + pad - tap * apart) % step == 0]
            first = meeting[0] if meeting else 0
            base = (start + pad - first * apart) // step
            rows.append((-(-(extent - start) // step), len(meeting), first, base, start))
        axes.append(rows)
        steps.append(step // math.gcd(step, apart))  # taps that far apart meet the same places
    shift = tuple(-apart * step // each for apart, step, each in zip(dilation, steps, stride, strict=True))
    table = [[number for row in rows for number in row] for rows in product(*axes)]
    return Phases(table, tuple(steps), shift)


@functools.cache
def phase_table(window: Window, size: Sizes, device: torch.device) -> Tensor:
    """The table of the phases on a device. It stays there: graphs know its address."""
    return torch.tensor(phases_of(window, size).table, dtype=torch.int32, device=device)
