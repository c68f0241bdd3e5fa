"""What config files may set for Hydra: its sweeper and launcher.

Hydra composes configs and sweeps. With its other settings it would write files, change the working directory or sweep
unasked, so a file that sets one of them is refused before Hydra reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cnn.faults import ConfigError, Fault
from cnn.text import short
from runners.config import folders, grammar, overrides
from runners.config.composition import COMPOSITION_ERRORS, from_hydra
from runners.config.overrides import Command
from runners.files.dotted import flat

OBEYED = ("launcher", "sweeper")
FILLED_IN = ("overrides", "runtime", "job.override_dirname", "job.id", "job.num")
"""Set by Hydra itself."""
INSTEAD = {
    "run": "give run_dir=DIRECTORY",
    "sweep": "give sweep_dir=DIRECTORY on the command line",
    "mode": "give -m on the command line",
    "output_subdir": "a run saves its config in its own directory",
    "job": "a run stays in the directory in which it was started",
}
OURS = "hydra_plugins.cnn_from_scratch."
MENTION = re.compile(r"hydra|run_dir|sweep_dir")


def fixed(name: str) -> list[str]:
    """The overrides of Hydra's settings for a program of this name, so that Hydra writes nothing."""
    return [
        f"hydra.help.app_name={grammar.quoted(name)}",
        "hydra.run.dir=.",
        "hydra.job.chdir=false",
        "hydra.output_subdir=null",
    ]


@dataclass(frozen=True)
class Launcher:
    """The launcher of a sweep: its name, its settings, and whether it is one of this project's."""

    name: str = "basic"
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_ours: bool = False


def launcher(command: Command) -> Launcher:
    """The launcher that a sweep chooses, on the command line or in a file; Hydra's `basic` if it chooses none."""
    given = [text for text in command.overrides if text.lstrip("+").startswith("hydra.launcher.")]
    chosen = [text.partition("=")[2] for text in command.overrides if text.lstrip("+").startswith("hydra/launcher=")]
    if not (given or chosen or _mentioning(command)):  # composing takes a while
        return Launcher()
    with initialize_config_dir(str(folders.CONFIGS), version_base="1.3"):
        try:
            overridden = [folders.search_path(command.folders), *next(_choices(command)), *given]
            composed = compose("config", overridden, return_hydra_config=True)
            settings = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
        except COMPOSITION_ERRORS:  # reported when the sweep composes it
            return Launcher(chosen[-1] if chosen else "basic")
    assert isinstance(settings, dict)
    ours = str(settings.pop("_target_", "")).startswith(OURS)
    named = {str(key): value for key, value in settings.items()}
    return Launcher(str(composed.hydra.runtime.choices["hydra/launcher"]), named, ours)


def find_faults(command: Command) -> list[Fault]:
    """Faults for what the files chosen by a command set for Hydra, or as a directory, and what has no effect."""
    files = _mentioning(command)
    if not files and not command.sweeping:  # composing takes a while
        return []
    search = folders.search_path(command.folders)
    found: dict[str, Fault] = {}
    with initialize_config_dir(str(folders.CONFIGS), version_base="1.3"):
        plain = compose("config", [search], return_hydra_config=True)
        for choices in _choices(command):
            try:
                composed = compose("config", [search, *choices], return_hydra_config=True)
            except COMPOSITION_ERRORS:  # reported with all other faults when the run composes it
                continue
            for fault in (*_settings(plain, composed, files), *_directories(composed, command.sweeping)):
                found[fault.place] = fault
    return list(found.values())


def failure(error: Exception, command: Command) -> ConfigError | None:
    """An exception that Hydra raised before the first job of a sweep, as faults of its sweeper and launcher.

    None if neither the command nor a file that it chooses sets anything for these.
    """
    given = [grammar.read(text.lstrip("+")) for text in command.overrides]
    keys = [override.key for override in given if override.key.startswith("hydra")]
    groups = [override for override in given if override.key in folders.groups()]
    chosen = [(override.key, name) for override in groups for name in override.values(command.folders)]
    places = keys or [str(file) for file in _mentioning(command) if (file.parent.name, file.stem) in chosen]
    if not places:
        return None
    if any(key.startswith("hydra.sweeper.params") for key in keys):
        problem = "can't be set for this sweeper, give the values as overrides, such as seed=1,2"
        return ConfigError([Fault("hydra.sweeper.params", problem)])
    faults = from_hydra(error, [folders.CONFIGS, *command.folders]).faults
    where, why = ", ".join(places), "refused by Hydra's sweeper or launcher"
    return ConfigError(fault if fault.place else Fault(where, f"{why}: {short(fault.problem)}") for fault in faults)


def _mentioning(command: Command) -> list[Path]:
    """The files, other than the project's main one, that may set something for Hydra."""
    patterns = "*.yaml", "*/*.yaml", "*/*/*.yaml"  # and no ** or rglob: these pass over links to folders
    searched = (folders.CONFIGS, *command.folders)
    files = [file for folder in searched for pattern in patterns for file in sorted(folder.glob(pattern))]
    own = folders.CONFIGS / "config.yaml"
    return [file for file in files if file != own and MENTION.search(file.read_text("utf-8", errors="replace"))]


def _choices(command: Command) -> Iterator[list[str]]:
    """The overrides of a command, so that each choice of each group is in one of these lists; no list sweeps."""
    given = [(text, grammar.read(text)) for text in command.overrides]
    fixed = [text for text, override in given if not override.sweeps and not override.key.startswith("hydra.")]
    swept = {
        override.key: override.values(command.folders)
        for _, override in given
        if override.sweeps and override.key in folders.groups()
    }
    first = {key: values[0] for key, values in swept.items()}
    yield [*fixed, *(f"{key}={name}" for key, name in first.items())]
    for key, values in swept.items():
        for name in values[1:]:
            yield [*fixed, *(f"{other}={value}" for other, value in (first | {key: name}).items())]


def _settings(plain: DictConfig, composed: DictConfig, files: Sequence[Path]) -> Iterator[Fault]:
    """A fault for each of Hydra's settings, except for sweeper and launcher, that differs from the project's own."""
    chosen = [*composed.hydra.runtime.choices.items()]
    used = [file for file in files if (file.parent.name, file.stem) in chosen]
    where = f" ({short(', '.join(map(str, used)))})" if used else ""
    before, after = (_flat(config.hydra) for config in (plain, composed))
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    for section in dict.fromkeys(key.partition(".")[0] for key in changed):
        keys = [key for key in changed if key.partition(".")[0] == section]
        place = f"hydra.{keys[0] if len(keys) == 1 else section}"
        hint = INSTEAD.get(section, "remove it")
        yield Fault(place, f"only hydra.launcher and hydra.sweeper can be set in a file{where}; {hint}")


def _flat(settings: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(settings, resolve=False)
    assert isinstance(plain, Mapping)
    filled = (*OBEYED, *FILLED_IN)
    return {
        key: value
        for key, value in flat({str(key): value for key, value in plain.items()}).items()
        if not any(key == name or key.startswith(f"{name}.") for name in filled)
    }


def _directories(composed: DictConfig, sweeping: bool) -> Iterator[Fault]:
    """A fault for a directory in a file that the command doesn't use."""
    if composed.get("sweep_dir") is not None:
        yield Fault("sweep_dir", "has no effect in a file, give it on the command line: -m sweep_dir=DIRECTORY")
    if sweeping and composed.get("run_dir") is not None:
        yield Fault("run_dir", overrides.NOT_IN_A_SWEEP)
