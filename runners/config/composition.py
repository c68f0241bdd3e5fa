"""Configs composed by Hydra as plain data, and the errors of Hydra, OmegaConf and YAML as faults."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnn.faults import ConfigError, Fault, join
from cnn.text import nearest, show
from runners.config import yaml_files

REFERENCE = re.compile(r"\$\{\s*(\.*)(\w+)(?:\.(\w+))?")
OWN_KEYS = ("name", "layers", "init")
"""Keys of a network that aren't variables."""
MAX_VALUES = 100_000


def _times(factor: object, value: object) -> object:
    """`${times:2,${model.width}}` in a model. A value that isn't a whole number is kept, for the schema to refuse."""
    if isinstance(factor, int) and isinstance(value, int) and not isinstance(value, bool):
        return factor * value
    return value


def register_resolvers() -> None:
    """Register the only function that configs may use, the product of two whole numbers."""
    OmegaConf.register_new_resolver("times", _times, replace=True)


register_resolvers()


COMPOSITION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    yaml.YAMLError,
    OSError,
    ValueError,
    AssertionError,
    RecursionError,
)
"""The exceptions that composing a faulty config raises."""


def from_hydra(error: BaseException, folders: Iterable[Path] = ()) -> ConfigError:
    """An exception from composing a config as a ConfigError. If files can't be read, it reports all of them."""
    if not str(error) and error.__cause__:
        error = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return ConfigError([Fault(group, f"unknown {show(name)}, {nearest(name, error.options)}")])
    of_a_file = yaml.YAMLError | OmegaConfBaseException | OSError | UnicodeError | RecursionError
    if isinstance(error, of_a_file) and not isinstance(error, MissingConfigException):
        faults = yaml_files.faults(folders)
        if faults:
            return ConfigError(faults)
    if isinstance(error, RecursionError):
        return ConfigError([Fault("", "configs refer to each other in a circle, or lists are nested too deeply")])
    text = " ".join(re.split(r"\nSee https|Config search path", str(error))[0].split()) or type(error).__name__
    merging = re.match(r"Error merging override \+\+([^=]*)=", text)
    if merging and error.__cause__:
        return ConfigError([Fault(merging[1], f"can't be set: {_first_line(error.__cause__)}")])
    if isinstance(error, OmegaConfBaseException):
        return ConfigError([Fault(_dotted(error.full_key or ""), _first_line(error))])
    return ConfigError([Fault("", text)])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _dotted(key: object) -> str:
    """A place as on the command line: `model.layers.0` for OmegaConf's `model.layers[0]`."""
    return re.sub(r"\[(\w+)\]", r".\1", str(key))


def resolve(composed: DictConfig, overrides: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """The composed config as plain data, and the faults that can only be found before references are resolved."""
    faults = _unused_variables(composed, overrides)
    count = 0

    def plain(node: object, place: str) -> Any:
        """A node with all references resolved; one that can't be becomes None and a fault."""
        nonlocal count
        count += 1
        if count > MAX_VALUES:
            raise ConfigError([Fault("", f"the config has more than {MAX_VALUES:,} values")])
        if isinstance(node, DictConfig):
            return {key: item(node, key, join(place, str(key))) for key in node}
        if isinstance(node, ListConfig):
            return [item(node, index, f"{place}.{index}") for index in range(len(node))]
        return node

    def item(node: DictConfig | ListConfig, key: Any, place: str) -> Any:
        try:
            if OmegaConf.is_missing(node, key):
                faults.append(Fault(place, f"must be given: {place}=..."))
                return None
            return plain(node[key], place)
        except OmegaConfBaseException as error:
            faults.append(Fault(place, _unresolved(composed, error)))
            return None

    return {str(key): value for key, value in plain(composed, "").items()}, faults


def _unresolved(composed: DictConfig, error: OmegaConfBaseException) -> str:
    """Why a reference can't be resolved."""
    text = re.sub(r"^\w+ (raised )?while resolving interpolation: ", "", _first_line(error)).strip('"')
    if missing := re.fullmatch(r"Missing mandatory value: (.*)", text):
        return f"must be given: {missing[1]}=..."  # the same fault as at the missing value, so that it is reported once
    if unknown := re.fullmatch(r"Interpolation key '(?:([\w.]+)\.)?(\w+)' not found", text):
        section, name = unknown.groups()
        siblings = select(composed, section) if section else composed
        hint = f", {nearest(name, map(str, siblings))}" if isinstance(siblings, DictConfig) else ""
        return f"refers to {join(section or '', name)}, which is unknown{hint}"
    return text


def select(composed: DictConfig, key: str) -> Any:
    """The value of a key; None if it is missing, or a reference that can't be resolved."""
    return OmegaConf.select(composed, key, throw_on_resolution_failure=False)


def _unused_variables(composed: DictConfig, overrides: Sequence[str]) -> list[Fault]:
    """Faults for unused variables: keys of a network, other than its own, that no `${NETWORK.KEY}` refers to.

    If layers are overridden, variables of the layers that they replace may be unused.
    """
    networks = _networks(composed)
    sections = _unresolved_sections(composed)
    references = {found for own, section in sections.items() for found in _variables(str(section), own, networks)}
    faults = []
    for network, section in networks.items():
        keys = [str(key) for key in section]
        if any(override.startswith(f"{network}.layers") for override in overrides):
            keys = [key for key in keys if any(override.startswith(f"{network}.{key}=") for override in overrides)]
        used = {variable for name, variable in references if name == network}
        faults += [
            Fault(
                f"{network}.{key}", f"unknown, no layer uses ${{{network}.{key}}}, {nearest(key, {*used, *OWN_KEYS})}"
            )
            for key in keys
            if key not in used and key not in OWN_KEYS
        ]
    return faults


def _networks(composed: DictConfig) -> dict[str, DictConfig]:
    """The sections that describe networks, whatever the task: a list of layers makes one."""
    sections = {str(key): select(composed, str(key)) for key in composed}
    return {key: node for key, node in sections.items() if isinstance(node, DictConfig) and "layers" in node}


def _unresolved_sections(composed: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _variables(text: str, own: str, networks: Collection[str]) -> Iterator[tuple[str, str]]:
    """The networks' variables that a text in the section `own` refers to, each with its network.

    `${generator.width}` names the network; `${.width}`, with any number of dots, is of the section itself.
    """
    for dots, first, second in REFERENCE.findall(text):
        if second and first in networks:
            yield first, second
        elif dots and own in networks:
            yield own, first


def at_variables(composed: DictConfig, error: ConfigError) -> ConfigError:
    """Move faults of values that refer to a network's variable to that variable, and report each once."""
    sections, networks = _unresolved_sections(composed), _networks(composed)
    found: dict[Fault, str] = {}
    for fault in error.faults:
        moved = _at_variable(sections, networks, fault)
        if moved is fault or moved.place not in found.values():  # one wrong variable may break several layers
            found[moved] = moved.place
    return ConfigError(found)


def _at_variable(sections: Mapping[str, Any], networks: Mapping[str, DictConfig], fault: Fault) -> Fault:
    node: Any = sections
    for part in fault.place.split("."):
        try:
            node = node[int(part) if isinstance(node, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            return fault
    text = str(node) if isinstance(node, str | list) else ""  # a list, such as a shape, may be at fault as a whole
    named = [*_variables(text, fault.place.split(".")[0], networks)]
    if len(named) != 1 or named[0][1] not in networks[named[0][0]]:
        return fault
    return Fault(join(*named[0]), fault.problem)
