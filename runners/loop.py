"""Epochs and batches: training, validation, and what is written after each epoch."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cnn import Mode
from cnn.optimizers import Optimizer
from cnn.schedules import RunLength, Schedule
from runners import metrics
from runners.data.batches import Batch, Batches
from runners.divergence import Diverged
from runners.metrics import Row
from runners.progress import Progress
from runners.run_directory import RunDirectory
from runners.signals import SignalWatch
from runners.tasks import Classification
from runners.tasks.classification import Totals

log = logging.getLogger(__name__)

Save = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a training loop needs to know beside the data."""

    clock: RunLength
    seed: int
    optimizer: Optimizer
    schedule: Schedule
    accumulate: int = 1
    """Batches of one optimizer step."""
    clip_grad_norm: float | None = None
    patience: int | None = None
    """After so many epochs without a better val/accuracy training stops."""
    save_every: int | None = None
    """Optimizer steps after which `last` is saved within an epoch."""

    def is_done(self, progress: Progress) -> bool:
        """Whether no epoch is left to train."""
        return progress.epoch >= self.clock.epochs or progress.patience_is_over(self.patience)


def train(
    task: Classification,
    plan: Plan,
    progress: Progress,
    train_batches: Batches,
    val_batches: Batches,
    directory: RunDirectory,
    save: Save,
    watch: SignalWatch,
) -> None:
    """Train the epochs that are left; after each, save `best` where it is that, then `last`, and write the rows.

    Ends earlier where the plan's patience is over. Raises Interrupted after the step in which a signal came, with
    `last` saved, and Diverged where numbers stop being finite, with nothing saved of it.
    """
    save("last")  # a place that can't be written to shows before the first step
    metrics.write(directory.metrics, progress.rows)

    def check() -> None:
        if watch.received is not None:
            save("last")
            watch.check()

    with tqdm(total=plan.clock.steps, initial=progress.step, unit="step", disable=None, leave=False) as bar:
        while not plan.is_done(progress):
            start = time.perf_counter() - progress.seconds
            row = _train_epoch(task, plan, progress, train_batches, save, check, watch, bar)
            row |= evaluate(task, val_batches, check)[1].means("val")
            if not math.isfinite(row["val/loss"]):
                fault = task.first_fault(val_batches.in_order())
                raise Diverged.at(fault, f"in the validation after epoch {progress.epoch + 1}")
            plan.schedule.observe(row["val/loss"])
            row["seconds"] = time.perf_counter() - start
            progress.finish_epoch(row)
            if progress.best is row:  # before `last`, which tells of it
                save("best")
            save("last")
            metrics.write(directory.metrics, progress.rows)
            _tell(row, plan.clock.epochs, bar)
            watch.check()
    if progress.epoch < plan.clock.epochs:
        log.info("stopped early: no better val/accuracy for %d epochs", plan.patience)


def _train_epoch(
    task: Classification,
    plan: Plan,
    progress: Progress,
    batches: Batches,
    save: Save,
    check: Callable[[], None],
    watch: SignalWatch,
    bar: Any,
) -> Row:
    """Train the steps that are left of an epoch; returns the columns of its row that training gives."""
    epoch, clock = progress.epoch, plan.clock
    generator = torch.Generator(device=task.network.flat.data.device)
    mode = Mode(train=True, generator=generator)
    noise_seeds = _noise_seeds(plan.seed, epoch, clock.steps_per_epoch)
    start = time.perf_counter() - progress.seconds
    rest = batches.shuffled(plan.seed, epoch, progress.steps * plan.accumulate)
    for group in in_groups(rest, plan.accumulate):
        lr = plan.schedule(plan.optimizer.lr, epoch * clock.steps_per_epoch + progress.steps, clock)
        generator.manual_seed(noise_seeds[progress.steps])
        try:
            with watch.leaving_before_anything_is_done():  # the first step compiles kernels, which takes long
                task.train_step(group, plan.optimizer, lr, progress.totals, mode=mode, max_norm=plan.clip_grad_norm)
        except Diverged as error:
            when = f"in step {progress.steps + 1} of epoch {epoch + 1} (lr {lr:.3g})"
            raise Diverged.at(str(error), when) from None
        progress.steps += 1
        progress.seconds = time.perf_counter() - start
        bar.update()
        check()
        if plan.save_every and progress.step % plan.save_every == 0:
            save("last")
    return {
        "epoch": epoch + 1,
        "step": progress.step,
        "lr": plan.schedule(plan.optimizer.lr, (epoch + 1) * clock.steps_per_epoch - 1, clock),
        **progress.totals.means("train"),
        "step_seconds": progress.seconds,
        "images_per_second": progress.totals.count / progress.seconds,
    }


def in_groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Each `size` batches that follow one another, fewer at the end."""
    while group := list(islice(batches, size)):
        yield group


NOISE = 2
"""The stream of random numbers for layers, beside that of augmentation."""


def _noise_seeds(seed: int, epoch: int, steps: int) -> list[int]:
    """The seed of each step's noise in an epoch: the same whichever steps were run before it."""
    return [int(value) for value in np.random.SeedSequence([seed, epoch, 0, NOISE]).generate_state(steps, np.uint64)]


def evaluate(task: Classification, batches: Batches, check: Callable[[], None] = lambda: None) -> tuple[Tensor, Totals]:
    """The predicted classes of all examples [count], and their loss and hits, in evaluation mode.

    `check` is called before each batch, and may raise.
    """
    totals = Totals()
    predicted = []
    for batch in batches.in_order():
        check()
        predicted.append(task.evaluate(batch, totals))
    return torch.cat(predicted).cpu(), totals


def _short(loss: float) -> str:
    return f"{loss:.4f}" if loss < 1e6 else f"{loss:.4g}"


def _tell(row: Row, epochs: int, bar: Any) -> None:
    line = (
        f"epoch {row['epoch']}/{epochs}  lr {row['lr']:.4g}  train loss {_short(row['train/loss'])} "
        f"accuracy {row['train/accuracy']:.2%}  val loss {_short(row['val/loss'])} accuracy {row['val/accuracy']:.2%}  "
        f"{row['images_per_second']:.0f} images/s"
    )
    log.info(line)
    if not bar.disable:
        with suppress(OSError):  # a terminal that is gone stops no run
            bar.write(line, file=sys.stderr)
