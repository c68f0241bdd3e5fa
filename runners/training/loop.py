"""The training loop: epochs and batches, validation, and what is saved after each epoch."""

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
from cnn.ops import NotFinite
from cnn.schedules import RunLength
from runners.data.batches import Batch, Batches
from runners.files.metrics_csv import Row
from runners.signals import Interrupted, SignalWatch
from runners.tasks.divergence import Diverged, fault_in_evaluation, fault_in_training
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task
from runners.training.capturing import Evaluations, Steps
from runners.training.processes import Alone, World
from runners.training.progress import Progress, check_row
from runners.training.recorder import Recorder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a training loop needs besides its task and data."""

    length: RunLength
    seed: int
    accumulate: int = 1
    """Batches per optimizer step."""
    clip_grad_norm: float | None = None
    patience: int | None = None
    """Training stops after this many epochs without a better monitored value."""
    save_every: int | None = None
    """Within an epoch, `last` is saved after this many optimizer steps."""
    capture: bool = True
    """Whether steps are recorded and replayed."""

    def is_done(self, progress: Progress) -> bool:
        """Whether no epochs are left to train."""
        return progress.epoch >= self.length.epochs or progress.is_out_of_patience(self.patience)


@dataclass
class Loop:
    """Trains a task from its current progress."""

    task: Task
    plan: Plan
    progress: Progress
    train_batches: Batches
    val_batches: Batches
    recorder: Recorder
    signals: SignalWatch
    world: World = field(default_factory=Alone)

    def __post_init__(self) -> None:
        device = next(iter(self.task.graphs.values())).flat.data.device
        self.generator = torch.Generator(device=device)
        capture = self.plan.capture
        self.steps = Steps(self.task, capture=capture, borrows=True)  # the memory of batches is used again
        self.evaluations = Evaluations(self.task, capture=capture, borrows=True)

    def run(self) -> None:
        """Train the remaining epochs. After each, save `best` if it is the best so far, then `last`; write the rows.

        Stops early if the plan's patience runs out or a listener gives a reason. After a signal, finishes the step,
        saves `last` and raises Interrupted. Raises Diverged when values stop being finite, without saving them.
        """
        plan, progress, recorder = self.plan, self.progress, self.recorder
        recorder.begin(progress)
        try:
            while not plan.is_done(progress) and not recorder.reason:
                row = self._epoch()
                progress.finish_epoch(row)
                if progress.best is row:  # before `last`, whose rows refer to it
                    recorder.save("best")
                recorder.save("last")
                recorder.epoch(row, progress)
                self._stop_on_signal()
        finally:
            recorder.end()
        if progress.epoch < plan.length.epochs:
            waited = f"no better {progress.monitor} for {plan.patience} epochs"
            log.info("stopped early: %s", recorder.reason or waited)

    def _epoch(self) -> Row:
        """Train the rest of an epoch and validate; returns its row."""
        task, progress = self.task, self.progress
        start = time.perf_counter() - progress.seconds
        row = self._train()
        outputs, sums = evaluate(task, self.val_batches, self._save_and_stop_on_signal, self.evaluations)
        number, found = progress.epoch + 1, (outputs, sums.reduce(self.world.reduce))
        last = number == self.plan.length.epochs
        row |= metrics_of(task, "val", found, number, self.val_batches, measure_all=last)
        for trained in task.trained.values():
            column = trained.schedule.monitor
            if column in row:  # an optional metric may be missing in an epoch
                higher = column in task.columns() and task.metric(column).better == "higher"
                trained.schedule.observe(-row[column] if higher else row[column])
        row["seconds"] = time.perf_counter() - start
        check_row(row, task)
        return row

    def _train(self) -> Row:
        """Train the remaining steps of an epoch; returns the training columns of its row."""
        task, plan, progress, signals = self.task, self.plan, self.progress, self.signals
        epoch, length = progress.epoch, plan.length
        generator = self.generator
        mode = Mode(train=True, generator=generator, reduce=self.world.reduce)
        noise_seeds = _noise_seeds(plan.seed, epoch, length.steps_per_epoch)
        start = time.perf_counter() - progress.seconds
        done = progress.steps * plan.accumulate
        rest = self.train_batches.shuffled(plan.seed, epoch, done, keep=plan.accumulate)
        for group in in_groups(rest, plan.accumulate):
            step = Step(epoch * length.steps_per_epoch + progress.steps, length, mode, plan.clip_grad_norm)
            generator.manual_seed(noise_seeds[progress.steps])
            with signals.interruptible_until_done():  # the first step compiles kernels, which takes a while
                self._step(group, step)
            progress.steps += 1
            progress.examples += sum(map(len, group))
            progress.seconds = time.perf_counter() - start
            self.recorder.step(progress)
            self._save_and_stop_on_signal()
            if plan.save_every and progress.step % plan.save_every == 0:
                self._save()
        self._wait()
        progress.seconds = time.perf_counter() - start
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
            self.progress.sums.merge(self.steps.take(group, step))
        except NotFinite as error:
            raise self._diverged(error.argument or step) from None

    def _wait(self) -> None:
        """Wait for steps that are queued on a GPU, so that the task and its sums are those after the last one."""
        try:
            self.steps.wait()
        except NotFinite as error:
            raise self._diverged(error.argument) from None

    def _diverged(self, step: Step) -> Diverged:
        """What isn't finite in a step of this epoch, which may be an earlier one: it is taken again to find out."""
        epoch, accumulate = self.progress.epoch, self.plan.accumulate
        number = step.index - epoch * self.plan.length.steps_per_epoch
        rates = ", ".join(
            f"{name} {rate:.3g}" for name, rate in self.task.learning_rates(step.index, step.length).items()
        )
        when = f"in step {number + 1} of epoch {epoch + 1} ({rates})"
        self.generator.manual_seed(_noise_seeds(self.plan.seed, epoch, number + 1)[number])
        again = self.train_batches.shuffled(self.plan.seed, epoch, number * accumulate, keep=accumulate)
        return Diverged.at(fault_in_training(self.task, next(in_groups(again, accumulate)), step), when)

    def _save(self) -> None:
        self._wait()
        self.recorder.save("last")

    def _save_and_stop_on_signal(self) -> None:
        if self.world.agree(self.signals.received) is not None:
            self._save()
            self._stop_on_signal()

    def _stop_on_signal(self) -> None:
        signal = self.world.agree(self.signals.received)
        if signal is not None:
            raise Interrupted(signal)


def metrics_of(
    task: Task, split: str, found: tuple[Tensor, Sums], epoch: int, batches: Batches, *, measure_all: bool = True
) -> Row:
    """The columns of a split after an epoch, from what `evaluate` found in its batches. Raises Diverged.

    `measure_all`: whether to measure what isn't due in every epoch, too.
    """
    outputs, sums = found
    when = {"val": f"in the validation after epoch {epoch}", "test": f"in the test, with the weights of epoch {epoch}"}
    means = sums.means(split)
    if not all(map(math.isfinite, means.values())):
        raise Diverged.at(fault_in_evaluation(task, batches.in_order()), when[split])
    measured = task.set_metrics(outputs, None if measure_all else epoch)
    of_set = {f"{split}/{name}": value for name, value in measured.items()}
    for name, value in of_set.items():
        if not math.isfinite(value):
            raise Diverged.at(name, when[split])
    return means | of_set


def in_groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Groups of `size` consecutive batches; the last group may be smaller."""
    while group := list(islice(batches, size)):
        yield group


NOISE = 2
"""The random stream of layers, separate from that of augmentation."""


def _noise_seeds(seed: int, epoch: int, steps: int) -> list[int]:
    """The noise seed of each step of an epoch, independent of which steps have been run."""
    return [int(value) for value in np.random.SeedSequence([seed, epoch, 0, NOISE]).generate_state(steps, np.uint64)]


def evaluate(
    task: Task, batches: Batches, check: Callable[[], None] = lambda: None, evaluations: Evaluations | None = None
) -> tuple[Tensor, Sums]:
    """Evaluate all batches; returns the outputs that the task keeps for each example, and its sums.

    `check` is called before each batch, and may raise. `evaluations`: those of this task so far.
    """
    evaluations = evaluations or Evaluations(task, borrows=True)
    sums = Sums()
    outputs = []
    try:
        for batch in batches.in_order():
            check()
            outputs.append(evaluations.evaluate(batch, sums))
        evaluations.wait()
    except NotFinite:  # a replay has found what Python raises
        for batch in batches.in_order():
            task.evaluate(batch, Sums())
        raise
    return torch.cat(outputs, -1).cpu(), sums
