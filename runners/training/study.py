"""The study of a search: a journal in Optuna's format in the directory of a sweep, and what is made by name for it.

This is the only file that imports Optuna, and only when a search needs it.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ConfigDict, create_model

from cnn.arguments import check
from cnn.faults import ConfigError, Fault, join
from cnn.text import nearest, short, show
from runners.errors import DataError, missing_extra

JOURNAL = "study.log"
SEARCH = "search.yaml"
"""What a search is: its settings, objectives and space."""
NAME = "search"
"""Of the study, which is the only one in its journal."""
LOCK_TIMEOUT = 60.0
"""Seconds. A process holds the lock for as long as a sampler or a pruner needs to decide."""
PRUNERS = {
    "hyperband": "HyperbandPruner",
    "median": "MedianPruner",
    "none": "NopPruner",
    "patient": "PatientPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
EXTRA = "search"
"""What installs Optuna with this project."""
SIMPLE = {"int": int, "float": float, "bool": bool, "str": str, "None": None}
"""The types of arguments that can be given in a config."""


def optuna(key: str = "hydra/sweeper") -> Any:
    """Optuna. Raises InputError, for a key that needs it, if it isn't installed."""
    try:
        import optuna as found
    except ImportError as error:
        if error.name != "optuna":
            raise
        raise missing_extra(key, "optuna", EXTRA) from None
    found.logging.set_verbosity(found.logging.ERROR)  # what there is to say, a search says itself
    return found


def require_cmaes(key: str) -> None:
    """Raise InputError, for a key that needs it, if the package that Optuna's sampler of this name uses is missing."""
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise missing_extra(key, "cmaes", EXTRA) from None


class Journal:
    """`study.log`: a line of JSON for each operation, as Optuna's JournalFileBackend has it.

    In contrast to that class, nothing is left half-written by a process that is killed: `at_once` writes several
    operations or none, the lock of a process ends with it, and a torn last line is removed by the next writer.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = FileLock(file.with_name(".study.lock"), timeout=LOCK_TIMEOUT)
        self._operations: list[dict[str, Any]] = []
        self._end = 0
        """Of the last line that has been read, in bytes."""
        self._pending: list[dict[str, Any]] | None = None
        """Operations that will be written together."""

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """The operations from this number on."""
        self._read()
        known = [*self._operations, *self._pending] if self._pending else self._operations
        return known[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write operations after all others."""
        if self._pending is not None:
            self._pending += logs
        else:
            with self._lock:
                self._write(logs)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write the operations of a block at its end, all or none; nobody else writes meanwhile."""
        with self._lock:
            self._pending = []
            try:
                yield
                pending, self._pending = self._pending, None
                self._write(pending)
            finally:
                self._pending = None

    def _read(self) -> None:
        if not self.file.exists():
            return
        with self.file.open("rb") as stream:
            stream.seek(self._end)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # it is being written, or its process has been killed
                try:
                    self._operations.append(json.loads(line))
                except ValueError:
                    number = len(self._operations) + 1
                    raise DataError(f"{self.file}: line {number} can't be read, remove it") from None
                self._end += len(line)

    def _write(self, operations: list[dict[str, Any]]) -> None:
        self._read()
        text = "".join(json.dumps(operation, separators=(",", ":")) + "\n" for operation in operations)
        with self.file.open("ab") as stream:
            stream.truncate(self._end)
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())


def storage(journal: Journal) -> Any:
    """Optuna's storage of a journal."""
    return optuna().storages.JournalStorage(journal)


def load(kept: Any, sampler: Any = None, pruner: Any = None) -> Any:
    """The study in a storage, with a sampler and a pruner; by default, those that do nothing of their own."""
    sampler, pruner = sampler or optuna().samplers.RandomSampler(), pruner or optuna().pruners.NopPruner()
    return optuna().load_study(study_name=NAME, storage=kept, sampler=sampler, pruner=pruner)


def pruner(given: object, place: str = "hydra.sweeper.pruner") -> Any:
    """A pruner by name. Raises ConfigError."""
    name, arguments = named(given, PRUNERS, place)
    own: dict[str, Any] = {}
    if name == "patient":
        wrapped = arguments.pop("pruner", "none")
        own["wrapped_pruner"] = None if wrapped in ("none", None) else pruner(wrapped, f"{place}.patient.pruner")
    return build(getattr(optuna().pruners, PRUNERS[name]), arguments, join(place, name), own)


def named(given: object, known: Mapping[str, str], place: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of `name` or `{name: {argument: value}}`. Raises ConfigError if it is none of the known."""
    name: object = given
    arguments: object = {}
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, arguments),) = given.items()
    if not isinstance(name, str) or not isinstance(arguments, Mapping | None):
        raise ConfigError(
            [Fault(place, f"{show(given)} is not allowed, give a name, or {{name: {{argument: value}}}}")]
        )
    if name not in known:
        raise ConfigError([Fault(place, f"unknown {show(name)}, {nearest(name, known)}")])
    return name, dict(arguments or {})


def build(made: type, arguments: Mapping[str, Any], place: str, own: Mapping[str, Any]) -> Any:
    """An object of a class of Optuna's, with arguments from a config and those that it gets in any case.

    Raises ConfigError for arguments that can't be used.
    """
    parameters = inspect.signature(made).parameters
    own = {key: value for key, value in own.items() if key in parameters}
    fields: dict[str, Any] = {
        key: (kind, ... if parameter.default is parameter.empty else parameter.default)
        for key, parameter in parameters.items()
        if key not in own and (kind := _simple(parameter.annotation))
    }
    check(create_model(made.__name__, __config__=ConfigDict(strict=True, extra="forbid"), **fields), arguments, place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # many of Optuna's arguments are experimental
            return made(**arguments, **own)
    except (ValueError, TypeError) as error:
        raise ConfigError([Fault(place, short(error))]) from None


def _simple(annotation: Any) -> Any:
    """The type of an argument that can be given in a config, else None."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    parts = text.split(" | ")
    if not all(part in SIMPLE for part in parts):
        return None
    kind: Any = SIMPLE[parts[0]]
    for part in parts[1:]:
        kind = kind | SIMPLE[part]
    return kind
