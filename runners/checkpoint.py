"""Checkpoints: what a run saves of itself, weights and architecture and all that prediction needs beside them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from cnn import ConfigError, Sequential, plan_model
from cnn.arguments import LARGEST, FiniteFloat, NonNegative, Positive, check
from cnn.faults import Fault, join
from cnn.losses import LOSSES
from cnn.text import show
from runners import plain_pickle
from runners.errors import CheckpointError, short
from runners.metrics import COLUMNS

log = logging.getLogger(__name__)
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
LIMITS = np.finfo(np.float32)
Kept = Annotated[str, Field(pattern=r"^[a-z_]{1,60}$")]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


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
    seconds: Seconds

    @model_validator(mode="after")
    def _sound(self) -> SavedProgress:
        for number, row in enumerate(self.rows, start=1):
            if row.keys() != {*COLUMNS, "step_seconds"} or row["epoch"] != number or not _possible(row):
                raise ValueError(f"row {number} isn't that of an epoch")
        if bool(self.steps) != bool(self.totals.count):
            raise ValueError("its sums aren't those of its steps")
        return self


def _possible(row: Mapping[str, float]) -> bool:
    """Whether an epoch can end with these numbers."""
    shares = all(0 <= row[name] <= 1 for name in ("train/accuracy", "val/accuracy"))
    times = all(0 <= row[name] <= 1e12 for name in ("seconds", "step_seconds", "images_per_second"))
    return shares and times and 1 <= row["step"] <= LARGEST and row["step"] == int(row["step"])


class SavedConfig(BaseModel):
    """What has to be right in a saved config before it is changed; the rest of it is checked when it is used."""

    model_config = ConfigDict(strict=True, extra="allow")

    epochs: Positive
    model: dict[str, Any]
    data: dict[str, Any] = {}
    augment: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}
    loss: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    task: dict[str, Any] = {}


class Checkpoint(BaseModel):
    """All that prediction, evaluation, a resume and a new start from its weights need."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    weights: dict[str, np.ndarray]
    model: dict[str, Any]
    input_shape: Annotated[list[Positive], Field(max_length=8)]
    dtype: Literal["float32", "float64"]
    loss: str
    preparation: Literal["digit", "plain"]
    mean: Annotated[float, Field(ge=float(LIMITS.min), le=float(LIMITS.max))]
    std: Annotated[float, Field(ge=float(LIMITS.tiny), le=float(LIMITS.max))]
    class_names: Annotated[list[str], Field(min_length=1)]
    config: dict[str, Any]
    epoch: NonNegative
    step: NonNegative
    optimizer: dict[Kept, Any]
    schedule: dict[Kept, int | float]
    progress: SavedProgress
    data_fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]*$")]

    _file: Path | None = None

    @property
    def place(self) -> str:
        """Where it was read from."""
        return short(self._file or "the checkpoint")

    @model_validator(mode="after")
    def _sound(self) -> Checkpoint:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names: a name stands twice")
        for name, value in self.optimizer.items():
            if not isinstance(value, np.ndarray) and not (type(value) is int and 0 <= value <= LARGEST):
                raise ValueError(f"optimizer.{name}: neither an array nor a whole number >= 0")
        return self


LAST, PREVIOUS = "last.pkl", "previous.pkl"


def save(file: Path, content: Checkpoint) -> None:
    """Write a checkpoint. The file appears whole or not at all; a `last` that it replaces becomes `previous`."""
    plain_pickle.write(file, content.model_dump(), spare=file.with_name(PREVIOUS) if file.name == LAST else None)


def load(file: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError where it is missing, broken, not ours, or lacks something."""
    content = plain_pickle.read(file)
    try:
        checkpoint = check(Checkpoint, content)
        _require_plain({"model": checkpoint.model, "config": checkpoint.config})
        config = check(SavedConfig, checkpoint.config, "config")
        if checkpoint.loss not in LOSSES:
            raise ConfigError([Fault("loss", f"{show(checkpoint.loss)} is unknown")])
        if config.loss.get("name", checkpoint.loss) != checkpoint.loss:
            raise ConfigError([Fault("config.loss.name", f"another one than the checkpoint's {checkpoint.loss}")])
    except ConfigError as error:
        raise CheckpointError(f"{short(file)}: not a checkpoint that can be used: {error.faults[0]}") from None
    checkpoint._file = file
    return checkpoint


def _require_plain(value: object, place: str = "") -> None:
    """Raise ConfigError where an array stands: no config has one, and what reads configs compares their values."""
    if isinstance(value, np.ndarray):
        raise ConfigError([Fault(place, "an array is not allowed here")])
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _require_plain(item, join(place, str(name)))


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
            raise CheckpointError(f"{error}; {PREVIOUS} can't be used either") from None
        log.warning("warning: %s; instead, %s is used, of step %d", error, spare, content.step)
        return content, file


def _whole(file: Path) -> tuple[Checkpoint, Path]:
    content = load(file)
    rebuild(content)
    return content, file


def locate(run: str | Path, which: str = "best") -> Path:
    """The checkpoint that a user means by a run directory or a file. Raises CheckpointError where there is none."""
    if not str(run):
        raise CheckpointError("the run has no name, give a run directory or a checkpoint")
    path = Path(run)
    file = path / "checkpoints" / f"{which}.pkl"
    try:
        if path.is_file():
            return path
        if file.is_file():
            return file
        there = path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise CheckpointError(f"{short(path)}: can't be read: {error.strerror}") from None
    if not there:
        raise CheckpointError(f"{short(path)}: there is no such run directory or checkpoint")
    raise CheckpointError(f"{short(path)}: not a run directory with a checkpoint: there is no checkpoints/{which}.pkl")


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
            if name.endswith(".running_var") and array.size and array.min() < 0:
                raise ValueError(f"{name} is below zero, and a variance")
        if missing := declared.keys() - content.weights.keys():
            raise ValueError(f"it holds no {min(missing)}")
        network.bind(dtype=PRECISIONS[content.dtype], device="cpu")
        network.load_state(tensors(content.weights))
    except ValueError as error:
        told = error.faults[0] if isinstance(error, ConfigError) else short(error)
        raise CheckpointError(f"{content.place}: its network can't be rebuilt: {told}") from None
    if network.output_shape(network.input_shape) != (len(content.class_names),):
        raise CheckpointError(f"{content.place}: {len(content.class_names)} class names for another number of outputs")
    return network


@contextmanager
def enough_memory(content: Checkpoint) -> Iterator[None]:
    """Raise CheckpointError where what is done with a checkpoint's network takes more memory than there is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise CheckpointError(f"{content.place}: its network takes more memory than there is") from None
