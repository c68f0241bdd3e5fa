"""Batches and augmentation on a device other than the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runners.data.augmentation import Augmentation
from runners.data.batches import Batches
from runners.data.dataset import Examples
from tests.any_device import DEVICE, tensor

EVERYTHING = Augmentation(shift=1.5, rotation=10, scale=0.1, elastic=1.0, elastic_sigma=2.0, flip=0.5, crop=1, cutout=3)


@pytest.fixture(autouse=True)
def noise_without_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none on this device."""
    monkeypatch.setattr(
        "runners.data.augmentation.noise_from_seed", lambda seed, shape, device: torch.rand(shape, device=device)
    )


def test_augmentation_stays_on_the_device() -> None:
    x = tensor(1, 8, 8, 5)
    changed = EVERYTHING(x, np.random.default_rng(0))
    assert (changed.device, changed.shape) == (DEVICE, x.shape)


def test_batches_are_on_the_device() -> None:
    examples = Examples(torch.zeros(7, 1, 8, 8, dtype=torch.uint8), torch.arange(7))
    batches = Batches(examples, 4, mean=0.1, std=0.3, dtype=torch.float32, device=DEVICE, augmentation=EVERYTHING)
    for batch in [*batches.in_order(), *batches.shuffled(0, 0)]:
        assert (batch.x.device, batch.targets.device, batch.x.dtype) == (DEVICE, DEVICE, torch.float32)
