"""Gradients that are too long. Explained in docs/optimizers.md."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_grad_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale a gradient in place to at most this Euclidean norm, and return its norm before.

    g <- g * min(1, max_norm / (|g| + 1e-6)), as `torch.nn.utils.clip_grad_norm_`.

    Shapes: g [P]. Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.
    """
    norm = torch.sqrt(gradient.dot(gradient))
    gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1))
    return norm
