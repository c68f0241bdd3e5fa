"""Epochs and batches: training, validation, and what is written after each epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cnn.optimizers import Optimizer
from cnn.schedules import Schedule
from runners import metrics
from runners.data.batches import Batches
from runners.metrics import Row
from runners.run_directory import RunDirectory
from runners.signals import SignalWatch
from runners.tasks import Classification
from runners.tasks.classification import Totals

log = logging.getLogger(__name__)

SaveCheckpoint = Callable[[str, Row], None]


@dataclass(frozen=True)
class Plan:
    """What a training loop needs to know beside the data."""

    epochs: int
    seed: int
    optimizer: Optimizer
    schedule: Schedule


@dataclass
class History:
    """How training went: the last epoch's row, the best one's, and how fast it was."""

    best: Row
    final: Row
    seconds: float
    images_per_second: float


def train(
    task: Classification,
    plan: Plan,
    train_batches: Batches,
    val_batches: Batches,
    directory: RunDirectory,
    save: SaveCheckpoint,
    watch: SignalWatch,
) -> History:
    """Train for all epochs; after each, add a row, save `last`, and `best` where val/accuracy is the highest yet.

    Raises Interrupted after the step in which a signal came, with `last` saved.
    """
    metrics.start(directory.metrics)
    rows: list[Row] = []
    best: Row | None = None
    start = time.perf_counter()
    with tqdm(total=plan.epochs * len(train_batches), unit="step", disable=None, leave=False, file=sys.stderr) as bar:
        for epoch in range(plan.epochs):
            row = _train_epoch(task, plan, epoch, train_batches, watch, bar, lambda partial: save("last", partial))
            row |= evaluate(task, val_batches)[1].means("val")
            row["seconds"] = time.perf_counter() - start - sum(earlier["seconds"] for earlier in rows)
            rows.append(row)
            metrics.append(directory.metrics, row)
            save("last", row)
            if best is None or row["val/accuracy"] > best["val/accuracy"]:
                best = row
                save("best", row)
            _tell(row, plan.epochs, bar)
            watch.check()
    assert best is not None
    spent = sum(row["step_seconds"] for row in rows)
    return History(best, rows[-1], time.perf_counter() - start, len(rows) * len(train_batches.examples) / spent)


def _train_epoch(
    task: Classification,
    plan: Plan,
    epoch: int,
    batches: Batches,
    watch: SignalWatch,
    bar: Any,
    save_last: Callable[[Row], None],
) -> Row:
    lr = plan.schedule(plan.optimizer.lr, epoch)
    row: Row = {"epoch": epoch, "step": epoch * len(batches), "lr": lr}  # epochs completed, until this one is
    totals = Totals()
    start = time.perf_counter()
    for batch in batches.shuffled(plan.seed, epoch):
        task.train_step(batch, plan.optimizer, lr, totals)
        row["step"] += 1
        bar.update()
        if watch.received is not None:
            save_last(row)
            watch.check()
    row["epoch"] = epoch + 1
    row |= totals.means("train")
    row["step_seconds"] = time.perf_counter() - start
    row["images_per_second"] = totals.count / row["step_seconds"]
    return row


def evaluate(task: Classification, batches: Batches) -> tuple[Tensor, Totals]:
    """The predicted classes of all examples [count], and their loss and hits, in evaluation mode."""
    totals = Totals()
    predicted = [task.evaluate(batch, totals) for batch in batches.in_order()]
    return torch.cat(predicted).cpu(), totals


def _tell(row: Row, epochs: int, bar: Any) -> None:
    line = (
        f"epoch {row['epoch']}/{epochs}  lr {row['lr']:.4g}  train loss {row['train/loss']:.4f} "
        f"accuracy {row['train/accuracy']:.2%}  val loss {row['val/loss']:.4f} accuracy {row['val/accuracy']:.2%}  "
        f"{row['images_per_second']:.0f} images/s"
    )
    log.info(line)
    if not bar.disable:
        bar.write(line, file=sys.stderr)
