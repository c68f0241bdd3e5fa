"""Check a whole config at once: every mistake is reported, each with its place as on the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch

from cnn.arguments import check, construct, construct_named
from cnn.builder import make_network
from cnn.faults import ConfigError, Fault
from cnn.losses import LOSSES, Loss
from cnn.ops.threads import available_threads
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.schedules import SCHEDULES, Schedule
from cnn.text import closest, nearest, show
from runners.config import compatibility, folders
from runners.config.compatibility import Parts, Rule
from runners.config.settings import Settings
from runners.data import Source
from runners.data.augmentation import Augmentation
from runners.data.sources import SOURCES
from runners.files.checkpoint import PRECISIONS
from runners.tasks.registry import TASKS
from runners.tasks.task import Task
from runners.trackers import registry
from runners.trackers.registry import Chosen

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """A config whose parts have all been checked. It is immutable; its methods construct new objects.

    `changed` returns another config.
    """

    settings: Settings
    device: torch.device
    raw: Mapping[str, Any]

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.settings.dtype]

    @property
    def threads(self) -> int:
        return self.settings.threads or available_threads()

    @property
    def saved(self) -> dict[str, Any]:
        """The config that a run saves, with defaults that were determined at run time."""
        return {**deepcopy(dict(self.raw)), "threads": self.threads}

    def changed(self, **sections: Any) -> Config:
        """A config with these top-level keys or sections replaced. Raises ConfigError."""
        return parse({**self.raw, **sections})

    def source(self) -> Source:
        made: Source = construct_named(SOURCES, self.raw["data"], "data")
        return made

    def augmentation(self) -> Augmentation:
        made: Augmentation = construct(Augmentation, self.raw["augment"], "augment")
        return made

    def loss(self) -> Loss:
        made: Loss = construct_named(LOSSES, self.raw["loss"], "loss")
        return made

    def task(self) -> Task:
        """The task, not yet with its networks."""
        made: Task = construct_named(TASKS, self.raw["task"], "task")
        return made

    def trackers(self) -> list[Chosen]:
        """The trackers of a run, each with its arguments."""
        return registry.chosen(self.raw.get("tracker"))

    def optimizer(self, network: str) -> Optimizer:
        made: Optimizer = _made_for(OPTIMIZERS, self.raw, network, "optimizer")
        return made

    def schedule(self, network: str) -> Schedule:
        made: Schedule = _made_for(SCHEDULES, self.raw, network, "schedule")
        return made


def of_network(raw: Mapping[str, Any], network: str, section: str) -> tuple[Any, str]:
    """A network's own section, such as `critic_optimizer`, or else the shared one; and its name.

    An own section without a `name` changes arguments of the shared one; with a `name` it is used alone.
    """
    own = f"{network}_{section}"
    if own not in raw:
        return raw.get(section), section
    shared, content = raw.get(section), raw[own]
    if isinstance(shared, Mapping) and isinstance(content, Mapping) and "name" not in content:
        return {**shared, **content}, own
    return content, own


def _made_for(known: Mapping[str, Any], raw: Mapping[str, Any], network: str, section: str) -> Any:
    """A network's optimizer or schedule. A fault is where its value is: the own section's, or the shared one's."""
    content, place = of_network(raw, network, section)
    try:
        return construct_named(known, content, place)
    except ConfigError as error:
        own = raw.get(place)
        inherited: dict[str, str] = {}
        if isinstance(own, Mapping) and isinstance(content, Mapping):
            inherited = {f"{place}.{key}": f"{section}.{key}" for key in content if key not in own}
        raise ConfigError(
            Fault(inherited.get(fault.place, fault.place), fault.problem) for fault in error.faults
        ) from None


RESUME_KEYS = {
    "resume": "is not part of a config, give resume=RUN on the command line",
    "resume_changed": "is only allowed with resume=RUN",
}
WITHOUT_PACKAGE = "its keys belong to the top of the config, begin its file with the line '# @package _global_'"
SECTIONS = ("data", "augment", "optimizer", "loss", "schedule", "task")
NETWORK_SECTIONS = ("optimizer", "schedule")
"""The sections that each network may have its own version of."""


def sections(networks: Sequence[str]) -> list[str]:
    """Every section of a config whose task trains these networks."""
    own = [f"{name}_{section}" for name in networks for section in NETWORK_SECTIONS] if len(networks) > 1 else []
    return [*SECTIONS, *networks, *own]


def task_class(raw: Mapping[str, Any]) -> type[Task] | None:
    """The class of a config's task; None if its name is unknown."""
    section = raw.get("task")
    return TASKS.get(str(section.get("name"))) if isinstance(section, Mapping) else None


def without_default_model(raw: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """A composed config without `model`, if its task trains other networks and no argument of a command sets it."""
    task = task_class(raw)
    given = {argument.partition("=")[0].split(".")[0] for argument in arguments}
    unused = task is not None and "model" not in task.networks and "model" not in given
    return {key: value for key, value in raw.items() if not (unused and key == "model")}


def parse(raw: Mapping[str, Any]) -> Config:
    """Check a plain, resolved config. Raises ConfigError with all faults that can be found without reading data."""
    parts, faults = _checked(raw, ())
    if faults:
        raise ConfigError(faults)
    assert parts.settings
    return Config(parts.settings, device_of(parts.settings), raw)


def find_faults(raw: Mapping[str, Any], unchecked: Collection[str] = ()) -> list[Fault]:
    """The faults that `parse` would raise, without those of `unchecked` sections."""
    return _checked(raw, unchecked)[1]


def _checked(raw: Mapping[str, Any], unchecked: Collection[str]) -> tuple[Parts, list[Fault]]:
    """The parts of a config, and all faults, including incompatibilities between parts."""
    parts, source, faults = _parts(raw, unchecked)
    if source:
        data = source.description
        if parts.settings is None or parts.settings.debug in ("fast", "overfit"):  # these train on a part of the data
            data = replace(data, examples=None)
        faults = faults + compatibility.find_faults(parts, data)
    return parts, faults


def _parts(raw: Mapping[str, Any], unchecked: Collection[str]) -> tuple[Parts, Source | None, list[Fault]]:
    """The parts of a config, each None if it can't be constructed or is unchecked, and the faults of single parts."""
    found: list[Fault] = []

    def collect(name: str, make: Callable[[], T]) -> T | None:
        try:
            return None if name in unchecked else make()
        except ConfigError as error:
            found.extend(fault for fault in error.faults if fault not in found)
            return None

    task = collect("task", lambda: construct_named(TASKS, raw.get("task"), "task"))
    networks = (task_class(raw) or Task).networks
    settings, faults = _settings(raw, networks)
    models = {name: collect(name, partial(_model, raw, name)) for name in networks}
    source = collect("data", lambda: construct_named(SOURCES, raw.get("data"), "data"))
    collect("augment", lambda: construct(Augmentation, _mapping(raw, "augment"), "augment"))
    rules = {name: _rule(raw, name, collect) for name in networks}
    loss = collect("loss", lambda: construct_named(LOSSES, raw.get("loss"), "loss"))
    collect("tracker", lambda: registry.chosen(raw.get("tracker")))
    if settings:
        collect("device", lambda: device_of(settings))
    faults += found
    if settings and settings.threads and settings.threads > available_threads():
        problem = f"{settings.threads} is more than the {available_threads()} that this process may use"
        faults.append(Fault("threads", problem))
    return Parts(settings, task, models, rules, loss), source, faults


def _rule(raw: Mapping[str, Any], network: str, collect: Callable[[str, Callable[[], Any]], Any]) -> Rule:
    """A network's optimizer and schedule, if they can be constructed."""
    optimizer, schedule = (of_network(raw, network, section)[1] for section in NETWORK_SECTIONS)
    return Rule(
        collect(optimizer, lambda: _made_for(OPTIMIZERS, raw, network, "optimizer")),
        collect(schedule, lambda: _made_for(SCHEDULES, raw, network, "schedule")),
        (optimizer, schedule),
    )


def parts_of(config: Config) -> Parts:
    """The parts of a config, newly constructed."""
    return _parts(config.raw, ())[0]


def _settings(raw: Mapping[str, Any], networks: Sequence[str]) -> tuple[Settings | None, list[Fault]]:
    """The top-level keys, if the known ones are valid, and all faults."""
    known = [*sections(networks), *Settings.model_fields]
    nested = [key for key in ("experiment", "debug") if isinstance(raw.get(key), Mapping)]
    unknown = [key for key in raw if key not in (*known, *nested)]
    candidates = [*known, *RESUME_KEYS]  # these aren't part of a config, but may be misspelled
    hints = RESUME_KEYS | _other_networks(raw, networks)
    faults = [
        Fault(key, problem) for key in unknown if (problem := hints.get(key, f"unknown, {nearest(key, candidates)}"))
    ]
    faults += [Fault(key, WITHOUT_PACKAGE) for key in nested]
    own = {key: value for key, value in raw.items() if key in Settings.model_fields and key not in nested}
    try:
        return check(Settings, own), faults
    except ConfigError as error:
        misspelled = {closest(key, known) for key in unknown}  # these aren't also reported as missing
        return None, faults + [fault for fault in error.faults if fault.place in own or fault.place not in misspelled]


def _other_networks(raw: Mapping[str, Any], networks: Sequence[str]) -> dict[str, str]:
    """Why a task doesn't take the networks of other tasks; no reason while the task itself is unknown."""
    names = {*folders.NETWORKS, *(name for task in TASKS.values() for name in task.networks)}
    task = task_class(raw)
    reason = f"not used, the task {task.kind} trains {', '.join(networks)}" if task else ""
    return dict.fromkeys(names - set(networks), reason)


def _mapping(raw: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    content = raw.get(section)
    if not isinstance(content, Mapping):
        hint = f"choose one with {section}=NAME" if content is None else "give keys with values"
        raise ConfigError([Fault(section, f"{show(content)} is not allowed, {hint}")])
    return content


def _model(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    model = _mapping(raw, name)
    if "layers" not in model and name in folders.groups():
        raise ConfigError(
            [Fault(f"{name}.layers", f"missing, give a list of layers, or choose a network with {name}=NAME")]
        )
    make_network(model, name)
    return model


def device_of(settings: Settings) -> torch.device:
    """The requested device. Raises ConfigError if it isn't available."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and settings.dtype != "float64",
        "cpu": True,
    }
    name: str = settings.device
    if name == "auto":  # never mps: for networks of this size the compiled CPU kernels are a good choice
        name = "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        usable = ", ".join(["auto", *(candidate for candidate, there in available.items() if there)])
        raise ConfigError(
            [Fault("device", f"{name} is not available for {settings.dtype} on this machine, use {usable}")]
        )
    return torch.device(name)
