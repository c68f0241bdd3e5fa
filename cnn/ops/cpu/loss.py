"""Cross entropy on a compiled loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cnn.ops.cpu.arrays import array
from cnn.ops.cpu.kernels import loss as kernels
from cnn.ops.memory import empty
from cnn.ops.reference import loss as reference

MAX_LOGITS = 1 << 14
"""Above this, torch's vectorised exponential is faster than a single pass."""


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    if logits.numel() > MAX_LOGITS:
        return reference.cross_entropy(logits, target, weight, label_smoothing)
    gradient = empty(tuple(logits.shape), like=logits)
    weights = np.ones(len(logits), dtype=gradient.numpy().dtype) if weight is None else array(weight)
    value, strays = kernels.cross_entropy(array(logits), array(target), weights, label_smoothing, gradient.numpy())
    if strays:
        raise IndexError(f"{strays} targets are not among the classes 0 to {len(logits) - 1}")
    return torch.tensor(value, dtype=logits.dtype), gradient
