"""Whether the parts of a config are compatible with each other and with the data: shapes, classes, batches, steps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cnn import Sequential, plan_model
from cnn.faults import ConfigError, Fault
from cnn.losses import Loss
from cnn.optimizers import Optimizer
from cnn.schedules import ReduceOnPlateau, RunLength, Schedule
from cnn.text import nearest, show
from runners.config import freezing
from runners.config.settings import Settings
from runners.data import Description
from runners.files.checkpoint import PRECISIONS
from runners.tasks.task import Task


@dataclass(frozen=True)
class Rule:
    """A network's optimizer and schedule, each None if it is invalid, and the sections that configure them."""

    optimizer: Optimizer | None
    schedule: Schedule | None
    sections: tuple[str, str]


@dataclass(frozen=True)
class Parts:
    """The parts of a config, each None if it is invalid."""

    settings: Settings | None
    task: Task | None
    models: Mapping[str, Mapping[str, Any] | None]
    rules: Mapping[str, Rule]
    loss: Loss | None


def find_faults(parts: Parts, data: Description) -> list[Fault]:
    """The incompatibilities between parts of a config, and with the data as far as they are known."""
    settings, task = parts.settings, parts.task
    faults: list[Fault] = []
    planned: dict[str, Sequential] = {}
    if task:
        batch = settings.batch_size * PRECISIONS[settings.dtype].itemsize if settings else 0
        for name, shape in task.input_shapes(data).items():
            planned |= _planned(name, parts.models.get(name), shape, batch, faults)
    if task:
        faults = [*task.faults(planned, parts.loss, data), *faults]
    if settings is None:
        return faults
    if task and settings.frozen and len(planned) == len(task.networks):
        faults += freezing.find_faults(planned, settings.frozen)
    dtype = PRECISIONS[settings.dtype]
    if data.examples:
        faults += batches(settings.batch_size, settings.accumulate, data.examples)
    for rule in parts.rules.values():
        faults += learning_rate(rule, dtype)
        if task and isinstance(rule.schedule, ReduceOnPlateau):
            faults += monitors(rule.schedule, rule.sections[1], task)
        if data.examples:
            faults += rates(rule, settings.run_length(data.examples), dtype)
    return list(dict.fromkeys(faults))


def _planned(
    name: str, model: Mapping[str, Any] | None, shape: tuple[int, ...], batch: int, faults: list[Fault]
) -> dict[str, Sequential]:
    """The network with its shapes, by its name; the first layer that can't take its input is added to the faults.

    `batch`: the bytes of one value for each example of a batch.
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
    """A fault for the first layer whose output alone is larger than the machine's memory."""
    memory = physical_memory()
    for _, layer, shape in planned.walk(input_shape):
        output = layer.output_shape(shape)
        size = math.prod(output) * batch
        if size > memory:
            problem = (
                f"a batch of its output {list(output)} takes {size / 2**30:,.0f} GiB, more than this machine's memory"
            )
            return [Fault(f"{name}.{layer.place or 'layers'}", problem)]
    return []


def physical_memory() -> int:
    """The machine's memory in bytes; if the system doesn't report it, more than any machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**60


def batches(size: int, accumulate: int, examples: int) -> list[Fault]:
    """Faults for batches larger than the data, and for optimizer steps with more batches than an epoch has."""
    if size > examples:
        return [Fault("batch_size", f"{size} is more than the {examples} training examples, give at most {examples}")]
    count = -(-examples // size)
    if accumulate > count:
        problem = f"{accumulate} is more than the {count} batches in {examples} training examples"
        return [Fault("accumulate", f"{problem}, give at most {count}")]
    return []


def monitors(schedule: ReduceOnPlateau, section: str, task: Task) -> list[Fault]:
    """A fault for a schedule that watches what the task doesn't measure in validation, or can't call better."""
    known = [column for column in task.columns() if column.startswith("val/") and task.metric(column).better]
    if schedule.monitor in known:
        return []
    problem = f"{show(schedule.monitor)} is no validation metric of the task {task.kind}"
    return [Fault(f"{section}.monitor", f"{problem}, {nearest(schedule.monitor, known)}")]


def learning_rate(rule: Rule, dtype: torch.dtype) -> list[Fault]:
    """Faults for a learning rate too large for the network's dtype, and for a minimum above it."""
    if rule.optimizer is None or rule.schedule is None:
        return []
    optimizer, schedule = rule.sections
    lr, smallest = rule.optimizer.lr, getattr(rule.schedule, "min_lr", 0.0)
    if lr > torch.finfo(dtype).max:
        return [Fault(f"{optimizer}.lr", f"{lr:g} is more than a {str(dtype).removeprefix('torch.')} can represent")]
    if smallest > lr:
        return [Fault(f"{schedule}.min_lr", f"{smallest:g} is more than {optimizer}.lr, give at most {lr:g}")]
    return []


def rates(rule: Rule, length: RunLength, dtype: torch.dtype) -> list[Fault]:
    """Faults for a warm-up longer than the run, and for a learning rate that overflows by the end of either."""
    if rule.optimizer is None or rule.schedule is None:
        return []
    lr, schedule, section = rule.optimizer.lr, rule.schedule, rule.sections[1]
    warmup = schedule.warmup_steps
    if warmup >= length.steps:
        problem = f"{warmup} is not allowed, the run has only {length.steps} steps: give fewer"
        return [Fault(f"{section}.warmup_steps", problem)]
    last = [schedule(lr, step, length) for step in (warmup, length.steps - 1)]
    if lr <= torch.finfo(dtype).max and not all(rate <= torch.finfo(dtype).max for rate in last):
        return [Fault(section, f"the learning rate overflows within {length.epochs} epochs")]
    return []
