"""Checkpoints: the saved state of a run, with everything that prediction and resuming need."""

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
from cnn.text import show
from runners.errors import CheckpointError, short
from runners.files import plain_pickle, version_1

log = logging.getLogger(__name__)
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
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

    @property
    def place(self) -> str:
        """The file that it was read from."""
        return short(self._file or "the checkpoint")

    @property
    def hint(self) -> str:
        """How to name the files that may define the run's own classes: reading a checkpoint imports nothing."""
        files = self.config.get("extensions")
        if not files:
            return ""
        given = files if isinstance(files, str) else f"[{','.join(map(str, files))}]"
        return f" (if one of the run's own files defines it, add extensions={short(given)})"


VERSION = 2
LAST, PREVIOUS = "last.pkl", "previous.pkl"


def save(file: Path, content: Checkpoint) -> None:
    """Write a checkpoint atomically; a `last` that it replaces becomes `previous`."""
    plain_pickle.write(file, content.model_dump(), spare=file.with_name(PREVIOUS) if file.name == LAST else None)


def load(file: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError if it is missing, broken, incomplete, or another format."""
    content = plain_pickle.read(file)
    try:
        if "version" not in content:
            content = version_1.converted(content)
        if type(content["version"]) is not int or content["version"] != VERSION:
            problem = f"it has version {show(content['version'])}, this program reads up to {VERSION}"
            raise ConfigError([Fault("version", problem)])
        networks = content.get("networks")
        for name, network in networks.items() if isinstance(networks, dict) else ():  # for precise places of faults
            if isinstance(network, dict):
                check(SavedNetwork, network, f"networks.{name}")
        checkpoint = check(Checkpoint, content)
        _reject_arrays({name: getattr(checkpoint, name) for name in ("task", "loss", "config")})
        for name, network in checkpoint.networks.items():
            _reject_arrays(network.model, f"networks.{name}.model")
        check(SavedConfig, checkpoint.config, "config")
    except ConfigError as error:
        raise CheckpointError(f"{short(file)}: not a usable checkpoint: {error.faults[0]}") from None
    checkpoint._file = file
    return checkpoint


def _reject_arrays(value: object, place: str = "") -> None:
    """Raise ConfigError for an array: no config has one, and the code that reads configs compares values with ==."""
    if isinstance(value, np.ndarray):
        raise ConfigError([Fault(place, "an array is not allowed here")])
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _reject_arrays(item, join(place, str(name)))


def load_run(run: str | Path, which: str = "best") -> Checkpoint:
    """Read a run's checkpoint, or a file; `last` falls back as in `load_last`. Raises CheckpointError."""
    return load_last(run)[0] if which == "last" else load(locate(run, which))


def load_last(run: str | Path) -> tuple[Checkpoint, Path]:
    """A run's `last` and its file; if it is missing or broken, `previous`, with a warning.

    Raises CheckpointError if neither can be used.
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
        log.warning("warning: %s; using %s, of step %d, instead", error, spare, content.step)
        return content, file


def _whole(file: Path) -> tuple[Checkpoint, Path]:
    content = load(file)
    rebuild(content)
    return content, file


def locate(run: str | Path, which: str = "best") -> Path:
    """The file of a checkpoint, given a run directory or the file itself. Raises CheckpointError if there is none."""
    if not str(run):
        raise CheckpointError("the run's name is empty, give a run directory or a checkpoint")
    path = Path(run)
    file = path / "checkpoints" / f"{which}.pkl"
    try:
        if path.is_file():
            return path
        if file.is_file():
            return file
        there = path.exists()
    except OSError as error:  # a name that is too long, or a folder without permission
        raise CheckpointError(f"{short(path)}: can't be read: {error.strerror}") from None
    if not there:
        raise CheckpointError(f"{short(path)}: there is no such run directory or checkpoint")
    raise CheckpointError(f"{short(path)}: not a run directory with a checkpoint: it has no checkpoints/{which}.pkl")


def arrays(state: Mapping[str, Tensor | int]) -> dict[str, Any]:
    """Tensors copied to numpy arrays; numbers unchanged."""
    return {
        name: np.ascontiguousarray(value.cpu().numpy()).copy() if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def tensors(saved: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    """Arrays copied to tensors."""
    return {name: torch.from_numpy(array.copy()) for name, array in saved.items()}


def rebuild(content: Checkpoint) -> dict[str, Sequential]:
    """The networks of a checkpoint, with their weights, on the CPU. Raises CheckpointError if these don't match."""
    return {name: _rebuilt(content, network) for name, network in content.networks.items()}


def _rebuilt(content: Checkpoint, saved: SavedNetwork) -> Sequential:
    try:
        network = plan_model(saved.model, saved.input_shape)
        declared = dict(network.named_parameters()) | dict(network.named_buffers())
        for name, array in saved.weights.items():
            if name not in declared or declared[name].shape != array.shape:  # before anything is allocated
                raise ValueError(f"its architecture has no {name} of shape {list(array.shape)}")
            if array.dtype.name != content.dtype or not np.isfinite(array).all():
                raise ValueError(f"{name} has values that aren't finite {content.dtype} numbers")
            if name.endswith(".running_var") and array.size and array.min() < 0:
                raise ValueError(f"{name} is a variance, but has negative values")
        if missing := declared.keys() - saved.weights.keys():
            raise ValueError(f"it has no {min(missing)}")
        network.bind(dtype=PRECISIONS[content.dtype], device="cpu")
        network.load_state(tensors(saved.weights))
    except ValueError as error:
        problem = error.faults[0] if isinstance(error, ConfigError) else short(error)
        raise CheckpointError(f"{content.place}: its network can't be rebuilt{content.hint}: {problem}") from None
    return network


@contextmanager
def enough_memory(content: Checkpoint) -> Iterator[None]:
    """Raise CheckpointError if the block, which runs a checkpoint's network, runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise CheckpointError(f"{content.place}: its network needs more memory than is available") from None
