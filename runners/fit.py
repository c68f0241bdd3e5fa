"""What of a config goes together, and with the data: shapes and classes, batches and steps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from cnn import Sequential, plan_model
from cnn.faults import ConfigError, Fault
from cnn.losses import Loss
from cnn.schedules import RunLength, Schedule


def loss(loss: Loss, classes: int) -> list[Fault]:
    """Weights of another number of classes."""
    try:
        loss.check_classes(classes)
    except ConfigError as error:
        return error.inside("loss").faults
    return []


def network(model: Mapping[str, Any], input_shape: tuple[int, ...], classes: int, batch: int) -> list[Fault]:
    """The first layer whose input doesn't fit, outputs of another number than there are classes, and too large ones.

    `batch`: the bytes of a number for each example of a batch.
    """
    try:
        planned = plan_model(model, input_shape)
    except ConfigError as error:
        return error.inside("model").faults
    faults = _too_large(planned, input_shape, batch)
    given = planned.output_shape(input_shape)
    if given != (classes,):
        last = list(planned.layers)[-1]
        problem = f"the last, {last}, gives {list(given)}, the data have {classes} classes: give [{classes}]"
        faults.append(Fault("model.layers", problem))
    return faults


def _too_large(planned: Sequential, input_shape: tuple[int, ...], batch: int) -> list[Fault]:
    """The first layer whose output alone is larger than the machine's memory."""
    memory = physical_memory()
    for _, layer, shape in planned.walk(input_shape):
        output = layer.output_shape(shape)
        size = math.prod(output) * batch
        if size > memory:
            problem = f"a batch of its output {list(output)} takes {size / 2**30:,.0f} GiB, more than there is"
            return [Fault(f"model.{layer.place}" if layer.place else "model.layers", problem)]
    return []


def physical_memory() -> int:
    """The machine's memory in bytes; where the system doesn't tell, more than any machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**60


def batches(size: int, accumulate: int, examples: int) -> list[Fault]:
    """Batches larger than the data, and optimizer steps of more batches than there are."""
    if size > examples:
        return [Fault("batch_size", f"{size} is more than the {examples} training examples, give at most {examples}")]
    count = -(-examples // size)
    if accumulate > count:
        problem = f"{accumulate} is more than the {count} batches that {examples} training examples make"
        return [Fault("accumulate", f"{problem}, give at most {count}")]
    return []


def learning_rate(schedule: Schedule, lr: float, dtype: torch.dtype) -> list[Fault]:
    """A rate that the network's numbers can't hold, and a smallest one that is larger."""
    if lr > torch.finfo(dtype).max:
        return [Fault("optimizer.lr", f"{lr:g} is more than a {str(dtype).removeprefix('torch.')} can hold")]
    smallest = getattr(schedule, "min_lr", 0.0)
    if smallest > lr:
        return [Fault("schedule.min_lr", f"{smallest:g} is more than optimizer.lr, give at most {lr:g}")]
    return []


def schedule(schedule: Schedule, lr: float, clock: RunLength, dtype: torch.dtype) -> list[Fault]:
    """A warm-up that never ends, and a learning rate that overflows at the end of warm-up or of the run."""
    warmup = schedule.warmup_steps
    if warmup >= clock.steps:
        problem = f"{warmup} is not allowed, the run has {clock.steps} steps: give fewer"
        return [Fault("schedule.warmup_steps", problem)]
    rates = [schedule(lr, step, clock) for step in (warmup, clock.steps - 1)]
    if lr <= torch.finfo(dtype).max and not all(rate <= torch.finfo(dtype).max for rate in rates):
        return [Fault("schedule", f"the learning rate grows beyond all bounds within {clock.epochs} epochs")]
    return []
