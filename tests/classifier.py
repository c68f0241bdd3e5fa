"""A classifier made by hand, without config and data, and one step of it."""

from __future__ import annotations

from collections.abc import Sequence

from cnn import Mode, Sequential
from cnn.losses import Loss
from cnn.optimizers import SGD, Optimizer
from cnn.schedules import Constant, RunLength
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.tasks.task import Step

ONLY = Step(0, RunLength(1, 1), Mode(train=True))
"""The only step of a run."""


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
