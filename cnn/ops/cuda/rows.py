"""Sums of rows on a GPU, in an order that is always the same."""

from __future__ import annotations

import torch
from torch import Tensor


def add_rows(table: Tensor, index: Tensor, rows: Tensor) -> None:
    """As a product with a matrix that has a 1 where a row is picked: threads that add to one row have no order.

    A value that is infinite or NaN spreads to all rows.
    """
    picked = torch.arange(len(table), device=table.device)[:, None] == index  # [K, N]
    table.addmm_(picked.to(table.dtype), rows)
