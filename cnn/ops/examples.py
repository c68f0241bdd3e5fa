"""Batches made from a table of examples."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, check_writable
from cnn.ops.reference import examples as reference


def take_examples(x: Tensor, rows: Tensor, chosen: Tensor) -> None:
    """x[p, n] = rows[chosen[n], p]: gather rows of a table of examples into a batch-last batch.

    x [P, N] of any dtype and device, rows [examples, P], chosen [N]. Raises IndexError for an unknown example.
    """
    check_shape(x, (rows.shape[1], len(chosen)), "x")
    check_writable(x=x)
    choose(reference.take_examples, x)(x, rows, chosen)
