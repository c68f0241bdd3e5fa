"""What a checkpoint contains, and what of it has to agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cnn.arguments import LARGEST, FiniteFloat, NonNegative, Positive
from runners.errors import short, typed

LIMITS = np.finfo(np.float32)
PLAIN = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
Key = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,59}$")]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
SumAndWeight = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
InputShape = Annotated[list[Positive], Field(max_length=8)]


class SavedProgress(BaseModel):
    """The content of `Progress` as plain numbers. Raises pydantic's errors for rows that no run can have written."""

    model_config = PLAIN

    rows: list[dict[str, FiniteFloat]]
    steps: NonNegative
    examples: NonNegative
    sums: dict[str, SumAndWeight]
    seconds: Seconds

    @model_validator(mode="after")
    def _check_consistency(self) -> SavedProgress:
        for number, row in enumerate(self.rows, start=1):
            if row.get("epoch") != number or not _is_plausible(row):
                raise ValueError(f"row {number} can't be the row of an epoch")
        if bool(self.steps) != bool(self.examples):
            raise ValueError("its sums don't match its steps")
        return self


def _is_plausible(row: Mapping[str, float]) -> bool:
    """Whether an epoch of any task can end with these numbers."""
    times = all(0 <= row.get(name, -1) <= 1e12 for name in ("seconds", "step_seconds", "images_per_second"))
    step = row.get("step", 0)
    return times and 1 <= step <= LARGEST and step == int(step)


class SavedConfig(BaseModel):
    """What must be valid in a saved config before overrides change it; the rest is checked when it is used."""

    model_config = ConfigDict(strict=True, extra="allow")

    epochs: Positive
    data: dict[str, Any] = {}
    augment: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}
    loss: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    task: dict[str, Any] = {}


class SavedNetwork(BaseModel):
    """An architecture, its weights, and the state of its optimizer and schedule."""

    model_config = PLAIN

    model: dict[str, Any]
    input_shape: InputShape
    weights: dict[str, np.ndarray]
    optimizer: dict[Key, Any]
    schedule: dict[Key, int | float]

    @model_validator(mode="after")
    def _check_consistency(self) -> SavedNetwork:
        for name, value in self.optimizer.items():
            if not isinstance(value, np.ndarray) and not (type(value) is int and 0 <= value <= LARGEST):
                raise ValueError(f"optimizer.{name}: must be an array or a whole number >= 0")
        return self


class SavedData(BaseModel):
    """What prediction needs to know about the data, and a fingerprint of the files."""

    model_config = PLAIN

    input_shape: InputShape
    preparation: Literal["digit", "plain"]
    mean: Annotated[float, Field(ge=float(LIMITS.min), le=float(LIMITS.max))]
    std: Annotated[float, Field(ge=float(LIMITS.tiny), le=float(LIMITS.max))]
    class_names: list[str]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]*$")]

    @model_validator(mode="after")
    def _check_consistency(self) -> SavedData:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names: a name appears twice")
        return self


class Checkpoint(BaseModel):
    """Everything that prediction, evaluation, resuming and `init_from` need."""

    model_config = PLAIN

    version: Literal[2]
    task: dict[str, Any]
    task_state: dict[Key, Any]
    networks: Annotated[dict[Key, SavedNetwork], Field(min_length=1)]
    loss: dict[str, Any]
    dtype: Literal["float32", "float64"]
    data: SavedData
    config: dict[str, Any]
    epoch: NonNegative
    step: NonNegative
    progress: SavedProgress
    extensions: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = []
    """The SHA-256 of each of the run's own files, sorted."""

    _file: Path | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> Checkpoint:
        rows, begun = self.progress.rows, self.progress.steps
        for name, saved, counted in (
            ("epoch", self.epoch, len(rows)),
            ("step", self.step, begun + (int(rows[-1]["step"]) if rows else 0)),
        ):
            if saved != counted:
                raise ValueError(f"{name}: it is {saved}, but its progress is that of {name} {counted}")
        return self

    @property
    def place(self) -> str:
        """The file that it was read from."""
        return short(self._file or "the checkpoint")

    @property
    def files(self) -> list[str]:
        """The run's own files, as its config names them; what is no name of a file is left out."""
        named = self.config.get("extensions")
        found = [named] if isinstance(named, str) else named if isinstance(named, list) else []
        return [file for file in found if isinstance(file, str)]

    @property
    def hint(self) -> str:
        """How to name the files that may define the run's own classes: reading a checkpoint imports nothing."""
        if not self.files:
            return ""
        files = typed(self.files if isinstance(self.config["extensions"], list) else self.files[0])
        return f" (if one of the run's own files defines it, add extensions={short(files)})"
