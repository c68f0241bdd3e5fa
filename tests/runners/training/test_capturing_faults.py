"""What replays can't do, or find: values that aren't finite, layers with numpy or a state in Python, other shapes."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnn import Cache, Mode, build_model
from cnn.layers import LAYERS
from cnn.losses import L2, Loss
from cnn.ops import NotFinite
from cnn.ops.engine import MAX_KINDS
from cnn.optimizers import SGD
from cnn.schedules import Constant
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.regression import Regression
from runners.tasks.sums import Sums
from runners.tasks.task import Task
from runners.training.capturing import Evaluations, Steps, _restore, _state
from tests.runners.training.own_layers import OWN, Drawing, Growing, Own, Sound
from tests.runners.training.steps import follow, frozen, never, state_of, step
from tests.runners.training.test_capturing import SMALL, of_small, random_batches

DRAW = random_batches((1, 6, 6), [4])


def with_layer(kind: type[Own], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Task]:
    monkeypatch.setitem(LAYERS, "own", kind)
    return lambda: of_small(layers=["own", *SMALL])


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: str(kind.__name__))
def test_a_layer_that_can_not_be_replayed_is_found_and_trains_on(
    kind: type[Own], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To the same bits, step by step, as without replays; the log says why, once."""
    with caplog.at_level(logging.INFO, "runners.training.capturing"):
        follow(with_layer(kind, monkeypatch), DRAW, steps=10, python=99)
    [message] = caplog.messages
    assert message.startswith(f"training steps aren't replayed: {OWN[kind]}")


@pytest.mark.parametrize("kind", [Sound, Drawing, Growing])
def test_a_layer_of_tensor_operations_is_replayed(kind: type[Own], monkeypatch: pytest.MonkeyPatch) -> None:
    follow(with_layer(kind, monkeypatch), DRAW)


class AnnealedLoss(L2):
    """Its weight grows from call to call."""

    calls = 0

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        self.calls += 1
        value, cache = super().forward(prediction, target)
        return value * self.calls, cache


def test_a_loss_that_counts_its_calls_trains_on() -> None:
    follow(lambda: of_small(loss=AnnealedLoss()), DRAW, steps=8, python=99)


def test_noise_of_torchs_own_generator_is_replayed() -> None:
    """Steps without a generator draw from it; its numbers go on as without replays."""
    found: list[Any] = []
    for capture in (False, True):
        torch.manual_seed(5)
        task = of_small()
        steps = Steps(task, capture=capture)
        for index in range(8):
            taken = step(index)
            steps.take(DRAW(index), type(taken)(index, taken.length, Mode(train=True)))
        found.append((state_of(task), frozen(torch.get_rng_state())))
        captured = [each for each in steps._seen.values() if each]
        assert len(captured) == capture
    assert found[0] == found[1]


def weight_of(task: Task) -> Tensor:
    return task.graphs["model"].flat.data


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["batch", "weight"])
@pytest.mark.parametrize("when", [0, 1, 2, 3, 6])
def test_values_that_are_not_finite_stop_the_same_step(where: str, when: int, value: float) -> None:
    """In the first step, the recorded one, the checked one and replays: weights and the optimizer stay as they are."""
    tasks = [of_small(), of_small()]
    both = [Steps(tasks[0], capture=False), Steps(tasks[1])]
    for index in range(when):
        for steps in both:
            steps.take(DRAW(index), step(index))
    [batch] = DRAW(when)
    spoilt = batch
    if where == "batch":
        x = batch.x.clone()
        x[0, 3, 3, 2] = value
        spoilt = Batch(x, batch.targets)
    for task, steps in zip(tasks, both, strict=True):
        if where == "weight":
            weight_of(task)[-1] = value
        before = frozen(weight_of(task)), frozen(task.trained["model"].optimizer.state())
        with pytest.raises(NotFinite):
            steps.take([spoilt], step(when))
        assert before == (frozen(weight_of(task)), frozen(task.trained["model"].optimizer.state()))
    states = [frozen(task.graphs["model"].state()) for task in tasks]
    assert states[0] == states[1]  # with the statistics of the step that failed
    for task in tasks:
        if where == "weight":
            weight_of(task)[-1] = 0.25
        task.graphs["model"].load_state(task.graphs["model"].state() | {"batch_norm_1.running_mean": torch.zeros(3)})
        task.graphs["model"].load_state(task.graphs["model"].state() | {"batch_norm_1.running_var": torch.ones(3)})
    for index in range(when, when + 5):  # whoever catches this goes on as from Python
        for steps in both:
            steps.take(DRAW(index), step(index))
        assert state_of(tasks[0]) == state_of(tasks[1])


@pytest.mark.parametrize("when", [0, 1, 2, 3, 6])
def test_unknown_classes_are_the_same_fault(when: int) -> None:
    messages = []
    for capture in (False, True):
        task = of_small()
        steps = Steps(task, capture=capture)
        for index in range(when):
            steps.take(DRAW(index), step(index))
        [batch] = DRAW(when)
        before = frozen(weight_of(task))
        with pytest.raises(IndexError) as fault:
            steps.take([Batch(batch.x, batch.targets + 3)], step(when))
        messages.append(str(fault.value))
        assert frozen(weight_of(task)) == before
    assert messages[0] == messages[1]


def test_each_batch_size_is_recorded_for_itself() -> None:
    """Such as the short last batch of an epoch; a size that is seen once stays Python."""
    sizes = [4, 4, 4, 4, 2, 4, 4, 2, 4, 4, 2, 4, 7, 2, 4]
    task, steps = follow(of_small, lambda index: random_batches((1, 6, 6), [sizes[index]])(index), steps=15, python=99)
    captured = [each for each in steps._seen.values() if each and each.checked]
    assert sorted(each.inputs[0].shape[-1] for each in captured) == [2, 4]
    vars(task)["train_step"] = never
    for size in (2, 4):
        steps.take(random_batches((1, 6, 6), [size])(50), step(20))
    with pytest.raises(AssertionError, match="as Python"):
        steps.take(random_batches((1, 6, 6), [3])(50), step(20))


def test_a_limited_number_of_kinds_is_remembered() -> None:
    """Those used last; what was recorded of the others is freed."""
    chance = np.random.default_rng(0)
    sizes = [*np.repeat(np.arange(1, MAX_KINDS + 3), 4).tolist(), *chance.integers(1, MAX_KINDS + 3, 30).tolist()]
    layers = ["flatten", {"linear": {"out_features": 4}}]
    _, steps = follow(
        lambda: of_small(layers=layers),
        lambda index: random_batches((1, 6, 6), [sizes[index]])(index),
        steps=len(sizes),
        python=999,
    )
    assert len(steps._seen) == MAX_KINDS


def test_other_clipping_is_another_kind() -> None:
    plain, task = of_small(), of_small()
    both = Steps(plain, capture=False), Steps(task)
    for index in range(15):
        if index == 9:
            vars(task)["train_step"] = never
        for steps in both:
            steps.take(DRAW(index), step(index, [None, 0.1, 5.0][index % 3]))
        assert state_of(task) == state_of(plain)


class Unsure(Classification):
    replayable = False


def test_a_task_that_does_not_say_so_is_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Steps, "_record", never)
    task = Unsure()
    task.build({"model": build_model({"layers": SMALL}, (1, 6, 6))}, of_small().loss)
    task.train_with({"model": (SGD(), Constant())})
    for steps in (Steps(task), Steps(of_small(), capture=False)):
        for index in range(5):
            steps.take(DRAW(index), step(index))
    assert not Task.replayable


class Wrong(Regression):
    """Says that it can be replayed, but what it does depends on the number of its step."""

    seen = 0

    def train_step(self, batches: Any, step: Any, sums: Any) -> None:
        self.seen += 1
        super().train_step(batches, step, sums)
        if self.seen % 4 == 0:
            self.graphs["model"].flat.data.mul_(0.5)


def test_a_task_that_is_wrong_about_itself_is_found() -> None:
    def make() -> Task:
        task = Wrong(target="input")
        loss: Loss = L2()
        layers = ["flatten", {"linear": {"out_features": 36}}, {"reshape": {"shape": [1, 6, 6]}}]
        task.build({"model": build_model({"layers": layers}, (1, 6, 6), seed=1)}, loss)
        task.train_with({"model": (SGD(lr=0.1), Constant())})
        return task

    follow(make, DRAW, steps=10, python=99)


def test_what_can_not_be_checked_is_not_replayed(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Task:
        task = of_small()
        vars(task)["names"] = np.array(["a", "b"], dtype=object)
        return task

    with caplog.at_level(logging.INFO, "runners.training.capturing"):
        follow(make, DRAW, steps=8, python=99)
    assert caplog.messages == [
        "training steps aren't replayed: a replay can't be checked (what a ndarray holds isn't known)"
    ]


def test_evaluations_are_replayed_to_the_same_sums() -> None:
    task = of_small()
    evaluations, plain = Evaluations(task), Evaluations(task, capture=False)
    for index in range(6):
        [batch] = DRAW(index)
        sums, expected = Sums(), Sums()
        assert torch.equal(evaluations.evaluate(batch, sums), plain.evaluate(batch, expected))
        assert sums.numbers() == expected.numbers()
    [captured] = evaluations._seen.values()
    assert captured is not None
    assert captured.checked


def test_a_refused_kind_leaves_the_others_their_optimizer() -> None:
    """Its state is put back in place: what was recorded before goes on with it."""
    layers = ["flatten", {"linear": {"out_features": 4}}]
    plain, task = of_small(layers=layers), of_small(layers=layers)
    expected, found = Steps(plain, capture=False), Steps(task)
    for index in range(16):
        size = 4 if index < 5 or index > 9 else 6
        batches = random_batches((1, 6, 6), [size])(index)
        if index == 7:  # the check of the second kind
            found.check = lambda captured, inputs, step: failing(found, captured, inputs, step)  # type: ignore[method-assign]
        expected.take(batches, step(index))
        found.take(batches, step(index))
        assert state_of(task) == state_of(plain), index


def failing(steps: Steps, captured: Any, inputs: Any, taken: Any) -> tuple[Sums, str]:
    """A check that puts back the state, as one that fails does."""
    _restore(steps.task, copy.deepcopy(_state(steps.task, Sums())))
    return steps.run(inputs, taken), "a test refuses it"


def test_what_derived_tasks_do_is_not_replayed_unless_they_say_so() -> None:
    class Same(Classification):
        """Changes nothing."""

    class Other(Classification):
        def train_step(self, *arguments: Any) -> None:
            super().train_step(*arguments)

    class Sure(Other):
        replayable = True

    assert [kind.replayable for kind in (Same, Other, Sure)] == [True, False, True]
