"""Everything that is built and checked before a run directory is created: config, kernels, networks, batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Mode, Sequential, build_model, ops
from cnn.faults import ConfigError, Fault
from cnn.summary import summarise, table
from cnn.text import first_of
from runners.config import compatibility
from runners.config.freezing import frozen_layers, is_frozen
from runners.config.schema import Config, parse, parts_of
from runners.config.settings import Settings
from runners.data import Dataset, Description, Examples
from runners.data.batches import Batches
from runners.errors import CheckpointError
from runners.files import checkpoint
from runners.tasks.task import Task
from runners.training.loop import Plan

log = logging.getLogger(__name__)
LEFT_OUT = "not taken over from the run that init_from names:"


def prepare(raw: Mapping[str, Any], *, begins: bool = True) -> Config:
    """Check the config, and set kernels, precision and threads accordingly.

    Of a new run, check that `init_from` can be read. Raises ConfigError and CheckpointError, before any data are read.
    """
    config = parse(raw)
    if begins and config.settings.init_from:
        _saved_weights(config.settings.init_from)  # read again once the networks exist
    ops.use_kernels(config.settings.kernels)
    ops.set_precision(config.settings.precision)
    ops.set_threads(config.threads, fixed=config.settings.threads_fixed)
    return config


def load(config: Config) -> tuple[Config, Dataset]:
    """Load the dataset; `debug=fast` shortens it, and the config to match. Raises DataError."""
    dataset = config.source().load()
    if fixed := config.task().mean_and_std:
        dataset = replace(dataset, mean=fixed[0], std=fixed[1])
    return _shortened(config, dataset) if config.settings.debug == "fast" else (config, dataset)


def _shortened(config: Config, dataset: Dataset) -> tuple[Config, Dataset]:
    """Two batches of each split, and a warm-up that is shorter than the run."""

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


def check_compatibility(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError with all incompatibilities between the config and the loaded data."""
    faults = compatibility.find_faults(parts_of(config), dataset.description)
    if faults:
        raise ConfigError(faults)


def evaluation_batch(input_shape: tuple[int, ...]) -> int:
    """The batch size for evaluation: 256, or less if examples are large."""
    return max(1, min(256, 2**22 // math.prod(input_shape)))


def start(config: Config, dataset: Dataset) -> tuple[Task, list[str]]:
    """The task of a new run, and what `init_from` left out. Raises ConfigError as `build` does, and CheckpointError."""
    task = build(config, dataset)
    return task, start_from(task.graphs, config.settings)


def build(config: Config, dataset: Dataset) -> Task:
    """The task with initialised networks. Raises ConfigError if the config and the data are incompatible."""
    check_compatibility(config, dataset)
    task = config.task()
    graphs = networks(config, task, dataset.description, config.dtype)
    freeze(graphs, config.settings)
    task.build(graphs, config.loss())
    task.train_with({name: (config.optimizer(name), config.schedule(name)) for name in task.networks})
    _check_last_batch(config, task, dataset)
    return task


def networks(config: Config, task: Task, data: Description, dtype: torch.dtype) -> dict[str, Sequential]:
    """Each network of the task, initialised, for these data. Raises ConfigError."""
    made = {}
    for number, (name, shape) in enumerate(task.input_shapes(data).items()):
        seed = (config.settings.seed + number) % 2**63
        try:
            made[name] = build_model(config.raw[name], shape, seed=seed, dtype=dtype, device=config.device)
        except ConfigError as error:
            raise error.inside(name) from None
    return made


def freeze(graphs: Mapping[str, Sequential], settings: Settings) -> None:
    """Freeze the layers that the config names, before a task fuses layers."""
    for name, layers in frozen_layers(graphs, settings.frozen).items():
        if layers:
            graphs[name].freeze(layers)


def headed(task: Task, network: str, text: str) -> str:
    """A text about a network, below the network's name if the task has several."""
    return f"{network}\n{text}" if len(task.networks) > 1 else text


def summary(task: Task) -> str:
    """The layers of each network as a table."""
    return "\n\n".join(headed(task, name, table(summarise(graph))) for name, graph in task.graphs.items())


def start_from(graphs: Mapping[str, Sequential], settings: Settings) -> list[str]:
    """Load the weights of the networks that `init_from` names, if any; returns what was left out, after a note on it.

    Raises CheckpointError if they can't be read, or don't match and `init_missing` doesn't allow that.
    """
    if not settings.init_from:
        return []
    saved = _saved_weights(settings.init_from)
    mismatches = {name: graph.mismatches(saved.get(name, {})) for name, graph in graphs.items()}
    left_out = [
        f"{name}.{text}" if len(graphs) > 1 else text for name, found in mismatches.items() for text in found.values()
    ]
    fitting = {
        name: {key: values for key, values in saved.get(name, {}).items() if key not in mismatches[name]}
        for name in graphs
    }
    if left_out and (settings.init_missing == "refuse" or not any(fitting.values())):
        problem = f"the saved weights don't fit this network: {first_of(left_out)}"
        hint = "; init_missing=new takes over those that fit" if any(fitting.values()) else ""
        raise CheckpointError(f"init_from: {checkpoint.locate(settings.init_from)}: {problem}{hint}")
    _refuse_frozen(graphs, settings, mismatches)
    for name, graph in graphs.items():
        graph.load_state(graph.state() | fitting[name])
    if left_out:
        log.warning("note: %s %s", LEFT_OUT, "; ".join(left_out))
    return left_out


def _refuse_frozen(
    graphs: Mapping[str, Sequential], settings: Settings, mismatches: Mapping[str, Mapping[str, str]]
) -> None:
    """Raise ConfigError if a layer is frozen whose values weren't taken over, as it would keep its initial ones."""
    for network, layers in frozen_layers(graphs, settings.frozen).items():
        for name in graphs[network].state():
            text = mismatches[network].get(name)
            if text and is_frozen(name, layers):
                problem = f"{name.rpartition('.')[0]} would stay at its initial values, as {text}"
                raise ConfigError([Fault("freeze", problem)])


def _saved_weights(run: str) -> dict[str, dict[str, Tensor]]:
    try:
        content = checkpoint.load(checkpoint.locate(run))
    except CheckpointError as error:
        raise CheckpointError(f"init_from: {error}") from None
    return {name: checkpoint.tensors(network.weights) for name, network in content.networks.items()}


def _check_last_batch(config: Config, task: Task, dataset: Dataset) -> None:
    """Refuse a last batch of one example if a layer can't train on it, instead of failing in mid-epoch."""
    size = config.settings.batch_size
    if len(dataset.train) % size != 1 and size != 1:
        return
    for name, shape in task.input_shapes(dataset.description).items():
        x = torch.zeros(*shape, 1, dtype=config.dtype, device=config.device)
        try:
            task.graphs[name].dry_run(x, Mode(train=True, keep_cache=False))
        except ValueError as error:
            raise ConfigError([Fault("batch_size", f"{size} leaves a last batch of one example: {error}")]) from None


def batches(config: Config, dataset: Dataset, split: str) -> Batches:
    """The batches of a split: `train` is augmented, `val` and `test` are for evaluation."""
    training = split == "train"
    return Batches(
        getattr(dataset, split),
        config.settings.batch_size if training else evaluation_batch(dataset.input_shape),
        mean=dataset.mean,
        std=dataset.std,
        dtype=config.dtype,
        device=config.device,
        augmentation=config.augmentation() if training else None,
        capture=config.settings.capture,
    )


def plan_training(config: Config, dataset: Dataset) -> Plan:
    """The plan for the training loop."""
    settings = config.settings
    return Plan(
        settings.run_length(len(dataset.train)),
        settings.seed,
        settings.accumulate,
        settings.clip_grad_norm,
        settings.patience,
        settings.checkpoint.every_steps,
        settings.capture,
    )
