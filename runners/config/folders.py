"""Where configs are looked for, and the choices that are found there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def _shipped() -> Path:
    """The project's configs: within the package where it was installed, beside it in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


CONFIGS = _shipped()
NETWORKS = ("generator", "discriminator", "encoder", "decoder")
"""The groups of networks other than `model`. None is chosen by default, and a task that trains them asks for one."""
OWN_CONFIGS = Path("configs")
"""Where a user's own configs are looked for in the working directory, unless `--config-dir` names another folder."""


def own() -> list[Path]:
    """The user's own folder in the working directory, if there is one."""
    return [OWN_CONFIGS] if OWN_CONFIGS.is_dir() and not OWN_CONFIGS.samefile(CONFIGS) else []


def shadowed(folder: Path) -> list[Path]:
    """The files of a user's own that would be passed over, as the project has others of these names."""
    files = [file for file in sorted(folder.glob("*/*.yaml")) if (CONFIGS / file.parent.name / file.name).is_file()]
    return [file for file in files if file.read_bytes() != (CONFIGS / file.parent.name / file.name).read_bytes()]


def search_path(more: Sequence[Path]) -> str:
    """The override that lets Hydra look for configs in other folders, too."""
    places = [f"file://{folder.absolute()}".replace('"', '\\"') for folder in more]
    return "hydra.searchpath=[" + ",".join(f'"{place}"' for place in places) + "]"


def groups() -> list[str]:
    """The config groups: data, model, optimizer, ..."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())


def choices(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The choices of a group, in the project's configs and in other folders."""
    return sorted({file.stem for folder in (CONFIGS, *folders) for file in (folder / group).glob("*.yaml")})
