"""The memory of replayed steps: nothing is allocated, and recorded steps keep no more than steps of Python do."""

from __future__ import annotations

import gc
import math
import resource
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from cnn.ops import memory
from cnn.ops.capture import Tape
from cnn.ops.memory import SLAB, SMALL, Arena, Pool
from cnn.ops.replays import Captured
from runners.tasks.task import Task
from runners.training.capturing import Steps
from tests import generators
from tests.cnn.test_models import IMAGES
from tests.runners.training.steps import step
from tests.runners.training.test_capturing import of_model, of_small, random_batches


class Counting(Pool):
    """A pool that counts the bytes that it made, and those in use at most."""

    def __init__(self) -> None:
        super().__init__(limit=1 << 62)
        self.made = self.used = self.most = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        nbytes = math.prod(shape) * dtype.itemsize
        self.used += nbytes
        self.most = max(self.most, self.used)
        self.made += 0 if self._free.get(nbytes) else nbytes
        return super().empty(shape, dtype)

    def _release(self, key: int, memory: np.ndarray) -> None:
        self.used -= memory.nbytes
        super()._release(key, memory)


@pytest.fixture
def pool() -> Iterator[Counting]:
    counting = Counting()
    before = memory.use(counting)
    yield counting
    memory.use(before)


def taken(task: Task, draw: object, count: int, capture: bool = True) -> Steps:
    steps = Steps(task, capture=capture)
    for index in range(count):
        steps.take(draw(index), step(index))  # type: ignore[operator]
    return steps


def captured_of(steps: Steps) -> Captured[Any, Any]:
    [captured] = steps._seen.values()
    assert captured is not None
    assert captured.checked
    return captured


def arena_of(captured: Captured[Any, Any]) -> Arena:
    assert isinstance(captured.tape, Tape)
    return captured.tape._arena


@pytest.mark.parametrize("model", ["lenet", "resnet13", pytest.param("vgg11", marks=pytest.mark.long)])
def test_a_recorded_step_keeps_no_more_than_python_uses(model: str, pool: Counting) -> None:
    """Less than the pool made for steps of Python, but for the rest of a slab and the small tensors that aren't its."""
    draw = random_batches((1, 28, 28), [64], 10)
    task = of_model(model, (1, 28, 28))
    taken(task, draw, 3, capture=False)
    made, most = pool.made, pool.most
    kept = arena_of(captured_of(taken(task, draw, 4))).nbytes
    print(f"{model}: in use {most:,}, made {made:,}, recorded {kept:,} bytes")
    assert most <= kept <= made + SLAB


@pytest.mark.parametrize("model", IMAGES)
def test_a_replay_allocates_nothing_large(model: str, pool: Counting) -> None:
    """Nothing from the pool, and of torch, as its profiler sees it, only small temporary tensors."""
    draw = random_batches((1, 28, 28), [32], 10)
    steps = taken(of_model(model, (1, 28, 28)), draw, 4)
    captured, batch = captured_of(steps), draw(9)
    pool.made = 0
    blocks = arena_of(captured).nbytes
    with torch.profiler.profile(profile_memory=True) as profile:
        steps.take(batch, step(9))
    assert pool.made == 0
    assert arena_of(captured).nbytes == blocks
    large = [event.name for event in profile.events() if event.self_cpu_memory_usage >= SMALL]
    assert large == []


@pytest.mark.parametrize("name", ["classifier", "gan"])
def test_many_replays_keep_the_memory_of_the_process(name: str) -> None:
    task: Task = of_small() if name == "classifier" else generators.gan("wasserstein", conditional=True)
    draw = random_batches((1, 6, 6), [32], 3, dtype=torch.float32 if name == "classifier" else torch.float64)
    steps = taken(task, draw, 50)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = draw(0)
    for index in range(800):
        steps.take(batch, step(index))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= 1024  # KiB; a leak of 2 KiB a step is seen


def test_what_was_recorded_is_freed_with_the_steps() -> None:
    """At once, without a collection of circles."""
    gc.collect()
    gc.disable()
    try:
        steps = taken(of_small(), random_batches((1, 6, 6), [4]), 5)
        captured = captured_of(steps)
        tape, arena = weakref.ref(captured.tape), weakref.ref(arena_of(captured))
        blocks = [weakref.ref(block) for block in arena_of(captured)._slabs]
        assert blocks
        del steps, captured
        assert tape() is None
        assert arena() is None
        assert not any(block() is not None for block in blocks)
    finally:
        gc.enable()
