"""Training steps and evaluations as replays (`cnn.ops.replays`), to the same bits as Python."""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn.ops.capture import undone_at_a_fault
from cnn.ops.inspection import tensors
from cnn.ops.replays import OTHER_VALUES, UNCHECKED, Captured, Replays, digest
from runners.data.batches import Batch
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task

log = logging.getLogger(__name__)


class Steps(Replays[Step, Sums]):
    """Takes a task's training steps. On a GPU they are only queued, and `wait` waits for them.

    There, NotFinite may be raised for an earlier step, which is its `argument`: it and those after it changed nothing
    of the task, but optimizers have counted them.
    """

    def __init__(self, task: Task, *, capture: bool = True, borrows: bool = False) -> None:
        super().__init__(enabled=capture and task.replayable, borrows=borrows)
        self.task = task
        self._firsts: list[int] = []

    def take(self, batches: Sequence[Batch], step: Step) -> Sums:
        """Take a step; returns its sums, which are valid until the next one. Raises NotFinite as the step does."""
        inputs = [tensor for batch in batches for tensor in (batch.x, batch.targets)]
        self._firsts = [batch.first for batch in batches]  # the check finds what depends on it
        if step.mode.reduce is not None:
            return self.run(inputs, step)
        return self(inputs, step, (self.task.variant(step.index), step.max_norm, id(step.mode.generator)))

    def run(self, inputs: Sequence[Tensor], step: Step) -> Sums:
        with undone_at_a_fault(lambda: _changing(self.task)):
            return _train(self.task, inputs, self._firsts, step)

    def generators(self, step: Step) -> Sequence[torch.Generator]:
        return [] if step.mode.generator is None else [step.mode.generator]

    def check(self, captured: Captured[Step, Sums], inputs: Sequence[Tensor], step: Step) -> tuple[Sums, str]:
        """Take a step both ways, first as Python on a twin of the task. If they differ, it is taken again as Python."""
        noise, before, problem = _Noise(step.mode.generator), copy.deepcopy(_state(self.task, Sums())), OTHER_VALUES
        try:
            twin = _twin(self.task)
        except Exception as error:  # a layer of one's own may hold anything
            return self.run(inputs, step), f"the task can't be copied ({error})"
        try:
            with captured.tape.memory():
                expected = digest(_state(twin, _train(twin, inputs, self._firsts, step)))
            _restore(self.task, before)
            noise.repeat()
            if digest(_state(self.task, captured.play(inputs, step))) == expected:
                return captured.result, ""
        except Exception as error:  # of the step itself, too, which raises it again below
            problem = f"{UNCHECKED} ({error})"
        _restore(self.task, before)
        noise.repeat()
        return self.run(inputs, step), problem

    def refuse(self, kind: Hashable, reason: str) -> None:
        if reason not in self.refused.values():
            log.info("training steps aren't replayed: %s", reason)
        super().refuse(kind, reason)


def _train(task: Task, inputs: Sequence[Tensor], firsts: Sequence[int], step: Step) -> Sums:
    sums = Sums()
    task.train_step([Batch(*each) for each in zip(inputs[::2], inputs[1::2], firsts, strict=True)], step, sums)
    return sums


class _Noise:
    """The random numbers of a step, which it draws from a generator or, without one, from torch's own."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        self._state = generator.get_state() if generator else torch.empty(0)
        self._default = torch.get_rng_state()

    def repeat(self) -> None:
        """Draw the same numbers again from now on."""
        torch.set_rng_state(self._default)
        if self._generator is not None:
            self._generator.set_state(self._state)


def _state(task: Task, sums: Sums) -> dict[str, Any]:
    """Everything that a step may change."""
    layers = [layer for graph in task.graphs.values() for _, layer in graph.named_layers()]
    return {
        "weights": {name: graph.state() for name, graph in task.graphs.items()},
        "gradients": {name: graph.flat.grad for name, graph in task.graphs.items()},
        "optimizers": {name: part.optimizer.state() for name, part in task.trained.items()},
        "task": task.state(),
        "kept": [_plain(vars(item)) for item in (task, task.loss, *layers)],
        "sums": sums.numbers(),
    }


def _changing(task: Task) -> list[Tensor]:
    """The tensors that a step may change, without gradients and what is computed for each step."""
    state = _state(task, Sums())
    return [*tensors([state[key] for key in ("weights", "optimizers", "task", "kept")])]


def _plain(value: Any) -> Any:
    """The numbers, texts and arrays that an object keeps. A step that changes them can't be replayed."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, Tensor, np.ndarray)) else None


def _twin(task: Task) -> Task:
    """A copy of a task that shares the parameters and the optimizers' vectors, which may be large."""
    flats = [graph.flat for graph in task.graphs.values()]
    vectors = [vector for part in task.trained.values() for vector in part.optimizer.kept.values()]
    shared = [*flats, *(parameter for flat in flats for parameter in flat.parameters), *vectors]
    return copy.deepcopy(task, {id(each): each for each in shared})


def _restore(task: Task, before: Mapping[str, Any]) -> None:
    """Go back to a state."""
    for name, graph in task.graphs.items():
        graph.load_state(before["weights"][name])
        graph.flat.grad.copy_(before["gradients"][name])
    for name, part in task.trained.items():
        part.optimizer.load_state(before["optimizers"][name])
    task.load_state(before["task"])
    _put_back(_state(task, Sums())["kept"], before["kept"])


def _put_back(values: Any, before: Any) -> None:
    """Copy values into the tensors of a structure of the same form."""
    if isinstance(values, Tensor):
        values.copy_(before)
    elif isinstance(values, (dict, list)):
        for key in values if isinstance(values, dict) else range(len(values)):
            _put_back(values[key], before[key])


class Evaluations(Replays[None, tuple[Tensor, Sums]]):
    """Evaluates a task's batches."""

    def __init__(self, task: Task, *, capture: bool = True, borrows: bool = False) -> None:
        super().__init__(enabled=capture and task.replayable, borrows=borrows)
        self.task = task
        self._first = 0

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's metrics to the sums; returns the outputs to keep for each example."""
        self._first = batch.first  # the check finds what depends on it
        outputs, found = self([batch.x, batch.targets], None)
        sums.merge(found)
        return outputs.clone()

    def run(self, inputs: Sequence[Tensor], _: None) -> tuple[Tensor, Sums]:
        (x, targets), sums = inputs, Sums()
        return self.task.evaluate(Batch(x, targets, self._first), sums), sums
