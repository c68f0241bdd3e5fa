"""The state of a run as a checkpoint, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn.schedules import Schedule
from runners.config import extensions
from runners.config.schema import Config, of_network
from runners.data import Dataset
from runners.errors import CheckpointError
from runners.files.checkpoint import arrays, tensors
from runners.files.content import Checkpoint, SavedData, SavedNetwork, SavedProgress
from runners.files.metrics_csv import Row
from runners.tasks.divergence import Diverged
from runners.tasks.sums import Sums
from runners.tasks.task import Task
from runners.training.progress import Progress, check_row

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
        extensions=extensions.digests(config.settings.extensions),
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
            if content.config.get("freeze", []) == config.raw.get("freeze", []):
                vectors = _vectors(network.optimizer, trained.graph.flat.trained.data)
                _load((name, "optimizer"), trained.optimizer, vectors, content, config)
            else:
                log.warning("other layers are frozen than before: the optimizer starts from its initial state")
            _load((name, "schedule"), trained.schedule, network.schedule, content, config)
        task.load_state(content.task_state)
        progress.rows = [_row(row, task) for row in saved.rows]
        progress.sums = _sums(saved, task)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint's state doesn't match its config: {error}") from None
    progress.steps, progress.examples, progress.seconds = saved.steps, saved.examples, saved.seconds
    return progress


def _row(row: Row, task: Task) -> Row:
    """A saved row. Raises ValueError if no epoch of this task can end with it."""
    check_row(row, task)
    return {**row, "epoch": int(row["epoch"]), "step": int(row["step"])}


def _sums(saved: SavedProgress, task: Task) -> Sums:
    unknown = sorted(saved.sums.keys() - {metric.name for metric in task.metrics})
    if unknown:
        raise ValueError(f"it has a sum of {unknown[0]}, which its task doesn't have")
    return Sums({name: (value, weight) for name, (value, weight) in saved.sums.items()})


def _load(which: tuple[str, str], part: Any, state: Mapping[str, Any], content: Checkpoint, config: Config) -> None:
    """Restore a network's optimizer or schedule. Raises ValueError if the state doesn't match its unchanged config."""
    before, now = (of_network(raw, *which)[0] or {} for raw in (content.config, config.raw))
    section = of_network(config.raw, *which)[1]
    if before.get("name") != now.get("name"):
        log.warning(
            "the %s is now %s instead of %s: it starts from its initial state",
            section,
            now.get("name"),
            before.get("name"),
        )
        return
    watched, watches = (content.get("monitor", Schedule.monitor) for content in (before, now))
    if watched != watches:
        log.warning("the %s now watches %s instead of %s: it starts from its initial state", section, watches, watched)
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
