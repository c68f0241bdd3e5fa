"""Training steps and evaluations as replays (`cnn.ops.replays`), to the same bits as Python."""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cnn.ops.replays import Captured, Replays, same
from runners.data.batches import Batch
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task

log = logging.getLogger(__name__)


class Steps(Replays[Step, Sums]):
    """Takes a task's training steps."""

    def __init__(self, task: Task, *, capture: bool = True) -> None:
        super().__init__(self._take, enabled=capture and task.replayable)
        self.task = task

    def take(self, batches: Sequence[Batch], step: Step) -> Sums:
        """Take a step; returns its sums, which are valid until the next one. Raises NotFinite as the step does."""
        inputs = [tensor for batch in batches for tensor in (batch.x, batch.targets)]
        if step.mode.reduce is not None:
            return self.run(inputs, step)
        return self(inputs, step, (self.task.variant(step.index), step.max_norm, id(step.mode.generator)))

    def _take(self, inputs: Sequence[Tensor], step: Step) -> Sums:
        return _train(self.task, inputs, step)

    def both(self, captured: Captured[Step, Sums], inputs: Sequence[Tensor], step: Step) -> tuple[Sums, Sums, bool]:
        """Take a step both ways, Python's on a copy of the task."""
        generator = step.mode.generator
        twin = None if generator is None else torch.Generator(generator.device).set_state(generator.get_state())
        other = copy.deepcopy(self.task)
        with captured.tape.memory():
            expected = _train(other, inputs, replace(step, mode=replace(step.mode, generator=twin)))
        found = captured.play(inputs, step)
        agree = same(_state(other, expected), _state(self.task, found))
        if not agree:
            _restore(self.task, other)
            if generator is not None and twin is not None:
                generator.set_state(twin.get_state())
        return expected, found, agree

    def refuse(self, kind: Hashable, reason: str) -> None:
        super().refuse(kind, reason)
        log.info("training steps aren't replayed: %s", reason)


def _train(task: Task, inputs: Sequence[Tensor], step: Step) -> Sums:
    sums = Sums()
    batches = [Batch(x, targets) for x, targets in zip(inputs[::2], inputs[1::2], strict=True)]
    task.train_step(batches, step, sums)
    return sums


def _state(task: Task, sums: Sums) -> dict[str, Any]:
    """Everything that a step changes."""
    parts = {name: (part.graph.state(), part.optimizer.state()) for name, part in task.trained.items()}
    gradients = {name: graph.flat.grad for name, graph in task.graphs.items()}
    return {"parts": parts, "gradients": gradients, "task": task.state(), "sums": sums.numbers()}


def _restore(task: Task, other: Task) -> None:
    """Continue as the other task would."""
    for name, part in task.trained.items():
        part.graph.load_state(other.trained[name].graph.state())
        part.graph.flat.grad.copy_(other.trained[name].graph.flat.grad)
        part.optimizer.load_state(other.trained[name].optimizer.state())
    task.load_state(other.state())


class Evaluations(Replays[None, tuple[Tensor, Sums]]):
    """Evaluates a task's batches."""

    def __init__(self, task: Task, *, capture: bool = True) -> None:
        super().__init__(self._evaluate, enabled=capture and task.replayable)
        self.task = task
        self._first = 0

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's metrics to the sums; returns the outputs to keep for each example."""
        self._first = batch.first  # what depends on it can't be replayed, as the check finds out
        outputs, found = self([batch.x, batch.targets], None)
        sums.merge(found)
        return outputs.clone()

    def _evaluate(self, inputs: Sequence[Tensor], _: None) -> tuple[Tensor, Sums]:
        (x, targets), sums = inputs, Sums()
        return self.task.evaluate(Batch(x, targets, self._first), sums), sums
