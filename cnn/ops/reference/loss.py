"""Cross entropy in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    weight = logits.new_ones(len(logits)) if weight is None else weight
    wanted = weight[target]
    hit, spread = (1 - label_smoothing) * wanted, (label_smoothing / len(weight) * weight)[:, None]
    shifted = logits - logits.amax(0)
    exponentials = torch.exp(shifted)
    total = exponentials.sum(0)
    log_total = torch.log(total)
    value = (hit * (log_total - shifted.gather(0, target[None])[0])).sum()
    if label_smoothing:
        value = value + (spread * (log_total - shifted)).sum()
    norm = wanted.sum()
    norm = norm.masked_fill(norm == 0, 1)
    gradient = exponentials.div_(total).mul_(hit + spread.sum()).sub_(spread)
    return value / norm, gradient.scatter_add_(0, target[None], -hit[None]).div_(norm)
