"""The whole config, checked at once: every mistake is told, each with its place as typed on the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field

from cnn.arguments import STRICT, Positive, PositiveFloat, Text, check, construct
from cnn.builder import make_network
from cnn.faults import ConfigError, Fault
from cnn.losses import LOSSES, Loss
from cnn.ops.threads import available_threads
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.schedules import SCHEDULES, RunLength, Schedule
from cnn.text import closest, nearest, show
from runners import fit
from runners.checkpoint import PRECISIONS
from runners.data import SOURCES, Source
from runners.data.augmentation import Augmentation
from runners.tasks import TASKS, Classification

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
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

    def clock(self, examples: int) -> RunLength:
        """How many steps the run has with so many training examples."""
        return RunLength(-(-examples // (self.batch_size * self.accumulate)), self.epochs)


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

    @property
    def saved(self) -> dict[str, Any]:
        """The config as a run keeps it, with what was chosen for it."""
        return {**self.raw, "threads": self.threads}


BESIDE_RESUME = {
    "resume": "is no part of a config, type resume=RUN",
    "resume_changed": "belongs to resume=RUN",
}
SECTIONS = ("data", "augment", "model", "optimizer", "loss", "schedule", "task")


def parse(raw: Mapping[str, Any]) -> Config:
    """Check a plain, resolved config. Raises ConfigError with all faults that show before any data is opened."""
    parts, faults = _parts(raw, ())
    if faults:
        raise ConfigError(faults)
    return Config(*parts)


def find_faults(raw: Mapping[str, Any], unjudged: Collection[str] = ()) -> list[Fault]:
    """The faults that `parse` would raise, but for those of sections that aren't what was meant."""
    return _parts(raw, unjudged)[1]


def _parts(raw: Mapping[str, Any], unjudged: Collection[str]) -> tuple[Any, list[Fault]]:
    """The parts of a `Config`, None for each that can't be made or isn't judged, and all faults."""
    settings, faults = _settings(raw)

    def collect(name: str, make: Callable[[], T]) -> T | None:
        try:
            return None if name in unjudged else make()
        except ConfigError as error:
            faults.extend(error.faults)
            return None

    model = collect("model", lambda: _model(raw))
    data = collect("data", lambda: section(raw, "data", SOURCES))
    augment = collect("augment", lambda: construct(Augmentation, _mapping(raw, "augment"), "augment"))
    optimizer = collect("optimizer", lambda: section(raw, "optimizer", OPTIMIZERS))
    loss = collect("loss", lambda: section(raw, "loss", LOSSES))
    schedule = collect("schedule", lambda: section(raw, "schedule", SCHEDULES))
    task = collect("task", lambda: _task(raw))
    device = collect("device", lambda: _device(settings)) if settings else None
    if settings and settings.threads and settings.threads > available_threads():
        problem = f"{settings.threads} is more than the {available_threads()} that this process may use"
        faults.append(Fault("threads", problem))
    if data:
        whole = settings is not None and settings.debug not in ("fast", "overfit")  # which train on a part of it
        faults += misfits(
            settings,
            model,
            optimizer,
            loss,
            schedule,
            input_shape=data.known_shape,
            classes=data.known_classes or (len(data.class_names) if data.class_names else None),
            examples=data.num_examples if whole else None,
        )
    return (settings, model, data, augment, optimizer, loss, schedule, task, device, raw), faults


def misfits(
    settings: Settings | None,
    model: Mapping[str, Any] | None,
    optimizer: Optimizer | None,
    loss: Loss | None,
    schedule: Schedule | None,
    *,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
    examples: int | None,
) -> list[Fault]:
    """Where parts of a config don't fit one another or the data, as far as they are sound and the data are known."""
    faults: list[Fault] = []
    if loss and classes:
        faults += fit.loss(loss, classes)
    if model and input_shape and classes:
        batch = settings.batch_size * PRECISIONS[settings.dtype].itemsize if settings else 0
        faults += fit.network(model, input_shape, classes, batch)
    if settings and optimizer and schedule:
        faults += fit.learning_rate(schedule, optimizer.lr, PRECISIONS[settings.dtype])
    if settings and examples:
        faults += fit.batches(settings.batch_size, settings.accumulate, examples)
    if settings and examples and optimizer and schedule:
        faults += fit.schedule(schedule, optimizer.lr, settings.clock(examples), PRECISIONS[settings.dtype])
    return faults


def _settings(raw: Mapping[str, Any]) -> tuple[Settings | None, list[Fault]]:
    """The keys at the top, if those that are known are sound, and all faults."""
    known = [*SECTIONS, *Settings.model_fields]
    unknown = [key for key in raw if key not in known]
    typed = [*known, *BESIDE_RESUME]  # which are no part of a config, but may be misspelled
    faults = [Fault(key, BESIDE_RESUME.get(key) or f"unknown, {nearest(key, typed)}") for key in unknown]
    own = {key: value for key, value in raw.items() if key in Settings.model_fields}
    try:
        return check(Settings, own), faults
    except ConfigError as error:
        misspelled = {closest(key, known) for key in unknown}  # and not missing as well
        return None, faults + [fault for fault in error.faults if fault.place in own or fault.place not in misspelled]


def _mapping(raw: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    content = raw.get(section)
    if not isinstance(content, Mapping):
        hint = f"choose one with {section}=NAME" if content is None else "give keys with values"
        raise ConfigError([Fault(section, f"{show(content)} is not allowed, {hint}")])
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
