"""What is made and checked before a run directory is: config, kernels, network, and whether they fit the data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cnn import Mode, Sequential, build_model, ops, plan_model
from cnn.arguments import ConfigError, Fault
from cnn.schedules import Clock
from runners import checkpoint
from runners.data import Dataset, Examples
from runners.errors import CheckpointError
from runners.loop import Plan
from runners.schema import Config, parse


def prepare(raw: Mapping[str, Any]) -> Config:
    """The checked config, with kernels and threads as it wants them. Raises ConfigError before data is opened."""
    config = parse(raw)
    ops.use_kernels(config.settings.kernels)
    ops.set_threads(config.threads)
    if config.data.known_shape and config.data.known_classes:
        plan(config, config.data.known_shape, config.data.known_classes)
    return config


def load(config: Config) -> Dataset:
    """The dataset as the run sees it. Raises DataError."""
    dataset = config.data.load()
    return shortened(config, dataset) if config.settings.debug == "fast" else dataset


def shortened(config: Config, dataset: Dataset) -> Dataset:
    """Two batches of everything, and a warm-up that leaves a step."""

    def first(examples: Examples, count: int) -> Examples:
        return examples.select(np.arange(min(count, len(examples))))

    size = 2 * config.settings.batch_size * config.settings.accumulate
    few = 2 * evaluation_batch(dataset.input_shape)
    short = replace(
        dataset,
        train=first(dataset.train, size),
        val=first(dataset.val, few),
        test=first(dataset.test, few),
    )
    config.schedule.warmup_steps = min(config.schedule.warmup_steps, clock(config, short).steps - 1)
    return short


def plan(config: Config, input_shape: tuple[int, ...], classes: int) -> None:
    """Raise ConfigError where network or loss don't fit such inputs or so many classes."""
    try:
        config.loss.require_classes(classes)
    except ConfigError as error:
        raise error.inside("loss") from None
    try:
        network = plan_model(config.model, input_shape)
    except ConfigError as error:
        raise error.inside("model") from None
    _require_memory(config, network, input_shape)
    given = network.output_shape(input_shape)
    if given != (classes,):
        last = list(network.layers)[-1]
        problem = f"the last, {last}, gives {list(given)}, the data have {classes} classes: give [{classes}]"
        raise ConfigError([Fault("model.layers", problem)])


def _require_memory(config: Config, network: Sequential, input_shape: tuple[int, ...]) -> None:
    """Raise ConfigError where the output of one layer alone is larger than the machine's memory."""
    memory = physical_memory()
    for _, layer, shape in network.walk(input_shape):
        output = layer.output_shape(shape)
        size = math.prod(output) * config.settings.batch_size * config.dtype.itemsize
        if size > memory:
            problem = f"a batch of its output {list(output)} takes {size / 2**30:,.0f} GiB, more than there is"
            raise ConfigError([Fault(f"model.{layer.place}" if layer.place else "model.layers", problem)])


def physical_memory() -> int:
    """The machine's memory in bytes; where the system doesn't tell, more than any machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**60


def evaluation_batch(input_shape: tuple[int, ...]) -> int:
    """How many examples are evaluated at once: 256, fewer of large ones."""
    return max(1, min(256, 2**22 // math.prod(input_shape)))


def start(config: Config, dataset: Dataset) -> Sequential:
    """The network as a new run starts from it. Raises ConfigError as `build` does, CheckpointError for `init_from`."""
    network = build(config, dataset)
    if config.settings.init_from:
        start_from(network, config.settings.init_from)
    return network


def build(config: Config, dataset: Dataset) -> Sequential:
    """The network with its first weights. Raises ConfigError where config and data don't go together."""
    plan(config, dataset.input_shape, len(dataset.class_names))
    seed, dtype = config.settings.seed, config.dtype
    try:
        network = build_model(config.model, dataset.input_shape, seed=seed, dtype=dtype, device=config.device)
    except ConfigError as error:
        raise error.inside("model") from None
    _check_last_batch(config, network, dataset)
    _check_schedule(config, clock(config, dataset))
    return network


def start_from(network: Sequential, run: str) -> None:
    """Load a saved run's weights. Raises CheckpointError where they can't be read or don't fit."""
    try:
        file = checkpoint.locate(run)
        network.load_state(checkpoint.tensors(checkpoint.load(file).weights))
    except CheckpointError as error:
        raise CheckpointError(f"init_from: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"init_from: {file}: {error}") from None


def _check_last_batch(config: Config, network: Sequential, dataset: Dataset) -> None:
    """Refuse a last batch of one example where a layer can't train on it, before it fails in mid-epoch."""
    size = config.settings.batch_size
    if len(dataset.train) % size != 1 and size != 1:
        return
    x = torch.zeros(*dataset.input_shape, 1, dtype=config.dtype, device=config.device)
    try:
        network.rehearse(x, Mode(train=True, keep_cache=False))
    except ValueError as error:
        raise ConfigError([Fault("batch_size", f"{size} leaves a last batch of one example: {error}")]) from None


def clock(config: Config, dataset: Dataset) -> Clock:
    """How many steps the run has."""
    settings = config.settings
    return Clock(-(-len(dataset.train) // (settings.batch_size * settings.accumulate)), settings.epochs)


def plan_training(config: Config, dataset: Dataset) -> Plan:
    """What the training loop has to know."""
    settings = config.settings
    return Plan(
        clock(config, dataset),
        settings.seed,
        config.optimizer,
        config.schedule,
        settings.accumulate,
        settings.clip_grad_norm,
        settings.patience,
        settings.checkpoint.every_steps,
    )


def _check_schedule(config: Config, clock: Clock) -> None:
    """Refuse a warm-up that never ends, and a learning rate that overflows at the end of the run or of warm-up."""
    warmup, lr = config.schedule.warmup_steps, config.optimizer.lr
    if warmup >= clock.steps:
        problem = f"{warmup} is not allowed, the run has {clock.steps} steps: give fewer"
        raise ConfigError([Fault("schedule.warmup_steps", problem)])
    if not all(math.isfinite(config.schedule(lr, step, clock)) for step in (warmup, clock.steps - 1)):
        raise ConfigError(
            [Fault("schedule", f"the learning rate grows beyond all bounds within {clock.epochs} epochs")]
        )
