"""Where configs are looked for, and the choices that are found there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def _shipped() -> Path:
    """The project's configs: within the package where it was installed, beside it in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


CONFIGS = _shipped()
OWN_CONFIGS = Path("configs")
"""Where a user's own configs are looked for in the working directory, unless `--config-dir` names another folder."""


def groups() -> list[str]:
    """The config groups: data, model, optimizer, ..."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())


def choices(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The choices of a group, in the project's configs and in other folders."""
    return sorted({file.stem for folder in (CONFIGS, *folders) for file in (folder / group).glob("*.yaml")})
