"""Flags of faults, and what is put back where they are set, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def note_not_finite(x: Tensor, flag: Tensor) -> None:
    flag.bitwise_or_(~x.isfinite().all())


def note_strays(numbers: Tensor, count: int, flag: Tensor) -> None:
    flag.bitwise_or_(~((numbers >= 0) & (numbers < count)).all())


def save(homes: Sequence[Tensor], copies: Sequence[Tensor], table: Tensor) -> None:
    for home, copy in zip(homes, copies, strict=True):
        copy.copy_(home)


def put_back(homes: Sequence[Tensor], copies: Sequence[Tensor], table: Tensor, flag: Tensor) -> None:
    for home, copy in zip(homes, copies, strict=True):
        home.copy_(torch.where(flag != 0, copy, home))
