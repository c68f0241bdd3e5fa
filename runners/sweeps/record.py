"""`sweep.yaml`: the command of a sweep, its jobs, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cnn.text import short
from runners.errors import RunDirectoryError
from runners.files import atomic
from runners.files.paths import SWEEP

SETTINGS = ("sweep_dir", "jobs", "retry", "stop_on_failure")
"""Keys that say where and how a sweep runs, and nothing of what its jobs compute."""


class Start(BaseModel):
    """A start of a sweep: the command, when and in which folder it was given, and of which code."""

    model_config = ConfigDict(strict=True, extra="allow")

    command: str
    arguments: list[str]
    folder: str
    started: str
    origin: dict[str, Any] = {}
    configs: str = ""
    """A hash of all config files that its commands could choose from."""
    versions: dict[str, str] = {}


class Record(Start):
    """The content of sweep.yaml. `jobs` has the overrides of each job, by its number."""

    version: int = 1
    continued: list[Start] = []
    jobs: dict[int, list[str]] = {}

    @property
    def last(self) -> Start:
        """The last time that the sweep was started or continued."""
        return self.continued[-1] if self.continued else self


def read(sweep: Path) -> Record:
    """The record of a sweep. Raises RunDirectoryError if it isn't one, or can't be read."""
    file = sweep / SWEEP
    try:
        record = Record.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RunDirectoryError(f"{sweep}: {_why_no_sweep(sweep)}") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunDirectoryError(f"{file}: {where or 'the file'}: {error.errors()[0]['msg']}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RunDirectoryError(f"{file}: can't be read: {short(str(error))}") from None
    if record.version > 1:
        raise RunDirectoryError(f"{file}: written by a newer version of this program")
    return record


def _why_no_sweep(path: Path) -> str:
    if (path / "checkpoints").is_dir():
        return "a run and no sweep, resume it without -m"
    return f"not the directory of a sweep: it has no {SWEEP}" if path.exists() else "there is no such sweep"


def write(sweep: Path, record: Record) -> None:
    """Write the record of a sweep atomically."""
    text = yaml.safe_dump(record.model_dump(), sort_keys=False, allow_unicode=True)
    atomic.write(sweep / SWEEP, text.encode())


def identity(overrides: Sequence[str]) -> frozenset[str]:
    """What makes a job the same in another start: its overrides in any order, wherever its own files are."""
    return frozenset(text.lstrip("+") for text in overrides if not text.lstrip("+").startswith("extensions="))


def same_command(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two commands describe the same jobs, wherever and in whatever way they run."""
    return _described(one) == _described(other)


def _described(arguments: Sequence[str]) -> frozenset[str]:
    keys = [*SETTINGS, "hydra/launcher", "hydra.launcher"]
    ignored: Any = tuple(f"{key}{end}" for key in keys for end in ("=", "."))
    return identity([argument for argument in arguments if not argument.lstrip("+").startswith(ignored)])
