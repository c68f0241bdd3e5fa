"""The state of a run as a checkpoint, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runners.config.schema import Config
from runners.data import Dataset
from runners.errors import CheckpointError
from runners.files.checkpoint import Checkpoint, SavedData, SavedNetwork, SavedProgress, arrays, tensors
from runners.files.metrics_csv import Row
from runners.tasks.divergence import Diverged
from runners.tasks.sums import Sums
from runners.tasks.task import Task
from runners.training.progress import Progress

log = logging.getLogger(__name__)


def take(config: Config, task: Task, dataset: Dataset, progress: Progress) -> Checkpoint:
    """The state of a run as a checkpoint. Raises Diverged if weights or buffers aren't finite."""
    raw = config.saved
    return Checkpoint(
        version=2,
        task=raw["task"],
        task_state=task.state(),
        networks={name: _network(raw, task, name, progress.step) for name in task.networks},
        loss=raw["loss"],
        dtype=config.settings.dtype,
        data=SavedData(
            input_shape=list(dataset.input_shape),
            preparation=dataset.preparation,
            mean=dataset.mean,
            std=dataset.std,
            class_names=dataset.class_names,
            fingerprint=dataset.fingerprint,
        ),
        config=raw,
        epoch=progress.epoch,
        step=progress.step,
        progress=SavedProgress(
            rows=progress.rows,
            steps=progress.steps,
            examples=progress.examples,
            sums=progress.sums.numbers(),
            seconds=progress.seconds,
        ),
    )


def _network(raw: Mapping[str, Any], task: Task, name: str, step: int) -> SavedNetwork:
    trained = task.trained[name]
    weights = arrays(trained.graph.state())
    for weight, array in weights.items():
        if not np.isfinite(array).all():
            place = weight if len(task.networks) == 1 else f"{name}.{weight}"
            raise Diverged(f"{place} isn't finite after step {step}; the checkpoints before it are kept")
    return SavedNetwork(
        model={"layers": raw[name]["layers"]},
        input_shape=list(trained.graph.input_shape),
        weights=weights,
        optimizer=arrays(trained.optimizer.state()),
        schedule=trained.schedule.state(),
    )


def restore(content: Checkpoint, config: Config, task: Task) -> Progress:
    """Restore the task to its saved state; returns the progress of the run.

    An optimizer or schedule that has been changed, so that its saved state doesn't apply, starts from its initial
    state. Raises CheckpointError if anything else doesn't match.
    """
    saved, progress = content.progress, Progress.of(task)
    try:
        for name, trained in task.trained.items():
            network = content.networks[name]
            trained.graph.load_state(tensors(network.weights))
            vectors = _vectors(network.optimizer, trained.graph.flat.data)
            _load(_section(config, name, "optimizer"), trained.optimizer, vectors, content, config)
            _load(_section(config, name, "schedule"), trained.schedule, network.schedule, content, config)
        task.load_state(content.task_state)
        progress.rows = [_row(row, task) for row in saved.rows]
        progress.sums = _sums(saved, task)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint's state doesn't match its config: {error}") from None
    progress.steps, progress.examples, progress.seconds = saved.steps, saved.examples, saved.seconds
    return progress


def _section(config: Config, network: str, section: str) -> str:
    own = f"{network}_{section}"
    return own if own in config.raw else section


def _row(row: Row, task: Task) -> Row:
    """A saved row. Raises ValueError if no epoch of this task can end with it."""
    number = int(row["epoch"])
    for column in task.columns():
        metric = task.metric(column)
        low, high = metric.range
        if column not in row and not metric.optional:
            raise ValueError(f"row {number} has no {column}")
        if not low <= row.get(column, low) <= high:
            raise ValueError(f"row {number} can't be the row of an epoch: its {column} is {row[column]:g}")
    rates = task.rate_columns().values()
    for column in rates:
        if column not in row:
            raise ValueError(f"row {number} has no {column}")
    unknown = sorted(row.keys() - {*task.columns(), *rates, *LOOP_COLUMNS})
    if unknown:
        raise ValueError(f"row {number} has a column {unknown[0]}, which its task doesn't have")
    return {**row, "epoch": number, "step": int(row["step"])}


LOOP_COLUMNS = ("epoch", "step", "images_per_second", "seconds", "step_seconds")


def _sums(saved: SavedProgress, task: Task) -> Sums:
    unknown = sorted(saved.sums.keys() - {metric.name for metric in task.metrics})
    if unknown:
        raise ValueError(f"it has a sum of {unknown[0]}, which its task doesn't have")
    return Sums({name: (value, weight) for name, (value, weight) in saved.sums.items()})


def _load(section: str, part: Any, state: Mapping[str, Any], content: Checkpoint, config: Config) -> None:
    """Restore an optimizer or schedule. Raises ValueError if the state doesn't match its unchanged config."""
    before, now = (raw.get(section) or {} for raw in (content.config, config.raw))
    if before.get("name") != now.get("name"):
        log.warning(
            "the %s is now %s instead of %s: it starts from its initial state",
            section,
            now.get("name"),
            before.get("name"),
        )
        return
    try:
        part.load_state(state)
    except ValueError:
        if before == now:
            raise
        log.warning("the %s's arguments have changed: it starts from its initial state", section)


def _vectors(state: Mapping[str, Any], flat: Tensor) -> dict[str, Any]:
    """An optimizer's saved state, on the device of the weights [P]. Raises ValueError for mismatched vectors."""
    found = {}
    for name, value in state.items():
        found[name] = torch.from_numpy(value).to(flat.device) if isinstance(value, np.ndarray) else value
        if isinstance(value, np.ndarray) and (found[name].shape != flat.shape or found[name].dtype != flat.dtype):
            raise ValueError(f"optimizer.{name} is {value.dtype} {list(value.shape)}, expected {list(flat.shape)}")
    return found
