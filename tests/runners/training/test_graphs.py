"""Steps as graphs that can't stop: the same bits as Python, and nothing changed by a step that finds a fault.

There is no GPU here. The engine is the one for GPUs, and a stand-in records torch's operations instead of CUDA.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn import Mode, ops
from cnn.arguments import construct
from cnn.layer import Cache
from cnn.layers.activation import ReLU
from cnn.ops import NotFinite, backend, capture, loss, replays
from cnn.ops.graphs import MAX_QUEUED, GraphEngine
from cnn.ops.reference import guard
from cnn.optimizers import OPTIMIZERS
from runners.data import Examples
from runners.data.batches import Batch, Batches
from runners.tasks.sums import Sums
from runners.tasks.task import Task
from runners.training.capturing import Evaluations, Steps
from runners.training.loop import evaluate
from tests import generators
from tests.graphs import StandIn
from tests.runners.training.steps import follow, state_of, step
from tests.runners.training.test_capturing import of_small, random_batches

DRAW = random_batches((1, 6, 6), [4])


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Every engine is one for GPUs, and the reference set computes, whose operations are torch's."""
    device = StandIn()
    monkeypatch.setattr(replays, "_engine_for", lambda _: GraphEngine(device))
    for name, empty in (("_backends", []), ("_waiting", {}), ("_found", {})):
        monkeypatch.setattr(backend, name, empty)
    return device


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_graphs_have_the_bits_of_python(kind: str, graphs: StandIn) -> None:
    _, steps = follow(lambda: of_small(construct(OPTIMIZERS[kind], {"lr": 0.02})), DRAW, max_norm=0.5)
    assert not steps.refused
    assert (graphs.captures, graphs.replays) == (1, 6)  # all but two of eight


def test_a_group_of_batches_and_a_short_one(graphs: StandIn) -> None:
    groups = random_batches((1, 6, 6), [4, 3]), random_batches((1, 6, 6), [2])
    follow(of_small, lambda index: groups[index % 2](index), steps=10, python=6)
    assert graphs.captures == 2


def test_an_adversarial_pair(graphs: StandIn) -> None:
    _, steps = follow(
        lambda: generators.gan("hinge", ema=0.9),
        lambda index: [generators.pictures(4, seed=index)],
        steps=10,
        python=6,
    )
    assert not steps.refused
    assert graphs.captures == 2


def without_gradients(task: Task) -> dict[str, Any]:
    state = state_of(task)
    for graph in state["graphs"].values():
        graph.pop("grad")
    for optimizer in state["optimizers"].values():
        optimizer.pop("steps")  # which Python counts
    return state


def spoilt(index: int, at: int) -> Any:
    group = DRAW(index)
    if index == at:
        group[0].x[0, 1, 1, 2] = math.nan
    return group


@pytest.mark.parametrize("at", [3, 5])
def test_a_step_that_finds_a_fault_changes_nothing_nor_do_those_after_it(at: int) -> None:
    task = of_small()
    steps = Steps(task)
    for index in range(at):
        steps.take(DRAW(index), step(index))
    before = without_gradients(task)
    for index in range(at, at + MAX_QUEUED + 1):
        steps.take(spoilt(index, at), step(index))  # nobody has waited
        assert without_gradients(task) == before
    with pytest.raises(NotFinite) as caught:
        steps.take(DRAW(0), step(at + MAX_QUEUED + 1))
    assert caught.value.argument.index == at
    assert without_gradients(task) == before
    for index in range(at + 1, at + 4):
        steps.take(DRAW(index), step(index))
    steps.wait()
    assert without_gradients(task) != before  # the fault is over


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_fault_before_steps_are_replayed_is_reported_at_once(at: int) -> None:
    """In the first step, in the one that is recorded and in the one that is checked."""
    task = of_small()
    steps = Steps(task)
    for index in range(at):
        steps.take(DRAW(index), step(index))
    before = without_gradients(task)["optimizers"]
    weights = task.graphs["model"].flat.data.clone()
    with pytest.raises(NotFinite) as caught:
        steps.take(spoilt(at, at), step(at))
    assert caught.value.argument is None or caught.value.argument.index == at
    assert torch.equal(task.graphs["model"].flat.data, weights)
    assert without_gradients(task)["optimizers"] == before


def test_waiting_reports_a_fault() -> None:
    steps = Steps(of_small())
    for index in range(5):
        steps.take(spoilt(index, 4), step(index))
    with pytest.raises(NotFinite) as caught:
        steps.wait()
    assert caught.value.argument.index == 4
    steps.wait()


def test_python_steps_wait_for_a_fault_of_a_graph() -> None:
    steps = Steps(of_small())
    for index in range(5):
        steps.take(spoilt(index, 4), step(index))
    with pytest.raises(NotFinite) as caught:
        steps.take(random_batches((1, 6, 6), [3])(5), step(5))  # of another size: as Python
    assert caught.value.argument.index == 4


class Reading(ReLU):
    """A layer that looks at a value."""

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return super().forward(x * (2.0 if float(x.max()) > 1e9 else 1.0), mode)


class Choosing(ReLU):
    """A layer whose work depends on values."""

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y, cache = super().forward(x, mode)
        assert len(y[y > 1e9]) == 0
        return y, cache


class Masking(ReLU):
    """A layer that writes where a mask says."""

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y, cache = super().forward(x, mode)
        y[y < -1e9] = torch.zeros(())
        return y, cache


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Reading, "a value is read by Python"),
        (Choosing, "a shape depends on values"),
        (Masking, "what is written depends on values"),
    ],
)
def test_what_a_graph_cannot_do_is_seen_before_it_is_captured(layer: type[ReLU], reason: str, graphs: StandIn) -> None:
    layers = [{"conv2d": {"out_channels": 3, "kernel_size": 3}}, "sigmoid", "flatten", {"linear": {"out_features": 4}}]

    def built() -> Any:
        task: Any = of_small(layers=layers)
        task.scored.layers["sigmoid_1"] = layer()
        return task

    _, steps = follow(built, DRAW, python=99)
    [found] = steps.refused.values()
    assert reason in found
    assert graphs.captures == 0


@pytest.mark.parametrize(
    "kept", [torch.zeros(3, dtype=torch.bool), torch.zeros(2, 4).t(), torch.zeros(4, dtype=torch.int16)[1:3]]
)
def test_a_step_that_may_change_what_cannot_be_put_back_stays_python(kept: Tensor, graphs: StandIn) -> None:
    """A tensor that isn't made of whole words, or whose values aren't next to each other."""

    def built() -> Task:
        task = of_small()
        vars(task.graphs["model"].layers["conv2d_1"])["kept"] = kept
        return task

    _, steps = follow(built, DRAW, python=99)
    [found] = steps.refused.values()
    assert "can't be put back" in found
    assert graphs.captures == 0


def test_a_fault_of_a_step_that_is_only_inspected_is_undone_where_it_can_be(graphs: StandIn) -> None:
    task = of_small()
    vars(task.graphs["model"].layers["conv2d_1"])["kept"] = torch.zeros(3, dtype=torch.bool)
    steps = Steps(task)
    steps.take(DRAW(0), step(0))
    before = without_gradients(task)
    with pytest.raises(NotFinite):
        steps.take(spoilt(1, 1), step(1))
    assert without_gradients(task) == before


@pytest.mark.parametrize("at", [2, 4, 7])
def test_a_stray_target_in_an_evaluation_is_named(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay can't raise: it goes on with a class that there is, and notes the target."""
    monkeypatch.setattr("cnn.losses.standard.ops.cross_entropy", as_on_a_gpu)
    task = of_small()
    targets = torch.arange(32) % 4
    targets[4 * at + 1] = 7
    examples = Examples(torch.zeros(32, 1, 6, 6, dtype=torch.uint8), targets)
    batches = Batches(examples, 4, mean=0.0, std=1.0, dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(IndexError, match="1 targets are not among the classes 0 to 3"):
        evaluate(task, batches)


def as_on_a_gpu(logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor]:
    flag, classes = capture.fault_flag(), len(logits)
    if flag is None:
        return loss.cross_entropy(logits, target, weight, smoothing)
    guard.note_strays(target, classes, flag)
    return loss.cross_entropy(logits, target.clamp(0, classes - 1), weight, smoothing)


def test_functions_of_tensors_are_replayed(graphs: StandIn) -> None:
    doubled = replays.Replayed(lambda x: ops.relu(x * 2))
    for number in range(6):
        x = torch.tensor([1.0, -1.0, number])
        assert torch.equal(doubled.of(x), torch.tensor([2.0, 0.0, 2.0 * number]))
    assert graphs.captures == 1


def test_the_memory_of_batches_is_only_used_where_it_may_be() -> None:
    task = of_small()
    batches = [DRAW(index)[0] for index in range(6)]
    before = [batch.x.clone() for batch in batches]
    evaluations = Evaluations(task)
    expected = [sums_of(evaluations, batch) for batch in batches]
    assert all(torch.equal(batch.x, x) for batch, x in zip(batches, before, strict=True))
    assert [sums_of(evaluations, batch) for batch in batches] == expected
    borrowing = Evaluations(task, borrows=True)
    assert [sums_of(borrowing, batch) for batch in batches] == expected
    assert not torch.equal(batches[1].x, before[1])  # which was recorded


def sums_of(evaluations: Evaluations, batch: Batch) -> dict[str, list[float]]:
    sums = Sums()
    evaluations.evaluate(batch, sums)
    return sums.numbers()


def test_a_faulty_step_leaves_a_moving_average_as_it_was() -> None:
    task = generators.gan("hinge", ema=0.9)
    steps = Steps(task)
    for index in range(8):
        steps.take([generators.pictures(4, seed=index)], step(index))
    before = without_gradients(task)["task"]
    spoilt_pictures = generators.pictures(4, seed=9)
    spoilt_pictures.x[:] = math.nan
    steps.take([spoilt_pictures], step(8))
    steps.take([generators.pictures(4, seed=10)], step(9))
    assert without_gradients(task)["task"]["average"] == before["average"]
    with pytest.raises(NotFinite):
        steps.wait()
