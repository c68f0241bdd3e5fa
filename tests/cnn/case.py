"""What a layer is tried on: an entry of a config, the shape of an input, and how to draw one away from kinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.cnn.oracle import Entry

Strategy = st.SearchStrategy["Case"]


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def off_zero(shape: tuple[int, ...], seed: int) -> Tensor:
    """Away from the kink at 0."""
    x = normal(shape, seed)
    return x + 0.1 * x.sign()


def off_three(shape: tuple[int, ...], seed: int) -> Tensor:
    """On all sides of the kinks at -3 and 3, and away from them."""
    x = 3 * normal(shape, seed)
    return x + 0.1 * (x + 3).sign() + 0.1 * (x - 3).sign()


def distinct(shape: tuple[int, ...], seed: int) -> Tensor:
    """No two values closer than 0.01: no ties."""
    count = int(torch.Size(shape).numel())
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (order.double() * 0.01 - count * 0.005).view(shape)


@dataclass
class Case:
    kind: str
    arguments: Mapping[str, Any]
    input_shape: tuple[int, ...]
    batch: int
    draw: Callable[[tuple[int, ...], int], Tensor] = field(default=normal, repr=False)
    train: bool = True

    @property
    def entry(self) -> Entry:
        return {self.kind: dict(self.arguments)}

    def x(self, seed: int) -> Tensor:
        return self.draw((*self.input_shape, self.batch), seed)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
batches = st.sampled_from([1, 2, 3, 5])
wide_batches = st.sampled_from([1, 3, 8, 17])
"""Convolutions work in another way on batches that fill the processor's vectors."""


@st.composite
def per_axis(draw: st.DrawFn, axes: int, low: int, high: int) -> Any:
    """One number, or one for each axis."""
    numbers = draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))
    return numbers[0] if draw(st.booleans()) else numbers


def spread(value: Any, axes: int) -> list[int]:
    return [value] * axes if isinstance(value, int) else list(value)
