"""Epochs and batches: training, validation, and what is written after each epoch."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cnn import Mode
from cnn.optimizers import Optimizer
from cnn.schedules import Clock, Schedule
from runners import metrics
from runners.data.batches import Batch, Batches
from runners.divergence import Diverged
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

    clock: Clock
    seed: int
    optimizer: Optimizer
    schedule: Schedule
    accumulate: int = 1
    """Batches of one optimizer step."""
    clip_grad_norm: float | None = None
    patience: int | None = None
    """After so many epochs without a better val/accuracy training stops."""


@dataclass
class History:
    """How training went: the last epoch's row, the best one's, and how fast it was."""

    best: Row
    final: Row
    seconds: float
    images_per_second: float
    stopped_early: bool


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

    Stops earlier where the plan's patience is over. Raises Interrupted after the step in which a signal came, with
    `last` saved.
    """
    metrics.start(directory.metrics)
    rows: list[Row] = []
    best: Row | None = None
    stopped_early = False
    start = time.perf_counter()
    with tqdm(total=plan.clock.steps, unit="step", disable=None, leave=False, file=sys.stderr) as bar:
        for epoch in range(plan.clock.epochs):
            row = _train_epoch(task, plan, epoch, train_batches, watch, bar, lambda partial: save("last", partial))
            row |= evaluate(task, val_batches)[1].means("val")
            if not math.isfinite(row["val/loss"]):
                raise _diverged("the loss", f"in the validation after epoch {epoch + 1}")
            plan.schedule.observe(row["val/loss"])
            row["seconds"] = time.perf_counter() - start - sum(earlier["seconds"] for earlier in rows)
            rows.append(row)
            metrics.append(directory.metrics, row)
            save("last", row)
            if best is None or row["val/accuracy"] > best["val/accuracy"]:
                best = row
                save("best", row)
            _tell(row, plan.clock.epochs, bar)
            watch.check()
            stopped_early = _patience_is_over(plan, row, best)
            if stopped_early:
                log.info("stopped early: no better val/accuracy for %d epochs", plan.patience)
                break
    assert best is not None
    spent = sum(row["step_seconds"] for row in rows)
    speed = len(rows) * len(train_batches.examples) / spent
    return History(best, rows[-1], time.perf_counter() - start, speed, stopped_early)


def _diverged(what: str, when: str) -> Diverged:
    return Diverged(f"{what} isn't finite {when}; a smaller optimizer.lr or clip_grad_norm may help")


def _patience_is_over(plan: Plan, row: Row, best: Row) -> bool:
    unchanged = row["epoch"] - best["epoch"]
    return plan.patience is not None and unchanged >= plan.patience and row["epoch"] < plan.clock.epochs


def _train_epoch(
    task: Classification,
    plan: Plan,
    epoch: int,
    batches: Batches,
    watch: SignalWatch,
    bar: Any,
    save_last: Callable[[Row], None],
) -> Row:
    row: Row = {"epoch": epoch, "step": epoch * plan.clock.steps_per_epoch}  # epochs completed, until this one is
    totals = Totals()
    generator = torch.Generator(device=task.network.flat.data.device)
    mode = Mode(train=True, generator=generator)
    noise_seeds = _noise_seeds(plan.seed, epoch, plan.clock.steps_per_epoch)
    start = time.perf_counter()
    for step, group in enumerate(in_groups(batches.shuffled(plan.seed, epoch), plan.accumulate)):
        row["lr"] = plan.schedule(plan.optimizer.lr, int(row["step"]), plan.clock)
        generator.manual_seed(noise_seeds[step])
        try:
            task.train_step(group, plan.optimizer, row["lr"], totals, mode=mode, max_norm=plan.clip_grad_norm)
        except Diverged as error:
            raise _diverged(str(error), f"in step {step + 1} of epoch {epoch + 1} (lr {row['lr']:.3g})") from None
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


def in_groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Each `size` batches that follow one another, fewer at the end."""
    while group := list(islice(batches, size)):
        yield group


NOISE = 2
"""The stream of random numbers for layers, beside that of augmentation."""


def _noise_seeds(seed: int, epoch: int, steps: int) -> list[int]:
    """The seed of each step's noise in an epoch: the same whichever steps were run before it."""
    return [int(value) for value in np.random.SeedSequence([seed, epoch, 0, NOISE]).generate_state(steps, np.uint64)]


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
