"""Checkpoints: plain pickles of dicts, numbers, strings and numpy arrays, with weights and architecture.

Any script reads one with `pickle.load`. This project reads them with an unpickler that knows no classes but numpy's
three constructors, and of these only inert stand-ins: loading a file from a stranger runs nothing of theirs.
"""

from __future__ import annotations

import io
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Sequential, build_model
from runners.errors import CheckpointError

FORMAT = "cnn-checkpoint"
VERSION = 1
PROTOCOL = 4
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")


def save(file: Path, content: Mapping[str, Any]) -> None:
    """Write plain data under the format's name and version. The file appears whole or not at all."""
    data = pickle.dumps({"format": FORMAT, "version": VERSION, **content}, protocol=PROTOCOL)
    temporary = file.with_name(f".{file.name}.new")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(file: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises CheckpointError where it is missing, broken, or not ours."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read: {error.strerror}") from None
    try:
        content = _arrays(_Unpickler(io.BytesIO(data)).load())
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except Exception as error:
        raise CheckpointError(f"{file}: not a checkpoint, or a broken one ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{file}: a pickle, but not a checkpoint of this project")
    if content.get("version") != VERSION:
        raise CheckpointError(f"{file}: has format version {content.get('version')}, this program reads {VERSION}")
    return content


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


def weights(network: Sequential) -> dict[str, np.ndarray[Any, Any]]:
    """All parameters and buffers as numpy arrays of their own."""
    return {name: np.ascontiguousarray(tensor.cpu().numpy()).copy() for name, tensor in network.state().items()}


def tensors(saved: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    """The opposite of `weights`."""
    return {name: torch.from_numpy(array.copy()) for name, array in saved.items()}


def rebuild(content: Mapping[str, Any]) -> Sequential:
    """The network of a checkpoint, with its weights, on the CPU. Raises CheckpointError where the two don't fit."""
    try:
        network = build_model(
            content["model"], content["input_shape"], dtype=PRECISIONS[content["dtype"]], device="cpu"
        )
        network.load_state(tensors(content["weights"]))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's network can't be rebuilt: {error}") from None
    return network


class _Dtype:
    """Stands for numpy.dtype: a name, and the byte order that its state brings."""

    def __init__(self, name: str, *flags: object) -> None:
        self.dtype = np.dtype(name) if isinstance(name, str) else None
        if self.dtype is None or self.dtype.name not in DTYPES:
            raise CheckpointError(f"holds an array of {name!r}, allowed are {', '.join(DTYPES)}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|"):
            raise CheckpointError(f"holds an array of byte order {state[1]!r}, allowed is '<'")


class _Array:
    """Stands for numpy.ndarray: shape, type and bytes, made into an array when the file has been read."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, fortran, self.content = state
        if not isinstance(self.kind, _Dtype) or not isinstance(self.content, bytes) or fortran:
            raise CheckpointError("holds an array that isn't plain, C-contiguous data")

    def array(self) -> np.ndarray[Any, Any]:
        dtype = self.kind.dtype
        if dtype is None or math.prod(self.shape) * dtype.itemsize != len(self.content):
            raise CheckpointError("holds an array whose bytes don't fit its shape")
        return np.frombuffer(self.content, dtype).reshape(self.shape).copy()


def _reconstruct(*arguments: object) -> _Array:
    return _Array()


_STAND_INS: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise CheckpointError(f"refused: it asks for {module}.{name}, which no checkpoint needs") from None


def _arrays(value: Any) -> Any:
    """The same data with stand-ins replaced by arrays; anything but plain data is refused."""
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, dict):
        return {_key(key): _arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_arrays(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"holds a {type(value).__name__}, which no checkpoint needs")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise CheckpointError(f"holds a mapping with the key {key!r}; keys are texts")
    return key
