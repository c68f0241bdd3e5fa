"""A classifier made by hand, without config and data, and one step of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cnn import Mode, Sequential, build_model
from cnn.losses import Loss
from cnn.optimizers import SGD, Optimizer
from cnn.schedules import Constant, RunLength
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.tasks.task import Step

ONLY = Step(0, RunLength(1, 1), Mode(train=True))
"""The only step of a run."""


def network(*end: Any) -> Sequential:
    """A small network of four classes, with further layers at its end."""
    layers = [{"conv2d": {"out_channels": 2, "kernel_size": 3}}, "relu", "flatten", {"linear": {"out_features": 4}}]
    return build_model({"layers": [*layers, *end]}, (1, 5, 5), seed=1, dtype=torch.float64)


def examples(count: int) -> Batch:
    """The same random examples in each call."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 5, 5, count, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, 4, (count,), generator=generator))


def classifier(network: Sequential, loss: Loss, optimizer: Optimizer | None = None) -> Classification:
    task = Classification()
    task.build({"model": network}, loss)
    task.train_with({"model": (optimizer or SGD(), Constant())})
    return task


def train_step(task: Classification, batches: Sequence[Batch], *, max_norm: float | None = None) -> dict[str, float]:
    """Take one step; returns the means of its batches."""
    sums = Sums()
    task.train_step(batches, Step(0, ONLY.length, ONLY.mode, max_norm), sums)
    return sums.means("train")
