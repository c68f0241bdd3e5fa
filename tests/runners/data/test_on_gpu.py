"""Batches that are made on a GPU: those of the CPU, but for the last bits of what is sampled from other places."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from runners.data import transfer
from runners.data.augmentation import Augmentation
from runners.data.batches import Batches
from tests.cnn.gpu.device import ON_A_GPU
from tests.runners.data.test_making import AMOUNTS, COUNT, SIZE, examples_of

pytestmark = [*ON_A_GPU]

SAME_NUMBERS = {name: each for name, each in AMOUNTS.items() if not each.elastic}
"""Other devices draw other noise."""


@pytest.mark.parametrize("place", ["resident", "streaming"])
@pytest.mark.parametrize("name", SAME_NUMBERS)
def test_batches_are_those_of_the_cpu(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over epochs with a short last batch, all but the first of which are replayed, and in order."""
    if place == "streaming":
        monkeypatch.setattr(transfer, "free_memory", lambda device: 0)
    gpu, cpu = (batches(SAME_NUMBERS[name], device) for device in ("cuda", "cpu"))
    for epoch in range(6):
        seen = 0
        pairs = chain(
            zip(gpu.shuffled(5, epoch, keep=2), cpu.shuffled(5, epoch, keep=2), strict=True),
            zip(gpu.in_order(), cpu.in_order(), strict=True),
        )
        for found, expected in pairs:
            assert torch.equal(found.targets.cpu(), expected.targets)
            assert found.x.is_contiguous()
            # a pixel whose place is rounded to the other side of an edge is another one
            far = (found.x.cpu() - expected.x).abs() > 1e-4 * expected.x.abs().max()
            assert int(far.sum()) <= expected.x.numel() // 1000
            seen += len(found)
        assert seen == 2 * COUNT


def batches(augmentation: Augmentation, device: str) -> Batches:
    examples, there = examples_of((2, 9, 8)), torch.device(device)
    return Batches(examples, SIZE, mean=0.1, std=0.3, dtype=torch.float32, device=there, augmentation=augmentation)
