"""A saved run on a dataset: `python -m runners.evaluate RUN [data=NAME] [data.KEY=VALUE ...]`.

Without overrides the dataset is the run's own. Its test examples are used, all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cnn import ConfigError
from cnn.losses import LOSSES, Loss
from runners import checkpoint, saved_config, schema
from runners.data import SOURCES, Examples
from runners.data.batches import Batches
from runners.errors import CheckpointError, DataError, InputError, printable, short
from runners.exits import DONE, conclude, guarded
from runners.loop import evaluate as run_through
from runners.preparation import evaluation_batch
from runners.tasks import Classification
from runners.tasks.classification import confusion


@dataclass(frozen=True)
class Evaluation:
    """Loss, accuracy, and how often each class [row] was taken for each [column]."""

    data: str
    loss: float
    accuracy: float
    class_names: list[str]
    confusion: torch.Tensor

    def as_json(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "test/loss": self.loss,
            "test/accuracy": self.accuracy,
            "class_names": self.class_names,
            "confusion": self.confusion.tolist(),
        }

    def in_words(self) -> str:
        """A line for the whole and a table of the classes."""
        count = int(self.confusion.sum())
        names = [printable(name) for name in self.class_names]
        width = max(len("class"), *map(len, names))
        lines = [
            f"{self.data}: {count:,} test examples, accuracy {self.accuracy:.2%}, loss {self.loss:.4f}",
            f"{'class':>{width}}  examples  accuracy  most often taken for",
        ]
        for index, name in enumerate(names):
            row = self.confusion[index].clone()
            examples, right = int(row.sum()), int(row[index])
            row[index] = 0
            wrong = f"{names[int(row.argmax())]} ({int(row.max())})" if row.any() else ""
            share = f"{right / examples:.2%}" if examples else "-"
            lines.append(f"{name:>{width}}  {examples:>8,}  {share:>8}  {wrong}".rstrip())
        return "\n".join(lines)


def evaluate(run: str, typed: Sequence[str] = (), which: str = "best") -> Evaluation:
    """Evaluate a run's network on the test examples of its own dataset, or of the one that overrides name.

    Raises ConfigError or InputError for what can't be used.
    """
    content = checkpoint.load_run(run, which)
    network = checkpoint.rebuild(content)
    section = _data_section(content.config.get("data") or {}, typed)
    source = schema.section({"data": section}, "data", SOURCES)
    test = source.test_examples()
    names = content.class_names
    shape = list(test.images.shape[1:])
    if shape != content.input_shape:
        raise DataError(f"the test images are {shape}, the network takes {content.input_shape}")
    labels = _as_the_network_counts(test.labels, source.class_names, names)
    batches = Batches(
        Examples(test.images, labels),
        evaluation_batch(network.input_shape),
        mean=content.mean,
        std=content.std,
        dtype=network.flat.data.dtype,
        device=network.flat.data.device,
    )
    task = Classification(network, _loss(content))
    with checkpoint.enough_memory(content):
        predicted, totals = run_through(task, batches)
    means = totals.means("test")
    if not math.isfinite(means["test/loss"]):
        raise CheckpointError(f"{content.place}: its network gives no numbers, its loss is {means['test/loss']}")
    matrix = confusion(labels, predicted, len(names))
    return Evaluation(section["name"], means["test/loss"], means["test/accuracy"], names, matrix)


def _as_the_network_counts(labels: torch.Tensor, given: list[str] | None, known: list[str]) -> torch.Tensor:
    """The labels of classes `given` as numbers of the classes `known`: by name, or as they are where data name none."""
    if not given:
        if int(labels.max()) >= len(known):
            raise DataError(f"there are labels up to {int(labels.max())}, the network knows {len(known)} classes")
        return labels
    for name in given:
        if name not in known:
            raise DataError(f"the data have a class {name}, the network knows {short(', '.join(known))}")
    return torch.tensor([known.index(name) for name in given])[labels]


def _loss(content: checkpoint.Checkpoint) -> Loss:
    """The loss that the run was trained with, its arguments included. Raises ConfigError."""
    loss = schema.section({"loss": content.config.get("loss") or {"name": content.loss}}, "loss", LOSSES)
    try:
        loss.check_classes(len(content.class_names))
    except ConfigError as error:
        raise error.inside("loss") from None
    return loss


def _data_section(saved: Mapping[str, Any], typed: Sequence[str]) -> Any:
    """The saved section with what is typed now; `data=NAME` starts from that choice's file."""

    def refuse(key: str) -> str | None:
        return None if key.split(".")[0] == "data" else "only data=NAME and data.KEY=VALUE can be changed here"

    return saved_config.with_typed({"data": dict(saved)}, typed, refuse)["data"]


def main(arguments: Sequence[str]) -> int:
    """Print an evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runners.evaluate", description="A saved run on a dataset.")
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("data", nargs="*", default=[], metavar="data.KEY=VALUE", help="another, data=idx data.path=D")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        evaluation = evaluate(options.run, options.data, options.checkpoint)
    except (ConfigError, InputError) as error:
        return conclude(error)
    print(json.dumps(evaluation.as_json()) if options.json else evaluation.in_words())
    return DONE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
