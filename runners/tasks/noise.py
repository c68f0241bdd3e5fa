"""Noise that never changes: each example of an evaluation, and each sample, has its own, however it is batched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runners.data.transfer import upload

SEEDS = 2**32
"""How many seeds torch's generator on the CPU tells apart: it ignores all but their low 32 bits."""
STRIDE = 2_654_435_769
"""The golden section of SEEDS: its multiples are far from each other, so that two seeds up to 10,000 apart share no
noise among their first 100,000 examples."""


def fixed_noise(draw: Callable[..., Tensor], like: Tensor, first: int, seed: int = 0) -> Tensor:
    """Noise [..., N] as `like`, for the examples from `first` on, drawn by `draw`: torch.rand or torch.randn.

    The host draws them, so that they are the same on every device, and queues one copy to a GPU.
    """
    generator = torch.Generator()
    noise = torch.empty(like.shape, dtype=like.dtype)
    for index in range(like.shape[-1]):
        generator.manual_seed((seed * STRIDE + first + index) % SEEDS)
        noise[..., index] = draw(like.shape[:-1], generator=generator, dtype=like.dtype)
    return upload(noise, like.device)
