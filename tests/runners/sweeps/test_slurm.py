"""Job arrays, preemption, and a sweep that dies while its jobs go on, with programs that do what slurm's do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from runners.files.status import state
from tests.optional import needs
from tests.runners.cli.test_processes import command
from tests.runners.sweeps import fake_slurm
from tests.runners.sweeps.statuses import statuses
from tests.runners.sweeps.test_clusters import GRID, is_saved
from tests.runners.sweeps.test_kills import processes, start, wait_until
from tools.small_runs import outcome

pytestmark = [pytest.mark.optional, pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.time=30", "hydra.launcher.memory=2GB", "hydra.launcher.partition=cpu"]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the jobs that are waiting or running have a file each."""
    needs("submitit", extra="slurm")
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "slurm" / "state"


def waiting(queue: Path) -> set[str]:
    return {path.name for path in queue.iterdir() if not path.suffix}


def test_an_array_that_is_preempted(queue: Path, striped: Path, tmp_path: Path) -> None:
    """Slurm's signal makes a job save; it goes on once slurm has started it again, to the same bits."""
    sweep = tmp_path / "sweep"
    process = start(command(striped, *GRID, *SLURM, "jobs=1", f"sweep_dir={sweep}"), tmp_path)
    wait_until(lambda: is_saved(sweep, ["0"]) or process.poll() is not None)
    text = (queue / "100.sh").read_text()
    flags = ["array=0-1%1", "time=30", "mem=2048MB", "partition=cpu", "cpus-per-task=1", "job-name=sweep"]
    for line in (*flags, "signal=USR2@90", "open-mode=append", "requeue"):
        assert f"#SBATCH --{line}\n" in text
    assert json.loads((sweep / "slurm" / "jobs.json").read_text()) == {"0": "100_0", "1": "100_1"}
    os.kill(int((queue / "100_0.pid").read_text()), signal.SIGUSR2)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.count("val accuracy") == 2
    assert "interrupted by SIGTERM; the state is saved" in (sweep / "0" / "run.log").read_text()
    assert waiting(queue) == set()
    whole = start(command(striped, *GRID, "jobs=2", f"sweep_dir={tmp_path / 'whole'}"), tmp_path)
    assert whole.communicate()[1] == ""
    for job in ("0", "1"):
        assert outcome(sweep / job) == outcome(tmp_path / "whole" / job)


def test_a_sweep_that_dies_leaves_its_jobs_to_slurm(queue: Path, striped: Path, tmp_path: Path) -> None:
    """The next start waits for them, and submits nothing again."""
    sweep = tmp_path / "sweep"
    given = [*(text for text in GRID if not text.startswith("epochs=")), "epochs=100", *SLURM, f"sweep_dir={sweep}"]
    process = start(command(striped, *given), tmp_path)
    wait_until(lambda: is_saved(sweep) or process.poll() is not None)
    process.kill()
    process.communicate()
    assert processes(sweep)
    again = start(command(striped, *given), tmp_path)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert "the cluster is still busy with jobs of an earlier start, and is waited for: 0, 1" in err
    assert [path.name for path in queue.glob("*.sh")] == ["100.sh"]
    assert {state for state, _ in statuses(sweep).values()} == {"done"}
    assert "interrupted" not in (sweep / "0" / "run.log").read_text()


def test_a_signal_takes_the_jobs_back(queue: Path, striped: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    process = start(command(striped, *GRID, *SLURM, "jobs=1", f"sweep_dir={sweep}"), tmp_path)
    wait_until(lambda: is_saved(sweep, ["0"]) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == f"interrupted by SIGINT; continue with python run.py -m resume={sweep}\n"
    assert waiting(queue) == set()
    assert processes(sweep) == {}
    assert state(sweep / "0") == "interrupted"
    assert not (sweep / "1").exists()


def test_what_slurm_refuses(queue: Path, striped: Path, tmp_path: Path) -> None:
    given = [*SLURM[:-1], "hydra.launcher.partition=none", "sweep_dir=swept"]
    done = subprocess.run(command(striped, *GRID, *given), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    error = "sbatch: error: invalid partition specified: none"
    assert done.stderr.splitlines() == [error, f"error: hydra/launcher: these jobs can't be submitted: {error}"]
    assert not (tmp_path / "swept").exists()


def test_a_job_that_ends_without_a_word(queue: Path, striped: Path, tmp_path: Path) -> None:
    """Such as one whose process is killed before it has a directory."""
    given = [*SLURM, "hydra.launcher.setup=['echo no such module >&2','exit 1']", "sweep_dir=swept"]
    done = subprocess.run(command(striped, *GRID, *given), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    for job, (ended, reason) in statuses(tmp_path / "swept").items():
        assert ended == "failed"
        assert str(reason).startswith(f"slurm's job 100_{job} has ended: no such module (see ")
