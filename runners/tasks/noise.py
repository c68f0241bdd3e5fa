"""Noise that never changes: each example of an evaluation, and each sample, has its own, however it is batched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def fixed_noise(draw: Callable[..., Tensor], like: Tensor, first: int, seed: int = 0) -> Tensor:
    """Noise [..., N] as `like`, for the examples from `first` on, drawn by `draw`: torch.rand or torch.randn."""
    generator = torch.Generator()
    noise = torch.empty(like.shape, dtype=like.dtype)
    for index in range(like.shape[-1]):
        # hashed, because a generator of torch takes no more than 32 bits of its seed into account
        (hashed,) = np.random.SeedSequence([seed, first + index]).generate_state(1)
        generator.manual_seed(int(hashed))
        noise[..., index] = draw(like.shape[:-1], generator=generator, dtype=like.dtype)
    return noise.to(like.device)
