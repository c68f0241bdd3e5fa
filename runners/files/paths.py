"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """The path that a person gave as text, with a leading `~` or `~user` replaced by a home directory.

    A shell doesn't replace the one in `run_dir=~/x`. As in a shell, a name of no user is kept, and `./~` is a folder.
    """
    if isinstance(text, Path):  # made from text before, perhaps from `./~`
        return text
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser fails for a name of no user
