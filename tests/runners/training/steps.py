"""Two copies of a task that take the same steps, one as Python and one recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from cnn import Mode
from cnn.schedules import RunLength
from runners.data.batches import Batch
from runners.tasks.task import Step, Task
from runners.training.capturing import Steps

LENGTH = RunLength(6, 2)
NOISE = torch.Generator()
"""Of the steps that are captured."""


def frozen(value: Any) -> Any:
    """A copy of tensors and numbers that can be compared bit by bit."""
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        value = value.numpy()
    return (value.dtype.name, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def state_of(task: Task) -> dict[str, Any]:
    """Weights, buffers, gradients, and what optimizers and the task keep."""
    graphs = {name: frozen(graph.state() | {"grad": graph.flat.grad}) for name, graph in task.graphs.items()}
    optimizers = {name: frozen(part.optimizer.state()) for name, part in task.trained.items()}
    return {"graphs": graphs, "optimizers": optimizers, "task": frozen(task.state())}


def step(index: int, max_norm: float | None = None, generator: torch.Generator | None = None) -> Step:
    """A step with noise that its index determines."""
    generator = (NOISE if generator is None else generator).manual_seed(index)
    return Step(index, LENGTH, Mode(train=True, generator=generator), max_norm)


def never(*arguments: Any) -> NoReturn:
    raise AssertionError("a step was taken as Python")


def follow(
    make: Callable[[], Task],
    batches: Callable[[int], Sequence[Batch]],
    *,
    steps: int = 8,
    python: int = 3,
    max_norm: float | None = None,
    each: Callable[[int], object] = lambda index: None,
) -> tuple[Task, Steps]:
    """Take steps both ways, and compare everything bit by bit after each; those after the first `python` are replayed.

    `each` is called before each replay. Returns the task that was captured, and what captured it.
    """
    plain, task = make(), make()
    assert state_of(plain) == state_of(task)  # makes averages, too
    expected, found = Steps(plain, capture=False), Steps(task)
    noise = torch.Generator(), NOISE
    for index in range(steps):
        if index == python:
            vars(task)["train_step"] = never
        group = batches(index)
        wanted = expected.take(group, step(index, max_norm, noise[0])).numbers()
        each(index)
        assert frozen(found.take(group, step(index, max_norm, noise[1])).numbers()) == frozen(wanted), index
        assert state_of(task) == state_of(plain), index
        assert torch.equal(noise[0].get_state(), noise[1].get_state())
    vars(task).pop("train_step", None)
    return task, found
