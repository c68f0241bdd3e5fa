"""What a terminal shows of a sweep."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from tests.forks import Forked
from tests.runners.cli.test_processes import command, on_a_terminal
from tests.runners.sweeps.test_kills import SLOWLY


def test_a_bar_for_each_running_job(forked: Callable[..., Forked], striped: Path, tmp_path: Path) -> None:
    sweep = command(striped, "-m", "seed=1,2,3", "sweep_dir=swept", *SLOWLY)
    shown = on_a_terminal(functools.partial(forked, sweep, tmp_path))
    for seed in (1, 2, 3):
        assert f"job {seed - 1} seed={seed}: starting" in shown
        assert f"job {seed - 1}  seed={seed}  val accuracy" in shown
    assert "/6 epochs" in shown
    assert "sweep: 100%" in shown or "2/3" in shown
