"""Schedules against torch's over drawn arguments, with and without warm-up, in steps and in epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from cnn.arguments import construct
from cnn.schedules import SCHEDULES, RunLength, Schedule
from tests.cnn import ledger

LR = st.floats(1e-3, 1)
UNITS = st.sampled_from(["steps", "epochs"])
RUNS = st.builds(RunLength, steps_per_epoch=st.integers(1, 5), epochs=st.integers(1, 8))


def make(kind: str, arguments: dict[str, Any]) -> Schedule:
    schedule: Schedule = construct(SCHEDULES[kind], arguments)
    return schedule


@st.composite
def arguments(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    gamma = st.floats(0.05, 1.5)
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "constant": st.fixed_dictionaries({}),
        "exponential": st.fixed_dictionaries({"rate": st.floats(-0.5, 0.5), "unit": UNITS}),
        "step": st.fixed_dictionaries({"step_size": st.integers(1, 6), "gamma": gamma, "unit": UNITS}),
        "multi_step": st.fixed_dictionaries(
            {
                "milestones": st.lists(st.integers(1, 12), min_size=1, max_size=4).map(sorted),
                "gamma": gamma,
                "unit": UNITS,
            }
        ),
        "cosine": st.fixed_dictionaries({"min_lr": st.floats(0, 1e-2), "unit": UNITS}),
        "one_cycle": st.fixed_dictionaries(
            {
                "pct_start": st.floats(0, 0.95),
                "div_factor": st.floats(1, 50),
                "final_div_factor": st.floats(1, 1e4),
                "anneal_strategy": st.sampled_from(["cos", "linear"]),
            }
        ),
    }
    found: dict[str, Any] = draw(drawn[kind])
    return found


KINDS = ["constant", "exponential", "step", "multi_step", "cosine", "one_cycle"]


def optimizer_at(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1)], lr=lr)


def peer_of(kind: str, given: dict[str, Any], optimizer: torch.optim.Optimizer, total: int) -> Any:
    given = {key: value for key, value in given.items() if key != "unit"}
    if kind == "constant":
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if kind == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, gamma=math.exp(given["rate"]))
    if kind == "step":
        return lr_scheduler.StepLR(optimizer, **given)
    if kind == "multi_step":
        return lr_scheduler.MultiStepLR(optimizer, **given)
    if kind == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total, eta_min=given["min_lr"])
    max_lr = optimizer.param_groups[0]["lr"]
    return lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=total, cycle_momentum=False, **given)


def rates(optimizer: torch.optim.Optimizer, scheduler: Any, count: int) -> Iterator[float]:
    """The learning rates of this many ticks of torch's scheduler."""
    for tick in range(count):
        yield float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if tick < count - 1:
            scheduler.step()


def expected_rates(kind: str, given: dict[str, Any], lr: float, total: int) -> list[float]:
    optimizer = optimizer_at(lr)
    return list(rates(optimizer, peer_of(kind, given, optimizer, total), total))


def test_every_schedule_has_a_peer() -> None:
    assert {*KINDS, "reduce_on_plateau"} == set(SCHEDULES)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data(), lr=LR, run=RUNS)
def test_against_torch(kind: str, data: st.DataObject, lr: float, run: RunLength) -> None:
    given = data.draw(arguments(kind))
    schedule = make(kind, given)
    in_epochs = given.get("unit") == "epochs"
    expected = expected_rates(kind, given, lr, run.epochs if in_epochs else run.steps)
    found = [schedule(lr, step, run) for step in range(run.steps)]
    wanted = [expected[step // run.steps_per_epoch if in_epochs else step] for step in range(run.steps)]
    assert found == pytest.approx(wanted, rel=1e-9)
    ledger.drawn["schedule"] += 1
    error = max(abs(a - b) / b if b else abs(a) for a, b in zip(found, wanted, strict=True))
    ledger.check("schedule", "float64 vs torch", {kind: error})


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data(), lr=LR, warmup=st.integers(1, 6), run=RUNS)
def test_warmup_goes_before_the_schedules_own_clock(
    kind: str, data: st.DataObject, lr: float, warmup: int, run: RunLength
) -> None:
    """Torch's LinearLR, then torch's schedule from its beginning, over the epochs or steps that are left."""
    given = {**data.draw(arguments(kind)), **({"unit": "epochs"} if kind in ("step", "multi_step") else {})}
    if kind in ("cosine", "exponential"):
        given["unit"] = "steps"
    run = RunLength(run.steps_per_epoch, run.epochs + warmup)  # a run longer than warm-up
    schedule = make(kind, {**given, "warmup_steps": warmup})
    left = run.steps - warmup
    own = expected_rates(kind, given, lr, left)
    start = optimizer_at(own[0])
    linear = lr_scheduler.LinearLR(start, start_factor=1 / (warmup + 1), total_iters=warmup)
    rising = list(rates(start, linear, warmup))
    assert [schedule(lr, step, run) for step in range(warmup)] == pytest.approx(rising, rel=1e-9)
    length = run.steps_per_epoch if given.get("unit") == "epochs" else 1
    for step in range(left):
        assert schedule(lr, warmup + step, run) == pytest.approx(own[step // length], rel=1e-9)


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own, in some versions
@settings(max_examples=40)
@given(lr=LR, warmup=st.integers(1, 6), left=st.integers(1, 20))
def test_warmup_against_sequential(lr: float, warmup: int, left: int) -> None:
    optimizer = optimizer_at(lr)
    linear = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=left)
    peer = lr_scheduler.SequentialLR(optimizer, [linear, cosine], milestones=[warmup])
    schedule = make("cosine", {"warmup_steps": warmup})
    run = RunLength(1, warmup + left)
    found = [schedule(lr, step, run) for step in range(run.steps)]
    expected = list(rates(optimizer, peer, run.steps))
    assert found == pytest.approx(expected, rel=1e-9)


@settings(max_examples=100)
@given(
    lr=LR,
    losses=st.lists(st.floats(0, 2) | st.sampled_from([1.0, 0.999, math.nan, math.inf]), max_size=40),
    factor=st.floats(0.05, 0.95),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    cooldown=st.integers(0, 3),
    min_lr=st.floats(0, 0.1),
    mode=st.sampled_from(["min", "max"]),
)
def test_plateau_against_torch(lr: float, losses: list[float], mode: Any, **given: Any) -> None:
    """A value of which higher is better is observed negated; in torch the mode says so."""
    optimizer = optimizer_at(lr)
    peer = lr_scheduler.ReduceLROnPlateau(optimizer, mode, eps=0, **given)
    schedule = make("reduce_on_plateau", given)
    run = RunLength(3, 50)
    for epoch, loss in enumerate(losses):
        for step in range(3):
            assert schedule(lr, 3 * epoch + step, run) == pytest.approx(peer.get_last_lr()[0], rel=1e-9)
        peer.step(loss)
        schedule.observe(loss if mode == "min" else -loss)
        resumed = make("reduce_on_plateau", given)
        resumed.load_state(schedule.state())
        schedule = resumed
    assert schedule(lr, 0, run) == pytest.approx(peer.get_last_lr()[0], rel=1e-9)


def test_an_epoch_lasts_its_steps() -> None:
    run = RunLength(steps_per_epoch=4, epochs=3)
    schedule = make("exponential", {"rate": -0.08, "min_lr": 0.0095})
    found = [schedule(0.01, step, run) for step in range(12)]
    assert found == [0.01] * 4 + [max(0.0095, 0.01 * math.exp(-0.08))] * 4 + [0.0095] * 4
    warming = make("exponential", {"rate": -0.08, "warmup_steps": 2})
    assert [warming(0.01, step, run) for step in (1, 2, 5, 6)] == pytest.approx(
        [0.01 * 2 / 3, 0.01, 0.01, 0.01 * math.exp(-0.08)]
    )


def test_a_rate_beyond_all_bounds_is_infinite() -> None:
    run = RunLength(1, 1000)
    assert make("exponential", {"rate": 1.0})(0.1, 999, run) == math.inf
    assert make("step", {"step_size": 1, "gamma": 1e10})(0.1, 999, run) == math.inf


@pytest.mark.parametrize("kind", SCHEDULES)
def test_states(kind: str) -> None:
    """Only what was observed is state; a state that isn't the schedule's own is refused."""
    schedule = make(kind, {})
    before = schedule.state()
    schedule.observe(1.0)
    assert (schedule.state() == before) == (kind != "reduce_on_plateau")
    schedule.load_state(before)
    assert schedule.state() == before
    with pytest.raises(ValueError, match=f"doesn't fit {kind}"):
        schedule.load_state({"more": 1})
