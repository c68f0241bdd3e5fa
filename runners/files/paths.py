"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path

SWEEP = "sweep.yaml"
"""The file that makes a directory that of a sweep."""


def user_path(text: str | Path) -> Path:
    """The path that a person gave as text, with a leading `~` or `~user` replaced by a home directory.

    A shell doesn't replace the one in `run_dir=~/x`. As in a shell, a name of no user is kept, and `./~` is a folder.
    """
    if isinstance(text, Path):  # made from text before, perhaps from `./~`
        return text
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser fails for a name of no user


def is_sweep(path: Path) -> bool:
    return (path / SWEEP).is_file()


def why_not_new(path: Path) -> str | None:
    """Why a directory can't be created here, as far as that can be checked without trying."""
    if os.path.lexists(path):
        return f"{path} already exists, choose another or remove it"
    above = path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        return f"{path} can't be created: {above} is not a directory"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"{path} can't be created: {above} is not writable"
    return None
