"""What of a config goes together, and with the data: shapes and classes, batches and steps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cnn import Sequential, plan_model
from cnn.faults import ConfigError, Fault
from cnn.losses import Loss
from cnn.optimizers import Optimizer
from cnn.schedules import RunLength, Schedule
from runners.data import Description
from runners.files.checkpoint import PRECISIONS
from runners.tasks.task import Task

if TYPE_CHECKING:
    from runners.config.schema import Settings


@dataclass(frozen=True)
class Rule:
    """The optimizer and the schedule of a network, None where they aren't sound, and the sections that name them."""

    optimizer: Optimizer | None
    schedule: Schedule | None
    sections: tuple[str, str]


@dataclass(frozen=True)
class Parts:
    """What a config names, None where that isn't sound."""

    settings: Settings | None
    task: Task | None
    models: Mapping[str, Mapping[str, Any] | None]
    rules: Mapping[str, Rule]
    loss: Loss | None


def misfits(parts: Parts, data: Description) -> list[Fault]:
    """Where parts of a config don't fit one another or the data, as far as the data are known."""
    settings, task = parts.settings, parts.task
    faults: list[Fault] = []
    planned: dict[str, Sequential] = {}
    if task and data.input_shape and (data.classes or not task.names_classes):
        batch = settings.batch_size * PRECISIONS[settings.dtype].itemsize if settings else 0
        for name, shape in task.input_shapes(data.input_shape).items():
            planned |= _planned(name, parts.models.get(name), shape, batch, faults)
    if task:
        faults = [*task.faults(planned, parts.loss, data), *faults]
    if settings is None:
        return faults
    dtype = PRECISIONS[settings.dtype]
    if data.examples:
        faults += batches(settings.batch_size, settings.accumulate, data.examples)
    for rule in parts.rules.values():
        faults += learning_rate(rule, dtype)
        if data.examples:
            faults += rates(rule, settings.run_length(data.examples), dtype)
    return list(dict.fromkeys(faults))


def _planned(
    name: str, model: Mapping[str, Any] | None, shape: tuple[int, ...], batch: int, faults: list[Fault]
) -> dict[str, Sequential]:
    """The network with its shapes known, by its name; adds the first layer whose input doesn't fit to the faults.

    `batch`: the bytes of a number for each example of a batch.
    """
    if model is None:
        return {}
    try:
        planned = plan_model(model, shape)
    except ConfigError as error:
        faults += error.inside(name).faults
        return {}
    faults += _too_large(name, planned, shape, batch)
    return {name: planned}


def _too_large(name: str, planned: Sequential, input_shape: tuple[int, ...], batch: int) -> list[Fault]:
    """The first layer whose output alone is larger than the machine's memory."""
    memory = physical_memory()
    for _, layer, shape in planned.walk(input_shape):
        output = layer.output_shape(shape)
        size = math.prod(output) * batch
        if size > memory:
            problem = f"a batch of its output {list(output)} takes {size / 2**30:,.0f} GiB, more than there is"
            return [Fault(f"{name}.{layer.place or 'layers'}", problem)]
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


def learning_rate(rule: Rule, dtype: torch.dtype) -> list[Fault]:
    """A rate that the network's numbers can't hold, and a smallest one that is larger."""
    if rule.optimizer is None or rule.schedule is None:
        return []
    optimizer, schedule = rule.sections
    lr, smallest = rule.optimizer.lr, getattr(rule.schedule, "min_lr", 0.0)
    if lr > torch.finfo(dtype).max:
        return [Fault(f"{optimizer}.lr", f"{lr:g} is more than a {str(dtype).removeprefix('torch.')} can hold")]
    if smallest > lr:
        return [Fault(f"{schedule}.min_lr", f"{smallest:g} is more than {optimizer}.lr, give at most {lr:g}")]
    return []


def rates(rule: Rule, length: RunLength, dtype: torch.dtype) -> list[Fault]:
    """A warm-up that never ends, and a learning rate that overflows at the end of warm-up or of the run."""
    if rule.optimizer is None or rule.schedule is None:
        return []
    lr, schedule, section = rule.optimizer.lr, rule.schedule, rule.sections[1]
    warmup = schedule.warmup_steps
    if warmup >= length.steps:
        problem = f"{warmup} is not allowed, the run has {length.steps} steps: give fewer"
        return [Fault(f"{section}.warmup_steps", problem)]
    last = [schedule(lr, step, length) for step in (warmup, length.steps - 1)]
    if lr <= torch.finfo(dtype).max and not all(rate <= torch.finfo(dtype).max for rate in last):
        return [Fault(section, f"the learning rate grows beyond all bounds within {length.epochs} epochs")]
    return []
