"""Cross entropy in Triton."""

from __future__ import annotations

from torch import Tensor

from cnn.ops import capture
from cnn.ops.checks import unknown_classes
from cnn.ops.cuda.guard import note_strays
from cnn.ops.cuda.kernels import loss as kernels
from cnn.ops.cuda.launching import blocks, launch, power_of_2
from cnn.ops.memory import empty
from cnn.ops.reference import loss as reference
from cnn.ops.reference.finite import require_within

MAX_CLASSES = 1024
TILE = 2048
"""Logits of one program, all classes of some targets."""


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    classes, count = logits.shape
    flag = capture.fault_flag()
    if flag is None:
        require_within(target, classes, lambda strays: unknown_classes(strays, classes))
    if classes > MAX_CLASSES or not count:
        if flag is not None:
            note_strays(target, classes, flag)
        return reference.cross_entropy(logits, target.clamp(0, classes - 1), weight, label_smoothing)
    gradient = empty(tuple(logits.shape), like=logits)
    block_k = power_of_2(classes, least=2)
    block_l = power_of_2(count, most=min(128, TILE // block_k))
    partial = empty((blocks(count, block_l),), like=logits)
    weights = logits if weight is None else weight.contiguous()
    tensors = logits.contiguous(), target.contiguous(), weights, gradient, partial
    flags = logits if flag is None else flag
    constant = float(label_smoothing), weight is not None, flag is not None, block_k, block_l
    launch(kernels.cross_entropy, (len(partial),), *tensors, flags, classes, count, *constant)
    return partial.sum() if len(partial) > 1 else partial[0], gradient
