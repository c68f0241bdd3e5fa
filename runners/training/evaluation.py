"""Evaluate a saved run on all test examples of its own dataset, or of another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cnn.arguments import construct_named
from runners.config.saved import with_overrides
from runners.data import Examples
from runners.data.batches import Batches
from runners.data.sources import SOURCES
from runners.data.sources.folder import Folder
from runners.errors import CheckpointError, DataError, printable, short
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.files.paths import user_path
from runners.tasks.registry import saved_task
from runners.tasks.task import Task
from runners.training import judging
from runners.training.experiment import run as train
from runners.training.loop import evaluate as run_through
from runners.training.setup import evaluation_batch


@dataclass(frozen=True)
class Evaluation:
    """A task's metrics on the test examples, and its other findings, for JSON and as text."""

    data: str
    examples: int
    task: type[Task]
    means: Mapping[str, float]
    details: Mapping[str, Any]
    lines: str
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {"data": self.data, "notes": list(self.notes), **self.means, **self.details}

    def as_text(self) -> str:
        """A line with the metrics, followed by the task's findings."""
        shown = [
            f"{metric.name} {metric.show(self.means[name])}"
            for metric in self.task.monitored_first()
            if (name := f"test/{metric.name}") in self.means
        ]
        heading = f"{self.data}: {self.examples:,} test examples, {', '.join(shown)}"
        notes = [f"note: {printable(note)}" for note in self.notes]
        return "\n".join([heading, *notes, self.lines]).rstrip("\n")


def evaluate(run: str, overrides: Sequence[str] = (), which: str = "best") -> Evaluation:
    """Evaluate a run on the test examples of its own dataset, or of the one that the overrides give.

    Raises ConfigError or InputError if the run, the overrides or the data can't be used.
    """
    content = checkpoint.load_run(run, which)
    task = saved_task(content)
    section = _data_section(content.config.get("data") or {}, overrides)
    if section.get("name") == Folder.kind:
        section |= _folder_arguments(section, content, [override.partition("=")[0] for override in overrides])
    source = construct_named(SOURCES, section, "data")
    test = source.test_examples()
    names = content.data.class_names
    shape = list(test.images.shape[1:])
    if shape != content.data.input_shape:
        raise DataError(f"the test images are {shape}, but the network takes {content.data.input_shape}")
    targets = test.targets
    if task.uses_classes:
        targets = _as_the_network_counts(targets, source.class_names, names)
    judging.equip(task, content.config, content.data, train)
    flat = next(iter(task.graphs.values())).flat.data
    batches = Batches(
        Examples(test.images, targets),
        evaluation_batch(tuple(shape)),
        mean=content.data.mean,
        std=content.data.std,
        dtype=flat.dtype,
        device=flat.device,
    )
    with checkpoint.enough_memory(content):
        outputs, sums = run_through(task, batches)
    means = sums.means("test") | {f"test/{name}": value for name, value in task.set_metrics(outputs, None).items()}
    for name, value in means.items():
        if not math.isfinite(value):
            what = name.partition("/")[2]
            raise CheckpointError(f"{content.place}: its network's output isn't finite, its {what} is {value}")
    details, lines = task.findings(targets, names, outputs)
    notes = [*source.notes, source.as_prepared()] if isinstance(source, Folder) else source.notes
    return Evaluation(section["name"], len(test), type(task), means, details, lines, notes)


def _folder_arguments(section: Mapping[str, Any], content: Checkpoint, given: Sequence[str]) -> dict[str, Any]:
    """What isn't given of a folder's arguments: pictures are prepared as in training, and all of others are the test.

    A folder with a split of its own keeps it, and so does the folder that the run was trained on, wherever it is now.
    """
    arguments: dict[str, Any] = {"preparation": content.data.preparation}
    if len(content.data.input_shape) == 3:
        channels, height, width = content.data.input_shape
        arguments |= {"channels": channels, "size": [height, width]}
    own = content.config.get("data") or {}
    places = {user_path(str(path)).resolve() for path in (own.get("path"), section.get("path"))}
    if own.get("name") == Folder.kind and len(places) == 1:
        arguments |= {key: own[key] for key in ("test_share", "split_seed") if key in own}
    elif "data" in given:  # not only data.path, as for a folder that was moved
        arguments["test_share"] = 1
    return {key: value for key, value in arguments.items() if f"data.{key}" not in given}


def _as_the_network_counts(labels: torch.Tensor, given: list[str] | None, known: list[str]) -> torch.Tensor:
    """Labels of the data's classes `given` as indices of the network's classes `known`, matched by name if given."""
    if not given:
        if labels.dtype != torch.int64:
            raise DataError("the data's targets are values, but the network knows classes")
        if int(labels.max()) >= len(known):
            raise DataError(
                f"the data have labels up to {int(labels.max())}, but the network knows {len(known)} classes"
            )
        return labels
    for name in given:
        if name not in known:
            raise DataError(f"the data have a class {name}, but the network knows {short(', '.join(known))}")
    return torch.tensor([known.index(name) for name in given])[labels]


def _data_section(saved: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """The saved section with overrides; `data=NAME` starts from that choice's file."""

    def refuse(key: str) -> str | None:
        return None if key.split(".")[0] == "data" else "only data=NAME and data.KEY=VALUE can be changed here"

    return with_overrides({"data": dict(saved)}, overrides, refuse)["data"]
