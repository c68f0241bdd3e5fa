"""The trackers that a config may name, and how one is made: `tracker=mlflow`, or a list, each with arguments or not."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnn.arguments import construct
from cnn.faults import ConfigError, Fault
from cnn.text import nearest, show
from runners.errors import pip_install
from runners.trackers.mlflow import MLflow
from runners.trackers.tensorboard import TensorBoard
from runners.trackers.tracker import Tracker
from runners.trackers.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {tracker.kind: tracker for tracker in (TensorBoard, MLflow, WandB)}


@dataclass(frozen=True)
class Chosen:
    """A tracker that a config names, with its arguments."""

    tracker: Tracker
    arguments: Mapping[str, Any] = field(default_factory=dict)


def chosen(value: object, place: str = "tracker") -> list[Chosen]:
    """The trackers of a config's value: null, a name, a name with arguments, or a list of these.

    Raises ConfigError with all faults, also for a tracker whose package isn't installed.
    """
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str):
        entries = [(entry, f"{place}.{index}") for index, entry in enumerate(value)]
    elif isinstance(value, Mapping):  # several names may share a mapping: tracker.mlflow.experiment=digits
        entries = [({name: arguments}, place) for name, arguments in value.items()]
    else:
        entries = [(value, place)]
    found: dict[str, Chosen] = {}
    faults: list[Fault] = []
    for entry, where in entries:
        try:
            kind, arguments = _parsed(entry, where)
            if kind in found:
                raise ConfigError([Fault(where, f"{kind} is given twice")])
            found[kind] = Chosen(construct(TRACKERS[kind], arguments, f"{where}.{kind}"), arguments)
            _check_installed(TRACKERS[kind].package, where)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return list(found.values())


def _parsed(entry: object, place: str) -> tuple[str, dict[str, Any]]:
    """`mlflow`, or `mlflow: {experiment: digits}`, as kind and arguments."""
    kind: Any
    arguments: Any
    if isinstance(entry, Mapping) and len(entry) == 1:
        kind, arguments = next(iter(entry.items()))
    else:
        kind, arguments = entry, None
    if not isinstance(kind, str):
        raise ConfigError([Fault(place, f"{show(entry)} is not allowed, give a name, or one name with its arguments")])
    if kind not in TRACKERS:
        raise ConfigError([Fault(place, f"unknown {show(kind)}, {nearest(kind, TRACKERS)}")])
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ConfigError([Fault(f"{place}.{kind}", f"{show(arguments)} is not allowed, give arguments by name")])
    return kind, dict(arguments or {})


def _check_installed(package: str, place: str) -> None:
    found = importlib.util.find_spec(package) if package else None
    if package and (found is None or found.origin is None):  # a folder of that name isn't the package
        raise ConfigError([Fault(place, f"{package} is not installed: {pip_install(package)}")])
