"""Sweeps whose jobs others start: submitit, Ray, and Hydra's launcher for joblib. In real processes and their ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from benchmarks import sweeps
from runners.files.status import state
from tests.optional import needs
from tests.runners.cli.test_processes import ROOT, command
from tests.runners.sweeps.statuses import statuses
from tests.runners.sweeps.test_kills import SLOW, processes, start, wait_until
from tests.runners.sweeps.test_sweep import UNLUCKY, failing
from tools.small_runs import outcome

pytestmark = [pytest.mark.optional, pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")]
SLOWLY = [SLOW, f"extensions=[{UNLUCKY}]", "capture=false", "epochs=8", "checkpoint.every_steps=3"]
GRID = ["-m", "seed=1,2", *SLOWLY]
LAUNCHERS = {
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.cluster=local"],
    "ray": ["hydra/launcher=ray"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> list[str]:
    """The arguments that choose a launcher which runs two jobs at once."""
    if request.param == "joblib":
        needs("hydra_plugins.hydra_joblib_launcher", extra="joblib")
    else:
        needs({"slurm": "submitit"}.get(request.param, request.param), extra=request.param)
    return LAUNCHERS[request.param]


def is_saved(sweep: Path, jobs: Sequence[str] = ("0", "1")) -> bool:
    """Whether all jobs have saved a state."""
    return all((sweep / job / "checkpoints/last.pkl").exists() for job in jobs)


@cache
def undisturbed(striped: Path, folder: Path) -> Path:
    """The same jobs, run here."""
    done = start(command(striped, *GRID, "jobs=2", f"sweep_dir={folder / 'whole'}"), folder)
    assert done.communicate()[1] == ""
    return folder / "whole"


@pytest.fixture
def whole(striped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(striped, striped.parent)


def test_one_job_fails(launcher: list[str], striped: Path, tmp_path: Path) -> None:
    """The other one is done, the table has both, and the exit code says that one has failed."""
    process = start(command(striped, "-m", *failing("'out of luck',fine"), *launcher), tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1
    assert statuses(tmp_path / "swept") == {"0": ("failed", "RuntimeError: out of luck"), "1": ("done", None)}
    rows = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [row[0] for row in rows[-4:-1]] == ["job", "0", "1"]
    assert "failed: RuntimeError: out of luck" in rows[-3][1]
    assert rows[-2][1].split(maxsplit=1)[1].startswith("val accuracy ")
    assert "error: job 0: " in err
    assert "out of luck" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_and_going_on(
    number: signal.Signals, launcher: list[str], whole: Path, striped: Path, tmp_path: Path
) -> None:
    """Nothing is left running, the jobs are saved, and another launcher goes on with them, to the same bits."""
    sweep = tmp_path / "sweep"
    process = start(command(striped, *GRID, *launcher, f"sweep_dir={sweep}"), tmp_path)
    wait_until(lambda: is_saved(sweep) or process.poll() is not None)
    process.send_signal(number)
    _, err = process.communicate()
    assert processes(sweep) == {}
    assert process.returncode == 128 + number, err
    assert f"interrupted by {number.name}; continue with python run.py -m resume={sweep}\n" in err
    assert {state(sweep / job) for job in ("0", "1")} == {"interrupted"}
    extension = next(text for text in GRID if text.startswith("extensions"))
    again = [sys.executable, str(ROOT / "run.py"), "-m", f"resume={sweep}", extension, "hydra/launcher=local", "jobs=2"]
    done = start(again, tmp_path)
    _, err = done.communicate()
    assert done.returncode == 0, err
    for job in ("0", "1"):
        assert outcome(sweep / job) == outcome(whole / job)


def test_the_parent_is_killed(launcher: list[str], whole: Path, striped: Path, tmp_path: Path) -> None:
    """The jobs save their state and end; the next start goes on with them, to the same bits."""
    sweep = tmp_path / "sweep"
    process = start(command(striped, *GRID, *launcher, f"sweep_dir={sweep}"), tmp_path)
    wait_until(lambda: is_saved(sweep) or process.poll() is not None)
    process.kill()
    wait_until(lambda: not processes(sweep), seconds=20)
    process.communicate()
    assert {state(sweep / job) for job in ("0", "1")} == {"interrupted"}
    again = start(command(striped, *GRID, *launcher, f"sweep_dir={sweep}"), tmp_path)
    _, err = again.communicate()
    assert again.returncode == 0, err
    for job in ("0", "1"):
        assert outcome(sweep / job) == outcome(whole / job)


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_stop_on_failure_and_retry(name: str, striped: Path, tmp_path: Path) -> None:
    needs({"slurm": "submitit"}.get(name, name), extra=name)
    given = [*LAUNCHERS[name], "jobs=1", "retry=1", "stop_on_failure=true"]
    process = start(command(striped, "-m", *failing("bad,fine", times=2), *given), tmp_path)
    out, _ = process.communicate()
    assert process.returncode == 1
    assert statuses(tmp_path / "swept") == {"0": ("failed", "RuntimeError: bad")}
    assert out.splitlines()[-2].endswith("  not started")
    assert (tmp_path / "failures").read_text() == "xx"


def test_reports_are_printed_here(striped: Path, tmp_path: Path) -> None:
    needs("submitit", extra="slurm")
    given = ["-m", "debug=summary", "seed=1,2", *LAUNCHERS["slurm"]]
    done = subprocess.run(command(striped, *given), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("job 0\nlayer ")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_launcher_computes_the_same_bits(tmp_path: Path) -> None:
    """A sweep of 8 jobs with all launchers, and the exit code 0 of each."""
    needs("ray", extra="ray")
    needs("submitit", extra="slurm")
    needs("hydra_plugins.hydra_joblib_launcher", extra="joblib")
    given = ["data.num_examples=300", "data.val_examples=100", "epochs=1"]
    rows = sweeps.compared(tmp_path, [*sweeps.LAUNCHERS], given)
    assert [row["same_bits"] for row in rows] == [True] * len(sweeps.LAUNCHERS)
