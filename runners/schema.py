"""The whole config, checked at once: every mistake is told, each with its place as typed on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field

from cnn.arguments import STRICT, ConfigError, Fault, Positive, PositiveFloat, check, construct, nearest, show
from cnn.builder import make_network
from cnn.losses import LOSSES, Loss
from cnn.ops.threads import available_threads
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.schedules import SCHEDULES, Schedule
from runners.checkpoint import PRECISIONS
from runners.data import SOURCES, Source
from runners.data.augmentation import Augmentation
from runners.tasks import TASKS, Classification

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Text = Annotated[str, Field(min_length=1)]
T = TypeVar("T")


class Checkpoints(BaseModel):
    """When `last` is saved beside the end of each epoch."""

    model_config = STRICT

    every_steps: Positive | None = None


class Settings(BaseModel):
    """The keys at the top of a config, beside its sections."""

    model_config = STRICT

    epochs: Positive
    batch_size: Positive
    seed: Seed
    dtype: Literal["float32", "float64"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    kernels: Literal["compiled", "reference"]
    debug: Literal["summary", "gradcheck", "overfit", "fast"] | None = None
    threads: Positive | None = None
    run_dir: Text | None = None
    sweep_dir: Text | None = None
    init_from: Text | None = None
    accumulate: Positive = 1
    clip_grad_norm: PositiveFloat | None = None
    patience: Positive | None = None
    checkpoint: Checkpoints = Checkpoints()


@dataclass(frozen=True)
class Config:
    """A config whose every part has been checked; sections have become the objects they name."""

    settings: Settings
    model: Mapping[str, Any]
    data: Source
    augment: Augmentation
    optimizer: Optimizer
    loss: Loss
    schedule: Schedule
    task: type[Classification]
    device: torch.device
    raw: Mapping[str, Any]

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.settings.dtype]

    @property
    def threads(self) -> int:
        return self.settings.threads or available_threads()


SECTIONS = ("data", "augment", "model", "optimizer", "loss", "schedule", "task")


def parse(raw: Mapping[str, Any]) -> Config:
    """Check a plain, resolved config. Raises ConfigError with all faults that show before any data is opened."""
    faults: list[Fault] = []

    def collect(make: Callable[[], T]) -> T | None:
        try:
            return make()
        except ConfigError as error:
            faults.extend(error.faults)
            return None

    settings = collect(lambda: check(Settings, _top_level(raw)))
    model = collect(lambda: _model(raw))
    data = collect(lambda: section(raw, "data", SOURCES))
    augment = collect(lambda: construct(Augmentation, _mapping(raw, "augment"), "augment"))
    optimizer = collect(lambda: section(raw, "optimizer", OPTIMIZERS))
    loss = collect(lambda: section(raw, "loss", LOSSES))
    schedule = collect(lambda: section(raw, "schedule", SCHEDULES))
    task = collect(lambda: _task(raw))
    device = collect(lambda: _device(settings)) if settings else None
    if settings and settings.threads and settings.threads > available_threads():
        problem = f"{settings.threads} is more than the {available_threads()} that this process may use"
        faults.append(Fault("threads", problem))
    if faults:
        raise ConfigError(faults)
    parts: Any = (settings, model, data, augment, optimizer, loss, schedule, task, device, raw)
    return Config(*parts)


def _top_level(raw: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [key for key in raw if key not in SECTIONS and key not in Settings.model_fields]
    if unknown:
        known = [*SECTIONS, *Settings.model_fields]
        faults = [Fault(key, f"unknown, {nearest(key, known)}") for key in unknown]
        try:
            check(Settings, {key: value for key, value in raw.items() if key in Settings.model_fields})
        except ConfigError as error:
            faults += error.faults
        raise ConfigError(faults)
    return {key: value for key, value in raw.items() if key not in SECTIONS}


def _mapping(raw: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    content = raw.get(section)
    if not isinstance(content, Mapping):
        raise ConfigError([Fault(section, f"{show(content)} is not allowed, choose one with {section}=NAME")])
    return content


def _name(raw: Mapping[str, Any], section: str, known: Mapping[str, Any]) -> str:
    name = _mapping(raw, section).get("name")
    if not isinstance(name, str) or name not in known:
        raise ConfigError([Fault(f"{section}.name", f"unknown {show(name)}, {nearest(str(name), known)}")])
    return name


def section(raw: Mapping[str, Any], name: str, known: Mapping[str, Callable[..., T]]) -> T:
    """The object that a section of the config names, made from its arguments. Raises ConfigError."""
    constructor = known[_name(raw, name, known)]
    arguments = {key: value for key, value in _mapping(raw, name).items() if key != "name"}
    made: T = construct(constructor, arguments, name)
    return made


def _task(raw: Mapping[str, Any]) -> type[Classification]:
    task = TASKS[_name(raw, "task", TASKS)]
    unknown = [key for key in _mapping(raw, "task") if key != "name"]
    if unknown:
        raise ConfigError(Fault(f"task.{key}", "unknown, known: name") for key in unknown)
    return task


def _model(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    model = _mapping(raw, "model")
    make_network(model, "model")
    return model


def _device(settings: Settings) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and settings.dtype != "float64",
        "cpu": True,
    }
    name: str = settings.device
    if name == "auto":  # mps is there to be asked for: on nets of this size the compiled CPU kernels are at home
        name = "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        usable = ", ".join(["auto", *(candidate for candidate, there in available.items() if there)])
        raise ConfigError([Fault("device", f"{name} is not there for {settings.dtype} on this machine, use {usable}")])
    return torch.device(name)
