"""Cross entropy on a compiled loop."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cnn.ops.checks import unknown_classes
from cnn.ops.cpu.arrays import array, flat
from cnn.ops.cpu.finite import require_within
from cnn.ops.cpu.kernels import loss as kernels
from cnn.ops.memory import empty
from cnn.ops.reference import loss as reference

MAX_LOGITS = 1 << 14
"""Above this, torch's vectorised exponential is faster than a single pass."""


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    classes = len(logits)

    def fault(strays: int) -> Exception:
        return unknown_classes(strays, classes)

    if logits.numel() > MAX_LOGITS:
        require_within(target, classes, fault)
        return reference.cross_entropy(logits, target, weight, label_smoothing)
    gradient = empty(tuple(logits.shape), like=logits)
    weights = np.ones(len(logits), dtype=gradient.numpy().dtype) if weight is None else array(weight)
    value = empty((), like=logits)
    arguments = array(logits), array(target), weights, label_smoothing
    kernels.cross_entropy.check(fault, *arguments, flat(value), gradient.numpy())
    return value, gradient
