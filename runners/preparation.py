"""What is made and checked before a run directory is: config, kernels, network, and whether they fit the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Mode, Sequential, build_model, ops
from cnn.faults import ConfigError, Fault
from cnn.schedules import RunLength
from runners import checkpoint
from runners.data import Dataset, Examples
from runners.errors import CheckpointError
from runners.loop import Plan
from runners.schema import Config, misfits, parse


def prepare(raw: Mapping[str, Any], *, begins: bool = True) -> Config:
    """The checked config, with kernels and threads as it wants them; of a run that begins, `init_from` is there.

    Raises ConfigError and CheckpointError before data is opened.
    """
    config = parse(raw)
    if begins and config.settings.init_from:
        _weights(config.settings.init_from)  # read again when the network is there
    ops.use_kernels(config.settings.kernels)
    ops.set_threads(config.threads)
    return config


def load(config: Config) -> Dataset:
    """The dataset as the run sees it. Raises DataError."""
    dataset = config.data.load()
    return shortened(config, dataset) if config.settings.debug == "fast" else dataset


def require_fit(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError with all that doesn't fit the data once they are loaded."""
    faults = misfits(
        config.settings,
        config.model,
        config.optimizer,
        config.loss,
        config.schedule,
        input_shape=dataset.input_shape,
        classes=len(dataset.class_names),
        examples=len(dataset.train),
    )
    if faults:
        raise ConfigError(faults)


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
    require_fit(config, dataset)
    seed, dtype = config.settings.seed, config.dtype
    try:
        network = build_model(config.model, dataset.input_shape, seed=seed, dtype=dtype, device=config.device)
    except ConfigError as error:
        raise error.inside("model") from None
    _check_last_batch(config, network, dataset)
    return network


def start_from(network: Sequential, run: str) -> None:
    """Load a saved run's weights. Raises CheckpointError where they can't be read or don't fit."""
    weights = _weights(run)
    try:
        network.load_state(weights)
    except ValueError as error:
        raise CheckpointError(f"init_from: {checkpoint.locate(run)}: {error}") from None


def _weights(run: str) -> dict[str, Tensor]:
    try:
        return checkpoint.tensors(checkpoint.load(checkpoint.locate(run)).weights)
    except CheckpointError as error:
        raise CheckpointError(f"init_from: {error}") from None


def _check_last_batch(config: Config, network: Sequential, dataset: Dataset) -> None:
    """Refuse a last batch of one example where a layer can't train on it, before it fails in mid-epoch."""
    size = config.settings.batch_size
    if len(dataset.train) % size != 1 and size != 1:
        return
    x = torch.zeros(*dataset.input_shape, 1, dtype=config.dtype, device=config.device)
    try:
        network.dry_run(x, Mode(train=True, keep_cache=False))
    except ValueError as error:
        raise ConfigError([Fault("batch_size", f"{size} leaves a last batch of one example: {error}")]) from None


def clock(config: Config, dataset: Dataset) -> RunLength:
    """How many steps the run has."""
    return config.settings.clock(len(dataset.train))


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
