"""A user's own layers, losses, optimizers, schedules, data and tasks: `extensions=[FILE.py]`.

A file is imported if the command line or a composed config names it. Files that only a checkpoint or a saved config
names are never imported.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
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
from runners.config import overrides
from runners.data import Source
from runners.data.sources import SOURCES
from runners.tasks.registry import TASKS
from runners.tasks.task import Task

REGISTRIES: list[tuple[type, dict[str, Any]]] = [
    (Graph, GRAPHS),
    (Layer, LAYERS),
    (Loss, LOSSES),
    (Optimizer, OPTIMIZERS),
    (Schedule, SCHEDULES),
    (Source, SOURCES),
    (Task, TASKS),
]
"""A class is added to the first registry whose base it derives from."""

PREFIX = "extension_"
_loaded: dict[Path, bytes] = {}


def load(files: object) -> None:
    """Import files and register the classes in them that have a `kind`. Unchanged files are imported only once.

    Raises ConfigError if a file doesn't exist, can't be imported, or uses a name that is already taken.
    """
    for file in [files] if isinstance(files, str) else files if isinstance(files, Sequence) else ():
        if not isinstance(file, str) or not Path(file).is_file():
            raise ConfigError([Fault("extensions", f"there is no file {show(file)}")])
        path = Path(file).resolve()
        source = path.read_bytes()
        if _loaded.get(path) != source:
            for kind, registry, class_ in _classes(_imported(path, file)):
                registry[kind] = class_
            _loaded[path] = source


def _imported(path: Path, file: str) -> ModuleType:
    name = PREFIX + path.stem
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ConfigError([Fault("extensions", f"{file} is not a Python file, its name must end in .py")])
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = _line(error, path)
        raise ConfigError([Fault("extensions", f"{file}{line}: {type(error).__name__}: {error}")]) from error
    return module


def _line(error: Exception, path: Path) -> str:
    """The last line of the file in an exception's traceback."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines, trace = [], error.__traceback__
    while trace:
        lines += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == str(path) else []
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""


def _classes(module: ModuleType) -> Iterator[tuple[str, dict[str, Any], type]]:
    """The classes with a `kind` that a module defines, each with its registry. Raises ConfigError."""
    for class_ in list(vars(module).values()):
        if not isinstance(class_, type) or class_.__module__ != module.__name__ or "kind" not in vars(class_):
            continue
        kind = vars(class_)["kind"]
        for base, registry in REGISTRIES:
            if issubclass(class_, base):
                taken = registry.get(kind)
                if taken and not taken.__module__.startswith(PREFIX):
                    problem = f"{class_.__name__}: its kind, {kind}, is already used by {taken.__name__}: give another"
                    raise ConfigError([Fault("extensions", problem)])
                yield kind, registry, class_
                break


def load_from_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Import the files that `extensions=...` names among arguments; returns the files, and the other arguments."""
    files: list[str] = []
    rest = []
    for argument in arguments:
        if argument.startswith("extensions="):
            value = overrides.read(argument).parsed.value()
            files += [str(value)] if not isinstance(value, list) else [str(item) for item in value]
        else:
            rest.append(argument)
    load(files)
    return files, rest
