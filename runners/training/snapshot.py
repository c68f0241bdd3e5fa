"""The state of a run as a checkpoint, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Sequential
from runners.config.schema import Config
from runners.data import Dataset
from runners.errors import CheckpointError
from runners.files.checkpoint import Checkpoint, SavedProgress, SavedTotals, arrays, tensors
from runners.tasks.classification import Totals
from runners.tasks.divergence import Diverged
from runners.training.progress import Progress

log = logging.getLogger(__name__)


def take(config: Config, network: Sequential, dataset: Dataset, progress: Progress) -> Checkpoint:
    """All that there is to save of a run. Raises Diverged where weights, or other numbers of layers, aren't finite."""
    weights = arrays(network.state())
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise Diverged(f"{name} isn't finite after step {progress.step}; the checkpoints before it are kept")
    return Checkpoint(
        weights=weights,
        model={"layers": config.model["layers"]},
        input_shape=list(dataset.input_shape),
        dtype=config.settings.dtype,
        loss=config.loss.kind,
        preparation=dataset.preparation,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        config=config.saved,
        epoch=progress.epoch,
        step=progress.step,
        optimizer=arrays(config.optimizer.state()),
        schedule=config.schedule.state(),
        progress=SavedProgress(
            rows=progress.rows,
            steps=progress.steps,
            totals=SavedTotals(**vars(progress.totals.numbers())),
            seconds=progress.seconds,
        ),
        data_fingerprint=dataset.fingerprint,
    )


def restore(content: Checkpoint, config: Config, network: Sequential) -> Progress:
    """Bring network, optimizer and schedule to where they were saved; returns how far the run had come.

    An optimizer or a schedule that the saved state isn't one of, because it was changed, begins anew. Raises
    CheckpointError where something doesn't fit.
    """
    saved = content.progress
    try:
        network.load_state(tensors(content.weights))
        _load("optimizer", config.optimizer, _vectors(content.optimizer, network.flat.data), content, config)
        _load("schedule", config.schedule, content.schedule, content, config)
        totals = Totals(**dict(saved.totals))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint's state doesn't fit its config: {error}") from None
    rows = [{**row, "epoch": int(row["epoch"]), "step": int(row["step"])} for row in saved.rows]
    return Progress(rows, saved.steps, totals, saved.seconds)


def _load(section: str, part: Any, state: Mapping[str, Any], content: Checkpoint, config: Config) -> None:
    """Bring optimizer or schedule to its saved state. Raises ValueError for one that isn't of what was configured."""
    before, now = (raw.get(section) or {} for raw in (content.config, config.raw))
    if before.get("name") != now.get("name"):
        log.warning("the %s is %s now and was %s: it begins anew", section, now.get("name"), before.get("name"))
        return
    try:
        part.load_state(state)
    except ValueError:
        if before == now:
            raise
        log.warning("the %s's arguments are others now: it begins anew", section)


def _vectors(state: Mapping[str, Any], flat: Tensor) -> dict[str, Any]:
    """An optimizer's saved state beside the weights [P]. Raises ValueError for a vector of another shape or type."""
    found = {}
    for name, value in state.items():
        found[name] = torch.from_numpy(value).to(flat.device) if isinstance(value, np.ndarray) else value
        if isinstance(value, np.ndarray) and (found[name].shape != flat.shape or found[name].dtype != flat.dtype):
            raise ValueError(f"optimizer.{name} is {value.dtype} {list(value.shape)}, wanted {list(flat.shape)}")
    return found
