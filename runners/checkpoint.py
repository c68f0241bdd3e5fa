"""Checkpoints: what a run saves of itself, weights and architecture and all that prediction needs beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from cnn import ConfigError, Sequential, plan_model
from cnn.arguments import Fault, FiniteFloat, NonNegative, NonNegativeFloat, Positive, PositiveFloat, check
from cnn.losses import LOSSES
from runners import plain_pickle
from runners.errors import CheckpointError
from runners.metrics import COLUMNS

log = logging.getLogger(__name__)
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


class SavedTotals(BaseModel):
    """The sums over the steps of an epoch that isn't done."""

    model_config = ConfigDict(strict=True, extra="forbid")

    loss: FiniteFloat
    share: FiniteFloat
    correct: FiniteFloat
    count: NonNegative


class SavedProgress(BaseModel):
    """What `Progress` holds, as plain numbers. Raises what pydantic raises for rows that no run has written."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rows: list[dict[str, FiniteFloat]]
    steps: NonNegative
    totals: SavedTotals
    seconds: NonNegativeFloat

    @model_validator(mode="after")
    def _sound(self) -> SavedProgress:
        for number, row in enumerate(self.rows, start=1):
            if row.keys() != {*COLUMNS, "step_seconds"} or row["epoch"] != number:
                raise ValueError(f"row {number} isn't that of an epoch")
        if bool(self.steps) != bool(self.totals.count):
            raise ValueError("its sums aren't those of its steps")
        return self


class Checkpoint(BaseModel):
    """All that prediction, evaluation, a resume and a new start from its weights need."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    weights: dict[str, np.ndarray]
    model: dict[str, Any]
    input_shape: list[Positive]
    dtype: Literal["float32", "float64"]
    loss: str
    preparation: Literal["digit", "plain"]
    mean: FiniteFloat
    std: PositiveFloat
    class_names: Annotated[list[str], Field(min_length=1)]
    config: dict[str, Any]
    epoch: NonNegative
    step: NonNegative
    optimizer: dict[str, Any]
    schedule: dict[str, int | float]
    progress: SavedProgress
    data_fingerprint: str


LAST, PREVIOUS = "last.pkl", "previous.pkl"


def save(file: Path, content: Checkpoint) -> None:
    """Write a checkpoint. The file appears whole or not at all; a `last` that it replaces becomes `previous`."""
    plain_pickle.write(file, content.model_dump(), spare=file.with_name(PREVIOUS) if file.name == LAST else None)


def load(file: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError where it is missing, broken, not ours, or lacks something."""
    try:
        checkpoint = check(Checkpoint, plain_pickle.read(file))
        if checkpoint.loss not in LOSSES:
            raise ConfigError([Fault("loss", f"{checkpoint.loss!r} is unknown")])
    except ConfigError as error:
        raise CheckpointError(f"{file}: not a checkpoint that can be used: {error.faults[0]}") from None
    return checkpoint


def load_run(run: str | Path, which: str = "best") -> Checkpoint:
    """Read a run's checkpoint, or a file; of `last` what `load_last` finds. Raises CheckpointError."""
    return load_last(run)[0] if which == "last" else load(locate(run, which))


def load_last(run: str | Path) -> tuple[Checkpoint, Path]:
    """A run's `last` and its file; where it is missing or broken, `previous`, with a warning.

    Raises CheckpointError where neither can be used.
    """
    try:
        return _whole(locate(run, "last"))
    except CheckpointError as error:
        spare = Path(run) / "checkpoints" / PREVIOUS
        if not spare.is_file():
            raise
        try:
            content, file = _whole(spare)
        except CheckpointError:
            raise error from None
        log.warning("warning: %s; instead, %s is used, of step %d", error, spare, content.step)
        return content, file


def _whole(file: Path) -> tuple[Checkpoint, Path]:
    content = load(file)
    rebuild(content)
    return content, file


def locate(run: str | Path, which: str = "best") -> Path:
    """The checkpoint that a user means by a run directory or a file. Raises CheckpointError where there is none."""
    path = Path(run)
    if path.is_file():
        return path
    file = path / "checkpoints" / f"{which}.pkl"
    if file.is_file():
        return file
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such run directory or checkpoint")
    raise CheckpointError(f"{path}: not a run directory with a checkpoint: there is no checkpoints/{which}.pkl")


def arrays(state: Mapping[str, Tensor | int]) -> dict[str, Any]:
    """Tensors as numpy arrays of their own, numbers as they are."""
    return {
        name: np.ascontiguousarray(value.cpu().numpy()).copy() if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def tensors(saved: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    """Arrays as tensors of their own."""
    return {name: torch.from_numpy(array.copy()) for name, array in saved.items()}


def rebuild(content: Checkpoint) -> Sequential:
    """The network of a checkpoint, with its weights, on the CPU. Raises CheckpointError where the two don't fit."""
    try:
        network = plan_model(content.model, content.input_shape)
        declared = dict(network.named_parameters()) | dict(network.named_buffers())
        for name, array in content.weights.items():
            if name not in declared or declared[name].shape != array.shape:  # before anything is allocated
                raise ValueError(f"its architecture has no {name} of shape {list(array.shape)}")
            if array.dtype.name != content.dtype or not np.isfinite(array).all():
                raise ValueError(f"{name} is not made of finite {content.dtype} numbers")
        if missing := declared.keys() - content.weights.keys():
            raise ValueError(f"it holds no {min(missing)}")
        network.bind(dtype=PRECISIONS[content.dtype], device="cpu")
        network.load_state(tensors(content.weights))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint's network can't be rebuilt: {error}") from None
    if network.output_shape(network.input_shape) != (len(content.class_names),):
        raise CheckpointError(
            f"the checkpoint has {len(content.class_names)} class names for another number of outputs"
        )
    return network
