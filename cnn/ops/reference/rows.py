"""Sums of rows in plain torch."""

from __future__ import annotations

from torch import Tensor


def add_rows(table: Tensor, index: Tensor, rows: Tensor) -> None:
    table.index_add_(0, index, rows)
