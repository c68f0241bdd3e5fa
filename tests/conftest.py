from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is loaded: several workers share the cores, and none may wait for its threads by keeping a core busy.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hydra._internal.hydra import Hydra
from hypothesis import settings

from cnn import ops
from cnn.ops import memory
from tests.cnn import ledger
from tests.forks import Forked
from tools.small_runs import given_mode

# Kernels compile at their first use, so no example may be timed.
settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=400)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=["compiled", "reference"])
def kernel_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test once on each set of kernels."""
    with ops.kernels(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def kernels_of_a_run_end_with_it() -> Iterator[None]:
    """A run in this process chooses its kernels for the process."""
    with ops.kernels("compiled"):
        yield


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hydra, "get_mode", given_mode)


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's figures take longer than a small run: only tests that are marked `figures` have them drawn."""
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr("runners.training.experiment._draw", lambda *arguments: None)


@pytest.fixture(autouse=True, scope="module")
def idle_memory_given_back() -> Iterator[None]:
    """Tests draw tensors of thousands of sizes, and what is kept of each would fill two gigabytes."""
    yield
    memory.empty_cache()


@pytest.fixture
def forked() -> Iterator[Callable[..., Forked]]:
    """Starts commands as `Forked` does, and ends what a test that failed has left running."""
    started: list[Forked] = []

    def start(*arguments: Any, **streams: Any) -> Forked:
        started.append(Forked(*arguments, **streams))
        return started[-1]

    yield start
    for process in started:
        process.end()


COMPILING = (
    "test_capture.py",
    "test_fusion.py",
    "test_layers.py",
    "test_memory.py",
    "test_ops.py",
    "test_shared_batch.py",
)
"""Tests of tests/cnn that share many kernels, which one worker compiles while the other does something else."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in COMPILING and item.path.parent.name == "cnn":
            item.add_marker(pytest.mark.xdist_group("kernels"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands what its tests found to the process that prints it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ledger"] = ledger.pages()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    ledger.add(*getattr(node, "workeroutput", {}).get("ledger", ({}, {})))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of gradients: how many cases each family was tried on, and its worst relative errors."""
    if ledger.drawn:
        terminalreporter.section("gradients: cases drawn and worst relative errors (build/gradients.md)")
        for line in ledger.table():
            terminalreporter.write_line(line)
        folder = Path(__file__).parents[1] / "build"
        folder.mkdir(exist_ok=True)
        (folder / "gradients.md").write_text("\n".join(ledger.table()) + "\n", encoding="utf-8")
