"""A sweep that is killed, in real processes: nothing is lost, nothing is trained twice, and nothing is left running."""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runners.files.status import state
from tests.runners.cli.test_processes import command
from tests.runners.sweeps.test_sweep import UNLUCKY
from tools.small_runs import outcome

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
KILLS = 20
SLOW = "model.layers=[flatten,{slow:{seconds:0.02}},{linear:{out_features:3}}]"
SLOWLY = [SLOW, f"extensions=[{UNLUCKY}]", "capture=false", "epochs=6", "checkpoint.every_steps=3", "jobs=2"]
GRID = ["-m", "seed=1,2,3,4", "optimizer.lr=0.01,0.02,0.03", *SLOWLY]


def processes(sweep: Path) -> dict[int, str]:
    """The processes that work on a sweep, which has a path of its own."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(sweep) in words and int(folder.name) != os.getpid():
            found[int(folder.name)] = words
    return found


def kill(numbers: list[int]) -> None:
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_training(process: subprocess.Popen[str], sweep: Path) -> bool:
    """Whether a sweep has started jobs, or has ended."""
    return process.poll() is not None or len(processes(sweep)) == 3


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_at_twenty_moments_and_started_again(striped: Path, tmp_path: Path) -> None:
    whole, sweep = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(command(striped, *GRID, f"sweep_dir={whole}"), tmp_path)
    assert undisturbed.communicate()[1] == ""
    chance, kills = random.Random(1), 0
    while True:
        process = start(command(striped, *GRID, f"sweep_dir={sweep}"), tmp_path)
        if kills % 4:  # every fourth kill is at any moment of the start
            wait_until(functools.partial(is_training, process, sweep))
        end = time.monotonic() + chance.uniform(0.3, 6) if kills < KILLS else float("inf")
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        done = {log: log.read_bytes() for log in sweep.glob("*/run.log") if state(log.parent) == "done"}
        everything = [*processes(sweep)]
        chance.shuffle(everything)
        kill(everything)
        process.communicate()
        kills += 1
        wait_until(lambda: not processes(sweep))
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 1 + 12 + 1
    print(f"{kills} kills, the last of which left {len(done)} of 12 jobs done")
    for log, content in done.items():
        assert log.read_bytes() == content
    for job in range(12):
        assert outcome(sweep / str(job)) == outcome(whole / str(job))
        epochs = re.findall(r"epoch (\d+)/", (sweep / str(job) / "run.log").read_text())
        assert len(set(epochs)) == len(epochs)
    assert kills > KILLS // 2, "the grid was done before it could be killed often"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_signal_leaves_nothing_running(number: signal.Signals, striped: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    process = start(command(striped, *GRID, f"sweep_dir={sweep}"), tmp_path)
    wait_until(lambda: all((sweep / str(job) / "checkpoints/last.pkl").exists() for job in (0, 1)))
    running = processes(sweep)
    assert len(running) == 3
    assert len({os.getpgid(child) for child in running}) == 3
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert processes(sweep) == {}
    assert err == f"interrupted by {number.name}; continue with python run.py -m resume={sweep}\n"
    assert {state(sweep / job) for job in ("0", "1")} == {"interrupted"}


def test_jobs_end_with_the_process_that_started_them(striped: Path, tmp_path: Path) -> None:
    """They save their state; a sweep that is started again meanwhile waits for them."""
    sweep = tmp_path / "sweep"
    grid = [argument.replace("1,2,3,4", "1").replace("0.01,0.02,0.03", "0.01,0.02") for argument in GRID]
    process = start(command(striped, *grid, f"sweep_dir={sweep}"), tmp_path)
    wait_until(lambda: all((sweep / str(job) / "checkpoints/last.pkl").exists() for job in (0, 1)))
    process.kill()
    process.communicate()
    again = start(command(striped, *grid, f"sweep_dir={sweep}"), tmp_path)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert out.count("val accuracy") == 2
    for job in ("0", "1"):
        assert "interrupted by SIGTERM; the state is saved" in (sweep / job / "run.log").read_text()
        assert (sweep / job / "output.log").read_text().startswith("data: ")
    assert sys.executable in str(again.args)
