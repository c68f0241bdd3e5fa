"""Epochs and batches: training, validation, and what is saved after each epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from cnn import Mode
from cnn.schedules import RunLength
from runners.data.batches import Batch, Batches
from runners.files.metrics_csv import Row
from runners.signals import Interrupted, SignalWatch
from runners.tasks.divergence import Diverged, NotFinite, fault_in_evaluation, fault_in_training
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task
from runners.training.processes import Alone, World
from runners.training.progress import Progress
from runners.training.recorder import Recorder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a training loop needs to know beside task and data."""

    length: RunLength
    seed: int
    accumulate: int = 1
    """Batches of one optimizer step."""
    clip_grad_norm: float | None = None
    patience: int | None = None
    """After this many epochs without a better monitored number training stops."""
    save_every: int | None = None
    """Optimizer steps after which `last` is saved within an epoch."""

    def is_done(self, progress: Progress) -> bool:
        """Whether no epoch is left to train."""
        return progress.epoch >= self.length.epochs or progress.patience_is_over(self.patience)


@dataclass(frozen=True)
class Loop:
    """Trains a task from where its progress stands."""

    task: Task
    plan: Plan
    progress: Progress
    train_batches: Batches
    val_batches: Batches
    recorder: Recorder
    signals: SignalWatch
    world: World = field(default_factory=Alone)

    def run(self) -> None:
        """Train the epochs that are left; after each, save `best` where it is that, then `last`, and write the rows.

        Ends earlier where the plan's patience is over or a listener has a reason. Raises Interrupted after the step in
        which a signal came, with `last` saved, and Diverged where numbers stop being finite, with nothing saved of it.
        """
        plan, progress, recorder = self.plan, self.progress, self.recorder
        recorder.begin(progress)
        try:
            while not plan.is_done(progress) and not recorder.reason:
                row = self._epoch()
                progress.finish_epoch(row)
                if progress.best is row:  # before `last`, which tells of it
                    recorder.save("best")
                recorder.save("last")
                recorder.epoch(row, progress)
                self._leave_on_signals()
        finally:
            recorder.end()
        if progress.epoch < plan.length.epochs:
            waited = f"no better {progress.monitor} for {plan.patience} epochs"
            log.info("stopped early: %s", recorder.reason or waited)

    def _epoch(self) -> Row:
        """Train what is left of an epoch and validate; returns its row."""
        task, progress = self.task, self.progress
        start = time.perf_counter() - progress.seconds
        row = self._train()
        outputs, sums = evaluate(task, self.val_batches, self._save_and_leave_on_signals)
        row |= sums.reduce(self.world.reduce).means("val")
        row |= {f"val/{name}": value for name, value in task.set_metrics(outputs, progress.epoch + 1).items()}
        if not all(math.isfinite(value) for name, value in row.items() if name.startswith("val/")):
            fault = fault_in_evaluation(task, self.val_batches.in_order())
            raise Diverged.at(fault, f"in the validation after epoch {progress.epoch + 1}")
        for trained in task.trained.values():
            if "val/loss" in row:
                trained.schedule.observe(row["val/loss"])
        row["seconds"] = time.perf_counter() - start
        return row

    def _train(self) -> Row:
        """Train the steps that are left of an epoch; returns the columns of its row that training gives."""
        task, plan, progress, signals = self.task, self.plan, self.progress, self.signals
        epoch, length = progress.epoch, plan.length
        generator = torch.Generator(device=next(iter(task.graphs.values())).flat.data.device)
        mode = Mode(train=True, generator=generator, reduce=self.world.reduce)
        noise_seeds = _noise_seeds(plan.seed, epoch, length.steps_per_epoch)
        start = time.perf_counter() - progress.seconds
        rest = self.train_batches.shuffled(plan.seed, epoch, progress.steps * plan.accumulate)
        for group in in_groups(rest, plan.accumulate):
            step = Step(epoch * length.steps_per_epoch + progress.steps, length, mode, plan.clip_grad_norm)
            generator.manual_seed(noise_seeds[progress.steps])
            with signals.leaving_before_anything_is_done():  # the first step compiles kernels, which takes long
                self._step(group, step)
            progress.steps += 1
            progress.examples += sum(map(len, group))
            progress.seconds = time.perf_counter() - start
            self.recorder.step(progress)
            self._save_and_leave_on_signals()
            if plan.save_every and progress.step % plan.save_every == 0:
                self.recorder.save("last")
        return {
            "epoch": epoch + 1,
            "step": progress.step,
            **task.learning_rates((epoch + 1) * length.steps_per_epoch - 1, length),
            **progress.sums.reduce(self.world.reduce).means("train"),
            "step_seconds": progress.seconds,
            "images_per_second": progress.examples * self.world.size / progress.seconds,
        }

    def _step(self, group: list[Batch], step: Step) -> None:
        try:
            self.task.train_step(group, step, self.progress.sums)
        except NotFinite:
            rates = ", ".join(
                f"{name} {rate:.3g}" for name, rate in self.task.learning_rates(step.index, step.length).items()
            )
            when = f"in step {self.progress.steps + 1} of epoch {self.progress.epoch + 1} ({rates})"
            raise Diverged.at(fault_in_training(self.task, group, step), when) from None

    def _save_and_leave_on_signals(self) -> None:
        if self.world.agree(self.signals.received) is not None:
            self.recorder.save("last")
            self._leave_on_signals()

    def _leave_on_signals(self) -> None:
        signal = self.world.agree(self.signals.received)
        if signal is not None:
            raise Interrupted(signal)


def in_groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Each `size` batches that follow one another, fewer at the end."""
    while group := list(islice(batches, size)):
        yield group


NOISE = 2
"""The stream of random numbers for layers, beside that of augmentation."""


def _noise_seeds(seed: int, epoch: int, steps: int) -> list[int]:
    """The seed of each step's noise in an epoch: the same whichever steps were run before it."""
    return [int(value) for value in np.random.SeedSequence([seed, epoch, 0, NOISE]).generate_state(steps, np.uint64)]


def evaluate(task: Task, batches: Batches, check: Callable[[], None] = lambda: None) -> tuple[Tensor, Sums]:
    """What the task keeps of each example, and its sums, in evaluation mode.

    `check` is called before each batch, and may raise.
    """
    sums = Sums()
    outputs = []
    for batch in batches.in_order():
        check()
        outputs.append(task.evaluate(batch, sums))
    return torch.cat(outputs, -1).cpu(), sums
