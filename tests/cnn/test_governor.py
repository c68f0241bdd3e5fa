"""The governor of threads on simulated machines, whose time is counted and not waited for."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from cnn.ops import governor, threads
from cnn.ops.governor import Governor


class Machine:
    """A clock that goes on by what a step takes, with the threads in use and with or without other programs."""

    def __init__(self, cores: int, step: float, shared: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cores, self.step, self.shared = cores, step, shared
        self.now, self.threads, self.busy = 0.0, cores, 0
        self.random = random.Random(0)
        monkeypatch.setattr(threads, "use", self._use)
        self.governor = Governor(cores, lambda: self.now)

    def _use(self, count: int) -> None:
        self.threads = count

    def take(self) -> None:
        """A step: `shared` of it is split among threads; without a core for each, they wait for time slices of 4 ms."""
        seconds = self.step * (1 - self.shared + self.shared / self.threads)
        if self.threads > self.cores - self.busy:
            seconds += sum(self.random.uniform(0, 0.004) for _ in range(8))
        elif self.busy:
            seconds *= self.random.choice([1, 1, 1, 1.2, 1.2, 3])
        self.now += seconds

    def steps(self, seconds: float) -> float:
        """Steps for a while; returns how many were taken in a second."""
        start, count = self.now, 0
        while self.now - start < seconds:
            self.governor(self.take)
            count += 1
        return count / (self.now - start)

    def rate(self, count: int) -> float:
        """Steps in a second with a fixed number of threads."""
        start, self.threads = self.now, count
        for _ in range(500):
            self.take()
        return 500 / (self.now - start)


Make = Callable[..., Machine]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda cores=2, step=0.001, shared=0.9: Machine(cores, step, shared, monkeypatch)


@pytest.mark.parametrize("cores", [2, 4, 16])
@pytest.mark.parametrize("step", [0.0003, 0.001, 0.03])
def test_all_cores_of_a_quiet_machine_are_used(cores: int, step: float, machine: Make) -> None:
    one = machine(cores, step)
    best = one.rate(cores)
    one.steps(3)
    assert one.steps(10) > 0.95 * best


@pytest.mark.parametrize("step", [0.0003, 0.001, 0.03])
@pytest.mark.parametrize(("cores", "busy", "fewer"), [(2, 1, 1), (4, 1, 3), (4, 3, 1), (16, 1, 15)])
def test_busy_cores_are_left_alone(cores: int, busy: int, fewer: int, step: float, machine: Make) -> None:
    one = machine(cores, step)
    one.steps(3)
    one.busy = busy
    best, unyielding = one.rate(fewer), one.rate(cores)
    one.steps(3)
    assert one.steps(20) > max(0.85 * best, 0.95 * unyielding)


def test_cores_are_used_again_soon_after_others_have_left_them(machine: Make) -> None:
    one = machine()
    one.busy = 1
    one.steps(30)
    one.busy = 0
    one.steps(1.2)
    assert one.steps(0.5) > 0.95 / (0.001 * 0.55)


def test_work_that_threads_slow_down_runs_on_one(machine: Make) -> None:
    one = machine(4, 0.001, -0.3)
    best = one.rate(1)
    one.steps(2)
    assert one.steps(10) > 0.9 * best


def test_changes_that_last_are_logged(machine: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", governor.__name__)
    one = machine()
    one.steps(5)
    assert not caplog.messages
    one.busy = 1
    one.steps(5)
    one.busy = 0
    one.steps(5)
    first, last = caplog.messages
    assert first.startswith("1 of 2 threads: a step takes ")
    assert last.startswith("2 of 2 threads")
