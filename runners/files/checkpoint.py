"""Checkpoints: the saved state of a run, with everything that prediction and resuming need."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import ConfigError, Sequential, plan_model
from cnn.arguments import check
from cnn.faults import Fault, join
from cnn.text import show
from runners.errors import CheckpointError, short
from runners.files import plain_pickle, version_1
from runners.files.content import Checkpoint, SavedConfig, SavedNetwork
from runners.files.paths import user_path

log = logging.getLogger(__name__)
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
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
        saved = check(SavedConfig, checkpoint.config, "config")
        for section in ("task", "loss"):
            found, expected = getattr(checkpoint, section), getattr(saved, section)
            if expected and found != expected:
                raise ConfigError([Fault(section, f"it isn't that of the config, {show(expected.get('name'))}")])
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
        spare = user_path(run) / "checkpoints" / PREVIOUS
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
    path = user_path(run)
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
