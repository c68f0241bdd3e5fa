"""Between the command line, Hydra and the schema.

Overrides pass even where a key is unknown, so that the schema can tell all mistakes together; Hydra's own complaints
become ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnn.arguments import ConfigError, Fault, nearest, show

CONFIGS = Path(__file__).parent.parent / "configs"
MULTIRUN = ("-m", "--multirun")
OVERRIDE = re.compile(r"(?P<prefix>\+\+|\+|~|)(?P<key>[A-Za-z_][\w./@-]*)(?:=(?P<value>.*))?", re.DOTALL)
OPTIONAL = ("experiment", "debug")
"""Groups of which nothing may be chosen."""

PATHS = ("run_dir", "sweep_dir", "init_from", "data.path")
REFERENCE = re.compile(r"\$\{\s*model\.(\w+)")


def _times(factor: object, value: object) -> object:
    """`${times:2,${model.width}}` in a model; what isn't a whole number stays as it is, for the schema to refuse."""
    if isinstance(factor, int) and isinstance(value, int) and not isinstance(value, bool):
        return factor * value
    return value


def register_resolvers() -> None:
    """Teach OmegaConf the one function that configs may use, a product of two whole numbers."""
    OmegaConf.register_new_resolver("times", _times, replace=True)


register_resolvers()


def prepare(arguments: Sequence[str]) -> tuple[list[str], list[Fault]]:
    """Arguments for Hydra, with keys forced in, and the faults of those that name an unknown choice of a group."""
    # Hydra's parser wants its flags before all overrides
    prepared = [argument for argument in arguments if argument in MULTIRUN]
    faults = misplaced(arguments)
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument in MULTIRUN:
            continue
        match = OVERRIDE.fullmatch(argument)
        if match is None or match["prefix"] == "~" or match["key"].startswith("hydra"):
            prepared.append(argument)
        elif match["value"] is None:
            if before.startswith("-") and before not in MULTIRUN:
                prepared.append(argument)  # the value of a flag of Hydra's
            else:
                faults.append(Fault(argument, "a key needs a value, give key=value"))
        elif match["key"] in groups() and re.fullmatch(r"[\w,-]*", match["value"]):
            if match["key"] in OPTIONAL and match["value"] == "null":
                continue
            if "," in match["value"] and not any(argument in MULTIRUN for argument in arguments):
                faults.append(Fault(match["key"], f"{match['value']} are several choices, put -m before them to sweep"))
                continue
            known = choices(match["key"])
            unknown = [name for name in match["value"].split(",") if name not in known]
            faults += [Fault(match["key"], f"unknown {show(name)}, {nearest(name, known)}") for name in unknown]
            if not unknown:
                prepared.append(argument)
        elif match["key"] in groups():
            prepared.append(argument)  # choice(...) and the like: Hydra's
        else:
            prepared.append(f"++{match['key']}={_quoted(match['key'], match['value'])}")
    return prepared, faults


def _quoted(key: str, value: str) -> str:
    """A path in quotes, so that Hydra's grammar takes spaces, `=` and letters of all alphabets as they stand."""
    if key not in PATHS or value in ("", "null") or re.fullmatch(r"[\w./,-]*|[\"'$].*", value, re.ASCII | re.DOTALL):
        return value
    return '"' + value.replace('"', '\\"') + '"'


def misplaced(arguments: Sequence[str]) -> list[Fault]:
    """Directories given where the other kind of start makes them, or where a sweep has been already."""
    keys = {match["key"]: match["value"] for argument in arguments if (match := OVERRIDE.fullmatch(argument))}
    sweeping = any(argument in MULTIRUN for argument in arguments)
    if sweeping and "run_dir" in keys:
        return [Fault("run_dir", "a sweep makes a directory for each job, give sweep_dir")]
    if sweeping and keys.get("sweep_dir") and Path(keys["sweep_dir"]).exists():
        return [Fault("sweep_dir", f"{keys['sweep_dir']} exists already, give a new one or remove it")]
    if not sweeping and "sweep_dir" in keys:
        return [Fault("sweep_dir", "only a sweep (-m) uses it, give run_dir")]
    return []


def groups() -> list[str]:
    """The groups of configs: data, model, optimizer, ..."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())


def choices(group: str) -> list[str]:
    """The names that a group offers."""
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def from_hydra(error: Exception) -> ConfigError:
    """What Hydra, OmegaConf or a YAML parser complains about while a config is composed, as one fault."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return ConfigError([Fault(f"{mark.name}:{mark.line + 1}:{mark.column + 1}", error.problem or "broken YAML")])
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return ConfigError([Fault(group, f"unknown {show(name)}, {nearest(name, error.options)}")])
    text = " ".join(str(error).split("\nSee https")[0].split())
    place = ""
    if text.startswith("Error merging override ++") and error.__cause__:
        place = text.removeprefix("Error merging override ++").split("=")[0]
        text = f"can't be set: {str(error.__cause__).splitlines()[0]}"
    if isinstance(error, OverrideParseException):
        place = error.override.removeprefix("++")
        text = text.removeprefix(f"Error parsing override '{error.override}' ")
    elif isinstance(error, OmegaConfBaseException):
        place = str(error.full_key or "")
        text = str(error).splitlines()[0]
    return ConfigError([Fault(place, text)])


def resolve(composed: DictConfig, typed: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """The composed config as plain data, and the faults that show only before references are resolved.

    Raises ConfigError for broken references.
    """
    faults = _unused_variables(composed, typed)
    try:
        faults += [Fault(key, f"must be given: {key}=...") for key in sorted(OmegaConf.missing_keys(composed))]
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(faults + from_hydra(error).faults) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, faults


def _unused_variables(composed: DictConfig, typed: Sequence[str]) -> list[Fault]:
    """Keys of `model` but `name` and `layers` are variables, `${model.KEY}`; typing one that nothing uses is a slip."""
    used = set(REFERENCE.findall(OmegaConf.to_yaml(composed, resolve=False)))
    keys = [match[1] for override in typed if (match := re.match(r"\+*model\.(\w+)=", override))]
    return [
        Fault(f"model.{key}", f"unknown, no layer uses ${{model.{key}}}, {nearest(key, used)}")
        for key in keys
        if key not in used and key not in ("name", "layers", "init")
    ]


def at_variables(composed: DictConfig, error: ConfigError) -> ConfigError:
    """Faults of values that stand for a variable of the model, told once and at the variable."""
    unresolved = OmegaConf.to_container(composed, resolve=False)
    return ConfigError(dict.fromkeys(_at_variable(unresolved, fault) for fault in error.faults))


def _at_variable(node: Any, fault: Fault) -> Fault:
    for part in fault.place.split("."):
        try:
            node = node[int(part) if isinstance(node, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            return fault
    named = REFERENCE.findall(node) if isinstance(node, str) else []
    return Fault(f"model.{named[0]}", fault.problem) if len(named) == 1 else fault
