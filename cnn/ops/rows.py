"""Rows of a table that are picked several times."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape
from cnn.ops.reference import rows as reference


def add_rows(table: Tensor, index: Tensor, rows: Tensor) -> None:
    """table[index[n]] += rows[n] for all n, in place. table [K, D], index [N] of integers in [0, K), rows [N, D]."""
    check_shape(rows, (len(index), *table.shape[1:]), "rows")
    choose(reference.add_rows, table)(table, index, rows)
