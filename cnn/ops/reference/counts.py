"""Clearing and counting in plain torch."""

from __future__ import annotations

from torch import Tensor


def clear(x: Tensor) -> None:
    x.zero_()


def argmax(x: Tensor) -> Tensor:
    return x.argmax(0)


def count_hits(scores: Tensor, target: Tensor) -> Tensor:
    return (scores.argmax(0) == target).sum()
