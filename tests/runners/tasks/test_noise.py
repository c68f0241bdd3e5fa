"""Noise that never changes: the same however it is batched, and another for each example and seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from runners.tasks.noise import SEEDS, STRIDE, fixed_noise


@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_example_has_its_noise_in_every_batch(draw: Callable[..., Tensor], dtype: torch.dtype) -> None:
    whole = fixed_noise(draw, torch.empty(3, 2, 20, dtype=dtype), 0, seed=4)
    assert whole.dtype == dtype
    parts = [fixed_noise(draw, torch.empty(3, 2, size, dtype=dtype), first, 4) for first, size in ((0, 7), (7, 13))]
    assert torch.equal(torch.cat(parts, -1), whole)


def test_examples_and_seeds_have_noise_of_their_own() -> None:
    """torch.Generator alone doesn't tell 1 from 2**32 + 1."""
    drawn = torch.cat([fixed_noise(torch.randn, torch.empty(2, 50), 0, seed) for seed in (0, 1, 2, 7, 999_999_999)], -1)
    assert len({tuple(column) for column in drawn.T.tolist()}) == 250


def test_seeds_that_are_close_share_nothing() -> None:
    multiples = np.arange(1, 10_001, dtype=np.uint64) * np.uint64(STRIDE) % np.uint64(SEEDS)
    assert min(multiples.min(), (np.uint64(SEEDS) - multiples).min()) > 100_000
