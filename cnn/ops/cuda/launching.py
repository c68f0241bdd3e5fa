"""Launches of kernels, all of which pass through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton.language as tl

from cnn.ops import precision

Launch = Callable[..., object]

ACCUMULATORS = {torch.float32: tl.float32, torch.float64: tl.float64}
"""The type of a sum of products, by that of their factors."""

_PRODUCTS = {"float32": "tf32x3", "tf32": "tf32", "bf16": "bf16"}


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: int) -> None:
    kernel[grid](*arguments, **options)


_launcher: Launch = _launch


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: int) -> None:
    """Run a kernel for each place of a grid. `options`: num_warps and num_stages."""
    _launcher(kernel, grid, *arguments, **options)


@contextmanager
def launched_by(launcher: Launch) -> Iterator[None]:
    """Call something else instead of launching kernels: to compile them without a GPU, or to note which there are."""
    global _launcher
    before, _launcher = _launcher, launcher
    try:
        yield
    finally:
        _launcher = before


def products_in(dtype: torch.dtype) -> str:
    """How kernels multiply matrices of this type; see `arithmetic.multiply_add`."""
    return _PRODUCTS[precision.chosen()] if dtype == torch.float32 else "ieee"


def blocks(count: int, size: int) -> int:
    """How many blocks of a size hold this many values."""
    return -(-count // size)


def power_of_2(count: int, least: int = 1, most: int = 1 << 30) -> int:
    """The smallest power of 2 that isn't less than a count, within limits that are powers of 2."""
    return max(least, min(most, 1 << max(count - 1, 0).bit_length()))
