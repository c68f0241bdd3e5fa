"""Several processes, here threads, that share each batch: together they do what one does with the whole of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnn import Mode, build_model
from cnn.losses import LOSSES, CrossEntropy
from cnn.ops import NotFinite
from cnn.optimizers import SGD, Adam
from cnn.schedules import Cosine, RunLength
from runners.data.batches import Batch, Batches
from runners.data.dataset import Examples
from runners.signals import Interrupted, SignalWatch
from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.tasks.task import Step
from runners.training.loop import Loop, Plan
from runners.training.processes import Alone, World
from runners.training.progress import Progress
from runners.training.recorder import Recorder

MODEL: dict[str, Any] = {
    "layers": [
        {"conv2d": {"out_channels": 4, "kernel_size": 3}},
        *("batch_norm", {"max_pool2d": {"kernel_size": 2}}, "relu"),
        {"residual": {"body": [{"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}, "batch_norm"]}},
        *("relu", "flatten", {"linear": {"out_features": 3}}),
    ]
}
LENGTH = RunLength(steps_per_epoch=4, epochs=1)


class Thread:
    """One of several threads: each waits until all have brought their tensor, and gets the sum."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, brought: dict[int, Any]) -> None:
        self.rank = rank
        self.size = size
        self.barrier = barrier
        self.brought = brought
        self.reduce: Callable[[Tensor], None] | None = self._sum

    def _all(self, value: Any) -> list[Any]:
        self.brought[self.rank] = value
        self.barrier.wait(timeout=60)
        values = [self.brought[rank] for rank in range(self.size)]
        self.barrier.wait(timeout=60)
        return values

    def _sum(self, tensor: Tensor) -> None:
        tensor.copy_(sum(self._all(tensor.clone())))

    def agree(self, signal: int | None) -> int | None:
        return max(self._all(signal or 0)) or None


def together(size: int, work: Callable[[World], Any]) -> list[Any]:
    """What each of several threads comes to."""
    barrier, brought = threading.Barrier(size), dict[int, Any]()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [Thread(rank, size, barrier, brought) for rank in range(size)]))


def batch(count: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 10, 10, count, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, 3, (count,), generator=generator))


def part(whole: Batch, world: World) -> Batch:
    """The share of one process: a third for the first of two, so that shares differ."""
    cut = len(whole) // 3
    here = {0: slice(0, cut), 1: slice(cut, None)}[world.rank] if world.size > 1 else slice(None)
    return Batch(whole.x[..., here].contiguous(), whole.targets[here])


LOSS_ARGUMENTS: dict[str, dict[str, Any]] = {"cross_entropy": {"weight": [1.0, 0.2, 3.0], "label_smoothing": 0.1}}


def made(loss: str, optimizer: Any) -> Classification:
    task = Classification()
    network = build_model(MODEL, (1, 10, 10), seed=3, dtype=torch.float64)
    task.build({"model": network}, LOSSES[loss](**LOSS_ARGUMENTS.get(loss, {})))
    task.train_with({"model": (optimizer, Cosine())})
    return task


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce_with_logits", "l2"])
def test_two_threads_follow_one_on_the_whole_batch(loss: str, accumulate: int, kernel_set: str) -> None:
    def train(world: World) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
        task, sums = made(loss, SGD(0.1, momentum=0.9)), Sums()
        mode = Mode(train=True, reduce=world.reduce)
        for index in range(4):
            group = [part(batch(15, 10 * index + number), world) for number in range(accumulate)]
            task.train_step(group, Step(index, LENGTH, mode, max_norm=0.5), sums)
        for index in range(2):
            task.evaluate(part(batch(9, 100 + index), world), sums)
        network = task.graphs["model"]
        return network.flat.data, network.state(), sums.reduce(world.reduce).means("all")

    (expected, state, means) = train(Alone())
    for found, its_state, its_means in together(2, train):
        assert (found - expected).abs().max() / expected.abs().max() < 1e-10
        for name, tensor in state.items():  # running means and variances too
            assert torch.allclose(its_state[name], tensor, rtol=1e-10, atol=1e-12), name
        assert its_means == pytest.approx(means, rel=1e-10)


def test_a_process_whose_examples_have_no_weight_has_its_part_in_the_smoothing() -> None:
    def train(world: World) -> Tensor:
        task = made("cross_entropy", SGD(0.1))
        task.loss = CrossEntropy(weight=[0.0, 1.0, 2.0], label_smoothing=0.3)
        whole = Batch(batch(6, 1).x, torch.tensor([0, 0, 1, 2, 0, 1]))
        task.train_step([part(whole, world)], Step(0, LENGTH, Mode(train=True, reduce=world.reduce)), Sums())
        return task.graphs["model"].flat.data

    expected = train(Alone())
    for found in together(2, train):
        assert (found - expected).abs().max() / expected.abs().max() < 1e-10


def test_where_one_meets_an_infinity_all_stop_and_change_nothing() -> None:
    def train(world: World) -> tuple[str, bool]:
        task = made("l2", Adam())
        before = task.graphs["model"].flat.data.clone()
        mine = part(batch(9, 1), world)
        if world.rank == 1:
            mine.x[0, 0, 0, 0] = torch.inf
        try:
            task.train_step([mine], Step(0, LENGTH, Mode(train=True, reduce=world.reduce)), Sums())
        except NotFinite:
            return "stopped", torch.equal(task.graphs["model"].flat.data, before)
        return "went on", False

    assert together(2, train) == [("stopped", True)] * 2


class Nowhere(Recorder):
    """Notes what is saved, and writes nothing."""

    def __init__(self) -> None:
        self.reason = None
        self.saved: list[str] = []
        self._listeners = []

    def save(self, which: str) -> None:
        self.saved.append(which)

    def begin(self, progress: Progress) -> None:
        pass

    def epoch(self, row: dict[str, float], progress: Progress) -> None:
        pass


def test_the_loop_of_several_follows_that_of_one_and_leaves_on_the_signal_of_any() -> None:
    """Validation and rows included: each process has its part of the examples of every batch."""

    def batches(world: World, count: int, seed: int) -> Batches:
        whole = batch(count, seed)
        here = range(world.rank, count, world.size)
        pixels = (whole.x * 40 + 120).clamp(0, 255).byte().movedim(-1, 0)[list(here)].contiguous()
        common: dict[str, Any] = {"mean": 0.5, "std": 0.2, "dtype": torch.float64, "device": torch.device("cpu")}
        return Batches(Examples(pixels, whole.targets[list(here)]), count // world.size, **common)

    def train(world: World, interrupted: bool = False) -> tuple[list[dict[str, float]], list[str], str]:
        task = made("cross_entropy", SGD(0.1))
        progress, recorder, watch = Progress.of(task), Nowhere(), SignalWatch()
        if interrupted and world.rank == 1:
            watch.received = signal.SIGTERM
        plan = Plan(RunLength(1, 2), seed=0)
        data = batches(world, 12, 1), batches(world, 8, 2)
        try:
            Loop(task, plan, progress, *data, recorder, watch, world).run()
        except Interrupted as stop:
            return progress.rows, recorder.saved, stop.name
        return progress.rows, recorder.saved, "done"

    rows, saved, _ = train(Alone())
    improved = rows[1]["val/accuracy"] > rows[0]["val/accuracy"]
    assert saved == ["best", "last", *(["best"] if improved else []), "last"]
    for found, its_saved, end in together(2, train):
        assert (its_saved, end) == (saved, "done")
        for row, expected in zip(found, rows, strict=True):
            same = {name: value for name, value in expected.items() if "second" not in name}
            assert {name: row[name] for name in same} == pytest.approx(same, rel=1e-10)
    ends = together(2, lambda world: train(world, interrupted=True))
    assert [(its_saved, end) for _, its_saved, end in ends] == [(["last"], "SIGTERM")] * 2


def test_sums_of_one_process_are_themselves() -> None:
    sums = Sums()
    sums.add("loss", torch.tensor(3.0), 2)
    assert sums.reduce(Alone().reduce) is sums
    assert Alone().agree(None) is None
    assert Alone().agree(15) == 15
    assert np.isclose(sums.means("val")["val/loss"], 1.5)
