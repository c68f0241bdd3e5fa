"""What is made and checked before a run directory is: config, kernels, networks, and whether they fit the data."""

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
from runners.config import compatibility
from runners.config.schema import Config, parse, parts_of
from runners.data import Dataset, Examples
from runners.data.batches import Batches
from runners.errors import CheckpointError
from runners.files import checkpoint
from runners.tasks.task import Task
from runners.training.loop import Plan


def prepare(raw: Mapping[str, Any], *, begins: bool = True) -> Config:
    """The checked config, with kernels and threads as it wants them; of a run that begins, `init_from` is there.

    Raises ConfigError and CheckpointError before data is opened.
    """
    config = parse(raw)
    if begins and config.settings.init_from:
        _saved_weights(config.settings.init_from)  # read again when the networks are there
    ops.use_kernels(config.settings.kernels)
    ops.set_threads(config.threads)
    return config


def load(config: Config) -> tuple[Config, Dataset]:
    """The config and the dataset as the run sees them: of `debug=fast` both are cut short. Raises DataError."""
    dataset = config.source().load()
    return _shortened(config, dataset) if config.settings.debug == "fast" else (config, dataset)


def _shortened(config: Config, dataset: Dataset) -> tuple[Config, Dataset]:
    """Two batches of everything, and a warm-up that leaves a step."""

    def first(examples: Examples, count: int) -> Examples:
        return examples.select(np.arange(min(count, len(examples))))

    settings = config.settings
    few = 2 * evaluation_batch(dataset.input_shape)
    short = replace(
        dataset,
        train=first(dataset.train, 2 * settings.batch_size * settings.accumulate),
        val=first(dataset.val, few),
        test=first(dataset.test, few),
    )
    steps = settings.run_length(len(short.train)).steps
    schedules = {
        section: {**content, "warmup_steps": min(content["warmup_steps"], steps - 1)}
        for section, content in config.raw.items()
        if section.endswith("schedule") and content.get("warmup_steps")
    }
    return (config.changed(**schedules) if schedules else config), short


def require_fit(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError with all that doesn't fit the data once they are loaded."""
    faults = compatibility.misfits(parts_of(config), dataset.description)
    if faults:
        raise ConfigError(faults)


def evaluation_batch(input_shape: tuple[int, ...]) -> int:
    """How many examples are evaluated at once: 256, fewer of large ones."""
    return max(1, min(256, 2**22 // math.prod(input_shape)))


def start(config: Config, dataset: Dataset) -> Task:
    """The task as a new run starts it. Raises ConfigError as `build` does, CheckpointError for `init_from`."""
    task = build(config, dataset)
    if config.settings.init_from:
        start_from(task.graphs, config.settings.init_from)
    return task


def build(config: Config, dataset: Dataset) -> Task:
    """The task with its networks and their first weights. Raises ConfigError where config and data don't fit."""
    require_fit(config, dataset)
    task = config.task()
    task.build(networks(config, task, dataset.input_shape, config.dtype), config.loss())
    task.train_with({name: (config.optimizer(name), config.schedule(name)) for name in task.networks})
    _check_last_batch(config, task, dataset)
    return task


def networks(config: Config, task: Task, example_shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Sequential]:
    """Each network of the task for examples of this shape, with its first weights. Raises ConfigError."""
    made = {}
    for number, (name, shape) in enumerate(task.input_shapes(example_shape).items()):
        seed = (config.settings.seed + number) % 2**63
        try:
            made[name] = build_model(config.raw[name], shape, seed=seed, dtype=dtype, device=config.device)
        except ConfigError as error:
            raise error.inside(name) from None
    return made


def start_from(graphs: Mapping[str, Sequential], run: str) -> None:
    """Load the weights of a saved run's networks. Raises CheckpointError where they can't be read or don't fit."""
    saved = _saved_weights(run)
    for name, graph in graphs.items():
        try:
            if name not in saved:
                raise ValueError(f"it has no network {name}, but {', '.join(saved)}")
            graph.load_state(saved[name])
        except ValueError as error:
            raise CheckpointError(f"init_from: {checkpoint.locate(run)}: {error}") from None


def _saved_weights(run: str) -> dict[str, dict[str, Tensor]]:
    try:
        content = checkpoint.load(checkpoint.locate(run))
    except CheckpointError as error:
        raise CheckpointError(f"init_from: {error}") from None
    return {name: checkpoint.tensors(network.weights) for name, network in content.networks.items()}


def _check_last_batch(config: Config, task: Task, dataset: Dataset) -> None:
    """Refuse a last batch of one example where a layer can't train on it, before it fails in mid-epoch."""
    size = config.settings.batch_size
    if len(dataset.train) % size != 1 and size != 1:
        return
    for name, shape in task.input_shapes(dataset.input_shape).items():
        x = torch.zeros(*shape, 1, dtype=config.dtype, device=config.device)
        try:
            task.graphs[name].dry_run(x, Mode(train=True, keep_cache=False))
        except ValueError as error:
            raise ConfigError([Fault("batch_size", f"{size} leaves a last batch of one example: {error}")]) from None


def batches(config: Config, dataset: Dataset, split: str) -> Batches:
    """The examples of a split in batches: `train` is augmented, `val` and `test` are evaluated."""
    training = split == "train"
    return Batches(
        getattr(dataset, split),
        config.settings.batch_size if training else evaluation_batch(dataset.input_shape),
        mean=dataset.mean,
        std=dataset.std,
        dtype=config.dtype,
        device=config.device,
        augmentation=config.augmentation() if training else None,
    )


def plan_training(config: Config, dataset: Dataset) -> Plan:
    """What the training loop has to know."""
    settings = config.settings
    return Plan(
        settings.run_length(len(dataset.train)),
        settings.seed,
        settings.accumulate,
        settings.clip_grad_norm,
        settings.patience,
        settings.checkpoint.every_steps,
    )
