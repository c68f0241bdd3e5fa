"""Operations around a training step that aren't derivatives: clearing gradients, counting right predictions."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, check_writable
from cnn.ops.reference import counts as reference


def clear(x: Tensor) -> None:
    """x <- 0 in place."""
    check_writable(x=x)
    choose(reference.clear, x)(x)


def argmax(x: Tensor) -> Tensor:
    """The index of the largest value of each column, the first one of several. NaN counts as larger than all others.

    x [K, N] -> [N].
    """
    if x.dim() != 2 or not len(x):
        raise ValueError(f"x: shape mismatch, got {list(x.shape)} instead of [K, N]")
    return choose(reference.argmax, x)(x)


def count_hits(scores: Tensor, target: Tensor) -> Tensor:
    """How many targets are the index of the largest score of their column. scores [K, N], target [N] -> []."""
    check_shape(target, scores.shape[1:], "target")
    return choose(reference.count_hits, scores)(scores, target)
