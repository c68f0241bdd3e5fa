"""Between the command line, Hydra and the schema: overrides pass even where a key is unknown, so that the schema can tell
all mistakes together, and Hydra's own complaints become ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnn.arguments import ConfigError, Fault, join, nearest, show

CONFIGS = Path(__file__).parent.parent / "configs"
OVERRIDE = re.compile(r"(?P<prefix>\+\+|\+|~|)(?P<key>[A-Za-z_][\w./@-]*)(?:=(?P<value>.*))?", re.DOTALL)
REFERENCE = re.compile(r"\$\{\s*model\.(\w+)")


def prepare(arguments: Sequence[str]) -> tuple[list[str], list[Fault]]:
    """Arguments for Hydra, with keys forced in, and the faults of those that name an unknown choice of a group."""
    prepared: list[str] = []
    faults: list[Fault] = []
    for argument in arguments:
        match = OVERRIDE.fullmatch(argument)
        if argument.startswith("-") or match is None or match["prefix"] == "~" or match["key"].startswith("hydra"):
            prepared.append(argument)
        elif match["value"] is None:
            faults.append(Fault(argument, "is no override, give key=value"))
        elif match["key"] in groups():
            unknown = [name for name in match["value"].split(",") if name not in choices(match["key"])]
            faults += [Fault(match["key"], f"unknown {show(name)}, {nearest(name, choices(match['key']))}") for name in unknown]
            if not unknown:
                prepared.append(argument)
        else:
            prepared.append(f"++{match['key']}={match['value']}")
    return prepared, faults


def groups() -> list[str]:
    """The groups of configs: data, model, optimizer, ..."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())


def choices(group: str) -> list[str]:
    """The names that a group offers."""
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def from_hydra(error: HydraException | OmegaConfBaseException) -> ConfigError:
    """Hydra's or OmegaConf's complaint as one fault."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return ConfigError([Fault(group, f"unknown {show(name)}, {nearest(name, error.options)}")])
    text = " ".join(str(error).split("\nSee https")[0].split())
    place = ""
    if isinstance(error, OverrideParseException):
        place = re.sub(r"^\+\+", "", error.override)
        text = text.removeprefix(f"Error parsing override '{error.override}' ").removeprefix(f"Error parsing override '{place}' ")
    elif isinstance(error, OmegaConfBaseException) and error.full_key:
        place = str(error.full_key)
        text = str(error.msg).splitlines()[0] if error.msg else text
    return ConfigError([Fault(place, text)])


def resolve(composed: DictConfig) -> dict[str, Any]:
    """The composed config as plain data. Raises ConfigError for broken references, missing values and unused variables."""
    faults = _unused_variables(composed) + [
        Fault(key, f"must be given: {key}=...") for key in sorted(OmegaConf.missing_keys(composed))
    ]
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(faults + from_hydra(error).faults) from None
    assert isinstance(plain, dict)
    if faults:
        raise ConfigError(faults)
    return {str(key): value for key, value in plain.items()}


def _unused_variables(composed: DictConfig) -> list[Fault]:
    """Keys of `model` beside `name` and `layers` are variables for `${model.KEY}`; one that nothing uses is a slip."""
    model = composed.get("model")
    if not isinstance(model, DictConfig):
        return []
    used = set(REFERENCE.findall(OmegaConf.to_yaml(composed, resolve=False)))
    return [
        Fault(join("model", str(key)), f"unknown: no layer uses ${{model.{key}}}, {nearest(str(key), used)}")
        for key in model
        if key not in used and key not in ("name", "layers")
    ]
