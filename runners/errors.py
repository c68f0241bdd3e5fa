"""What can be wrong with what a user gives. The commands turn these, and `cnn.ConfigError`, into exit code 2."""

from __future__ import annotations

import shlex
from pathlib import Path

from cnn.text import printable as printable
from cnn.text import short as short


def typed_path(key: str, path: Path) -> str:
    """`key=path`, as it is typed in a shell."""
    return shlex.quote(f"{key}={path}")


class InputError(Exception):
    """Something given can't be used; the message names the place, the value and what to do."""


class DataError(InputError):
    """A dataset that is missing, broken, or too small for what was asked."""


class CheckpointError(InputError):
    """A checkpoint that is missing, broken, of another format, or of another network."""


class ImageError(InputError):
    """A picture that can't be read; `reason` is the message without the path."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        self.reason = reason
        super().__init__(f"{printable(path)}: {reason}" if path else reason)


class RunDirectoryError(InputError):
    """A run directory that can't be made or isn't one."""


class RunFailed(Exception):
    """A run broke down after it had begun; its directory tells how."""


class DebugFailed(Exception):
    """The network didn't pass what `debug` asks for; the report tells where."""
