"""A user's own layers, losses, optimizers, schedules, data, tasks and trackers: `extensions=[FILE.py]`.

A file is imported if the command line or a composed config names it. Files that only a checkpoint or a saved config
names are never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn.faults import ConfigError, Fault
from cnn.graphs import GRAPHS
from cnn.graphs.graph import Graph
from cnn.layer import Layer
from cnn.layers import LAYERS
from cnn.losses import LOSSES, Loss
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.schedules import SCHEDULES, Schedule
from cnn.text import show
from runners.config import grammar
from runners.data import Source
from runners.data.sources import SOURCES
from runners.files.paths import user_path
from runners.tasks.registry import TASKS
from runners.tasks.task import Task
from runners.trackers.registry import TRACKERS
from runners.trackers.tracker import Tracker

REGISTRIES: list[tuple[type, dict[str, Any]]] = [
    (Graph, GRAPHS),
    (Layer, LAYERS),
    (Loss, LOSSES),
    (Optimizer, OPTIMIZERS),
    (Schedule, SCHEDULES),
    (Source, SOURCES),
    (Task, TASKS),
    (Tracker, TRACKERS),
]
"""A class is added to the first registry whose base it derives from."""

PREFIX = "extension_"
_loaded: dict[Path, bytes] = {}
_owners: dict[tuple[type, str], Path] = {}
"""The file that registered a kind, by the registry's base class."""


def load(files: object) -> None:
    """Import files and register the classes in them that have a `kind`. Unchanged files are imported only once.

    Raises ConfigError if a file doesn't exist, can't be imported, or uses a name that is already taken.
    """
    for file in [files] if isinstance(files, str) else files if isinstance(files, Sequence) else ():
        if not isinstance(file, str) or not user_path(file).is_file():
            raise ConfigError([Fault("extensions", f"there is no file {show(file)}")])
        path = user_path(file).resolve()
        source = path.read_bytes()
        if _loaded.get(path) != source:
            for kind, base, class_ in _classes(_imported(path, file), path):
                dict(REGISTRIES)[base][kind] = class_
                _owners[base, kind] = path
            _loaded[path] = source


def _imported(path: Path, file: str) -> ModuleType:
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ConfigError([Fault("extensions", f"{file} is not a Python file, its name must end in .py")])
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line(error, path)
        raise ConfigError([Fault("extensions", f"{file}{line}: {type(error).__name__}: {error}")]) from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """The last line of the file in an exception's traceback."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines, trace = [], error.__traceback__
    while trace:
        lines += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == str(path) else []
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""


def _classes(module: ModuleType, path: Path) -> list[tuple[str, type, type]]:
    """The classes with a `kind` that a file defines, each with the base class of its registry. Raises ConfigError."""
    found: dict[tuple[type, str], type] = {}
    for class_ in dict.fromkeys(value for value in vars(module).values() if isinstance(value, type)):
        if class_.__module__ != module.__name__ or "kind" not in vars(class_):
            continue
        kind = vars(class_)["kind"]
        base = next((base for base, _ in REGISTRIES if issubclass(class_, base)), None)
        if base is None or not isinstance(kind, str):
            wanted = ", ".join(base.__name__ for base, _ in REGISTRIES)
            raise _fault(class_, f"has a kind, which is for a name and for classes derived from {wanted}")
        taken = found.get((base, kind)) or dict(REGISTRIES)[base].get(kind)
        if taken and ((base, kind) in found or _owners.get((base, kind)) != path):
            raise _fault(class_, f"its kind, {kind}, is already used by {taken.__name__}: give another")
        found[base, kind] = class_
    return [(kind, base, class_) for (base, kind), class_ in found.items()]


def _fault(class_: type, problem: str) -> ConfigError:
    return ConfigError([Fault("extensions", f"{class_.__name__}: {problem}")])


def digests(files: object) -> list[str]:
    """The SHA-256 of each file that was imported, sorted: what a run was computed with."""
    given = [files] if isinstance(files, str) else files if isinstance(files, Sequence) else ()
    return sorted(hashlib.sha256(_loaded[user_path(str(file)).resolve()]).hexdigest() for file in given)


def without_defaults(raw: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """A composed config without what the default choices set and an extension has no use for.

    `optimizer.name=mine` keeps of the section only the keys that are given.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    kept = dict(raw)
    for section in ("task", "optimizer", "schedule", "loss", "data"):
        content = raw.get(section)
        if f"{section}.name" in given and isinstance(content, Mapping):
            kept[section] = {key: value for key, value in content.items() if f"{section}.{key}" in given}
    return kept


def load_from_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Import the files that `extensions=...` names among arguments; returns the files, and the other arguments."""
    files: list[str] = []
    rest = []
    for argument in arguments:
        if argument.startswith("extensions="):
            value = grammar.read(argument).parsed.value()
            files += [str(value)] if not isinstance(value, list) else [str(item) for item in value]
        else:
            rest.append(argument)
    load(files)
    return files, rest
