"""Training steps that are recorded once and then replayed without Python (`cnn.ops.capture`).

The first steps of a kind run as Python. Then one is recorded, and the one after it runs both ways, as a check: if
weights, state or sums differ in a bit, or if the step can't be recorded, steps of this kind stay Python.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cnn import ops
from runners.data.batches import Batch
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task

log = logging.getLogger(__name__)
MAX_KINDS = 8
"""Kinds of steps that are remembered; each one that is recorded keeps its activations."""


@dataclass
class Captured:
    """A recorded step: the memory of its batches, its calls, and its sums."""

    batches: list[Batch]
    tape: ops.Tape
    sums: Sums
    checked: bool = False

    def play(self, batches: Sequence[Batch], step: Step) -> Sums:
        for own, batch in zip(self.batches, batches, strict=True):
            own.x.copy_(batch.x)
            own.targets.copy_(batch.targets)
        self.tape.play(step)
        return self.sums


class Steps:
    """Takes a task's training steps, as Python or as replays; both give the same bits."""

    def __init__(self, task: Task, *, capture: bool = True) -> None:
        self._task = task
        device = next(iter(task.graphs.values())).flat.data.device
        self._enabled = capture and task.replayable and ops.records(device)
        self._seen: OrderedDict[Hashable, Captured | None] = OrderedDict()
        self._refused: set[Hashable] = set()

    def __call__(self, batches: Sequence[Batch], step: Step) -> Sums:
        """Take a step; returns its sums, which are valid until the next one. Raises NotFinite as the step does."""
        if not self._enabled or step.mode.reduce is not None:
            return self._run(batches, step)
        kind = self._task.variant(step.index), _layout(batches), step.max_norm, id(step.mode.generator)
        if kind in self._refused:
            return self._run(batches, step)
        captured = self._seen.get(kind)
        if captured is None:
            return self._run(batches, step) if self._is_new(kind) else self._record(kind, batches, step)
        self._seen.move_to_end(kind)
        return captured.play(batches, step) if captured.checked else self._check(kind, captured, batches, step)

    def _run(self, batches: Sequence[Batch], step: Step) -> Sums:
        sums = Sums()
        self._task.train_step(batches, step, sums)
        return sums

    def _is_new(self, kind: Hashable) -> bool:
        """Remember a kind of step; returns whether it wasn't."""
        new = kind not in self._seen
        self._seen[kind] = None
        while len(self._seen) > MAX_KINDS:
            self._seen.popitem(last=False)
        return new

    def _record(self, kind: Hashable, batches: Sequence[Batch], step: Step) -> Sums:
        own = [replace(batch, x=batch.x.clone(), targets=batch.targets.clone()) for batch in batches]
        ops.empty_cache()  # what steps have used so far isn't needed beside the arena of the recording
        recording, sums = ops.Recording(), Sums()
        with recording:
            self._task.train_step(own, step, sums)
        tape = recording.tape()
        if tape is None:
            self._refuse(kind, f"{recording.refused}")
        else:
            self._seen[kind] = Captured(own, tape, sums)
        return sums

    def _check(self, kind: Hashable, captured: Captured, batches: Sequence[Batch], step: Step) -> Sums:
        """Take a step both ways, the second time on a copy of the task."""
        generator = step.mode.generator
        twin = None if generator is None else torch.Generator(generator.device).set_state(generator.get_state())
        other = copy.deepcopy(self._task)
        expected = Sums()
        with captured.tape.memory():
            other.train_step(batches, replace(step, mode=replace(step.mode, generator=twin)), expected)
        found = captured.play(batches, step)
        if _same(_state(other, expected), _state(self._task, found)):
            captured.checked = True
            return found
        self._refuse(kind, "a replay gives other values")
        _restore(self._task, other)
        if generator is not None and twin is not None:
            generator.set_state(twin.get_state())
        return expected

    def _refuse(self, kind: Hashable, reason: str) -> None:
        self._seen.pop(kind, None)
        self._refused.add(kind)
        log.info("training steps aren't replayed: %s", reason)


def _layout(batches: Sequence[Batch]) -> Hashable:
    return tuple((tensor.shape, tensor.dtype) for batch in batches for tensor in (batch.x, batch.targets))


def _state(task: Task, sums: Sums) -> dict[str, Any]:
    """Everything that a step changes."""
    parts = {name: (part.graph.state(), part.optimizer.state()) for name, part in task.trained.items()}
    gradients = {name: graph.flat.grad for name, graph in task.graphs.items()}
    return {"parts": parts, "gradients": gradients, "task": task.state(), "sums": sums.numbers()}


def _same(a: Any, b: Any) -> bool:
    """Whether two structures hold the same bits, of NaN too."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Tensor):
        return torch.equal(torch.nan_to_num(a, nan=0.5), torch.nan_to_num(b, nan=0.5))
    return bool(repr(a) == repr(b)) if isinstance(a, float) else bool((a == b).all() if hasattr(a, "all") else a == b)


def _restore(task: Task, other: Task) -> None:
    """Continue as the other task would."""
    for name, part in task.trained.items():
        part.graph.load_state(other.trained[name].graph.state())
        part.graph.flat.grad.copy_(other.trained[name].graph.flat.grad)
        part.optimizer.load_state(other.trained[name].optimizer.state())
    task.load_state(other.state())
