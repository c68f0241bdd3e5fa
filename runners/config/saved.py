"""A saved run's config with overrides. It is read as data: saved values are never composed or resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from cnn.faults import ConfigError, Fault
from cnn.text import nearest, show
from runners.config import composition, folders, grammar
from runners.config.settings import Settings
from runners.files.dotted import flat as flat

DEFAULTS = {
    name: field.default for name, field in Settings.model_fields.items() if isinstance(field.default, bool | int | str)
}
"""The values of keys that a config saved before they existed doesn't have."""
Refuse = Callable[[str], str | None]


def with_overrides(saved: Mapping[str, Any], arguments: Sequence[str], refuse: Refuse) -> dict[str, Any]:
    """The saved config, changed by `key=value` and by `group=NAME`, which is read from the project's own files.

    `refuse` returns why a key can't be changed, or None. Raises ConfigError with all faults.
    """
    config = deepcopy(dict(saved))
    found: dict[str, Sequence[Fault]] = {}
    for argument in sorted(arguments, key=_is_within):
        try:
            override = grammar.read(argument)
            _change(config, override, refuse)
        except ConfigError as error:
            found[argument] = error.faults
    faults = [fault for argument in arguments for fault in found.get(argument, ())]
    faults += [Fault(key, f"must be given: {key}=...") for key, value in flat(config).items() if value == "???"]
    if faults:
        raise ConfigError(faults)
    return config


def _change(config: dict[str, Any], override: grammar.ParsedOverride, refuse: Refuse) -> None:
    key = override.key
    if problem := refuse(key):
        raise ConfigError([Fault(key, problem)])
    if override.sweeps:
        raise ConfigError([Fault(key, f"{override.text} is more than one value, give one")])
    if key in folders.groups():
        config[key] = chosen(key, override.text)
    elif grammar.is_choice(key):
        config[key.removesuffix(".name")] = {"name": override.parsed.value()}
    else:
        _put(config, key, override.parsed.value())


def _is_within(argument: str) -> bool:
    """Whether an override sets a key within a section; those that choose a whole section come first."""
    key = grammar.spelled_out(argument).partition("=")[0]
    return "." in key and not grammar.is_choice(key)


def chosen(group: str, name: str) -> dict[str, Any]:
    """The section that `group=NAME` stands for. Raises ConfigError if there is no such choice."""
    known = folders.choices(group, folders.own())
    if name not in known:
        raise ConfigError([Fault(group, f"unknown {show(name)}, {nearest(name, known)}")])
    content = OmegaConf.to_container(_compose([f"{group}={name}"])[group], resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def composed(arguments: Sequence[str]) -> dict[str, Any]:
    """The config of these overrides as plain data. Raises the errors of Hydra and OmegaConf for wrong ones."""
    return composition.resolve(_compose(arguments), arguments)[0]


def _compose(arguments: Sequence[str]) -> DictConfig:
    hydra = GlobalHydra.instance()
    running = hydra.hydra  # of the command itself, which Hydra doesn't let anything compose beside
    hydra.clear()
    try:
        with initialize_config_dir(str(folders.CONFIGS), version_base="1.3"):
            return compose("config", [folders.search_path(folders.own()), *arguments])
    finally:
        hydra.hydra = running


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = config.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError([Fault(key, f"can't be set: {section} is {show(inner)}")])
        config = inner
    config[last] = value


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with the old and the new value."""
    old, new = DEFAULTS | flat(before), DEFAULTS | flat(after)
    return {key: (old.get(key), new.get(key)) for key in [*new, *old] if old.get(key) != new.get(key)}
