"""Cross entropy and its gradient in one pass over the logits."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, unknown_classes
from cnn.ops.reference import loss as reference


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The weighted mean of the negative log-likelihood of the targets under softmax(logits), and its gradient.

    See `cnn.losses.CrossEntropy` for the formulas. If all targets have weight 0, these are sums instead.
    logits [K, L], target [L], weight [K] -> value [], dlogits [K, L]. Raises IndexError for unknown classes.
    """
    check_shape(target, logits.shape[1:], "target")
    if weight is not None:
        check_shape(weight, logits.shape[:1], "weight")
    try:
        return choose(reference.cross_entropy, logits)(logits, target, weight, label_smoothing)
    except (IndexError, RuntimeError):
        classes = len(logits)
        strays = int(((target < 0) | (target >= classes)).sum())
        if strays:
            raise unknown_classes(strays, classes) from None
        raise
