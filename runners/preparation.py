"""What is made and checked before a run directory is: config, kernels, network, and whether they fit the data."""

from __future__ import annotations

import math
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
from runners.schema import Config, parse

EVALUATION_BATCH = 256


def prepare(raw: Mapping[str, Any]) -> Config:
    """The checked config, with kernels and threads as it wants them. Raises ConfigError before data is opened."""
    config = parse(raw)
    ops.use_kernels(config.settings.kernels)
    ops.set_threads(config.threads)
    if config.data.known_shape and config.data.known_classes:
        plan(config, config.data.known_shape, config.data.known_classes)
    return config


def shortened(config: Config, dataset: Dataset) -> Dataset:
    """Two batches of everything, and a warm-up that leaves a step."""

    def first(examples: Examples, count: int) -> Examples:
        return examples.select(np.arange(min(count, len(examples))))

    size = 2 * config.settings.batch_size * config.settings.accumulate
    short = replace(
        dataset,
        train=first(dataset.train, size),
        val=first(dataset.val, 2 * EVALUATION_BATCH),
        test=first(dataset.test, 2 * EVALUATION_BATCH),
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
    given = network.output_shape(input_shape)
    if given != (classes,):
        last = list(network.layers)[-1]
        problem = f"the last, {last}, gives {list(given)}, the data have {classes} classes: give [{classes}]"
        raise ConfigError([Fault("model.layers", problem)])


def build(config: Config, dataset: Dataset) -> Sequential:
    """The network as training starts from it. Raises ConfigError where config and data don't go together."""
    plan(config, dataset.input_shape, len(dataset.class_names))
    seed, dtype = config.settings.seed, config.dtype
    try:
        network = build_model(config.model, dataset.input_shape, seed=seed, dtype=dtype, device=config.device)
    except ConfigError as error:
        raise error.inside("model") from None
    if config.settings.init_from:
        _start_from(network, config.settings.init_from)
    _check_last_batch(config, network, dataset)
    _check_schedule(config, clock(config, dataset))
    return network


def _start_from(network: Sequential, run: str) -> None:
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
