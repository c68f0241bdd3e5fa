"""Errors in what a user gives. The commands turn these, and `cnn.ConfigError`, into exit code 2."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cnn.text import printable as printable
from cnn.text import short as short

IN_A_CHECKOUT = (Path(__file__).parents[1] / "run.py").exists()


def program(name: str) -> str:
    """How the user starts `train`, `predict`, `evaluate` or `report`: from a checkout, or as it was installed."""
    if Path(sys.argv[0]).name.startswith("cnn-") or not IN_A_CHECKOUT:
        return f"cnn-{name}"
    scripts = {"train": "python run.py", "predict": "python predict.py"}
    return scripts.get(name, f"python -m runners.{name}")


def print_to_stderr(text: str) -> None:
    """Print a note or a warning to stderr."""
    with suppress(OSError):  # a closed terminal doesn't stop anything
        print(text, file=sys.stderr)


def typed(texts: str | Sequence[object]) -> str:
    """A text, or a list of them, as one types it after `key=`."""
    return texts if isinstance(texts, str) else f"[{','.join(map(str, texts))}]"


def shell_argument(key: str, value: Path | str) -> str:
    """`key=value`, quoted for a shell."""
    return shlex.quote(f"{key}={value}")


class InputError(Exception):
    """An input can't be used; the message names the place, the value and what to do."""


def pip_install(extra: str) -> str:
    """The command that installs what an extra of this project needs."""
    what = f'-c constraints.txt -e ".[{extra}]"' if IN_A_CHECKOUT else f'"cnn-from-scratch[{extra}]"'
    return f"pip install {what}"


def missing_extra(key: str, package: str, extra: str) -> InputError:
    """What to install for the choice of a key that needs a package which isn't installed."""
    return InputError(f"{key}: {package} is not installed: {pip_install(extra)}")


class DataError(InputError):
    """A dataset is missing, broken, or too small for the request."""


class CheckpointError(InputError):
    """A checkpoint is missing, broken, in another format, or belongs to another network."""


class ImageError(InputError):
    """A picture can't be read; `reason` is the message without the path."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        self.reason = reason
        super().__init__(f"{printable(path)}: {reason}" if path else reason)


class OptionError(InputError):
    """The options of a command contradict each other, or don't apply to the run."""


class RunDirectoryError(InputError):
    """A run directory can't be created, or a directory isn't a run directory."""


class RunFailed(Exception):
    """A run failed after it started; its directory has the details."""


class DebugFailed(Exception):
    """The network failed the check that `debug` selects; the message is the report."""
