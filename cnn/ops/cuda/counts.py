"""Counting right predictions in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.cuda.kernels import loss as kernels
from cnn.ops.cuda.launching import launch
from cnn.ops.memory import empty
from cnn.ops.reference import counts as reference

MAX_CLASSES, MAX_TARGETS = 64, 1 << 14
"""What one program counts in less time than torch's three launches take."""


def count_hits(scores: Tensor, target: Tensor) -> Tensor:
    classes, count = scores.shape
    if classes > MAX_CLASSES or count > MAX_TARGETS or not count or not classes:
        return reference.count_hits(scores, target)
    hits = empty((), like=scores, dtype=torch.int64)
    launch(kernels.count_hits, (1,), scores.contiguous(), target.contiguous(), hits, classes, count, 1024)
    return hits
