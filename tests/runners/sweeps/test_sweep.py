"""Sweeps: one job's fault is its own, its directory tells why, and the exit code says that there was one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from runners.data.sources.idx import Idx
from runners.training import loop, setup
from tests.runners.conftest import Run

SEED = "seed: -1 is not allowed, give a whole number >= 0 and <= 9223372036854775807"
NO_DATA = "data.path: there is no directory /nowhere"


def statuses(sweep: str) -> dict[str, tuple[str, str | None]]:
    """State and reason of each job."""
    read = {job.name: json.loads((job / "status.json").read_text()) for job in sorted(Path(sweep).iterdir())}
    return {job: (status["state"], status["reason"]) for job, status in read.items()}


def test_jobs_of_every_end(
    run: Run, striped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is done, two with a fault in the config, two without data, and one that breaks down in mid-run."""
    real = loop.Loop.run

    def unlucky(self: loop.Loop) -> None:
        if self.plan.seed == 0:
            raise RuntimeError("out of luck")
        real(self)

    monkeypatch.setattr(loop.Loop, "run", unlucky)
    assert run("-m", f"data.path={striped},/nowhere", "seed=-1,0,1", "epochs=1", "sweep_dir=swept") == 1
    states = statuses("swept")
    assert {job: reason for job, (_, reason) in states.items()} == {
        "0": SEED,
        "1": "RuntimeError: out of luck",
        "2": None,
        "3": SEED,
        "4": NO_DATA,
        "5": NO_DATA,
    }
    assert [state for state, _ in states.values()] == ["failed", "failed", "done", "failed", "failed", "failed"]
    assert "data.path=/nowhere" in yaml.safe_load(Path("swept/3/overrides.yaml").read_text())
    assert "Traceback" in Path("swept/1/run.log").read_text()
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"error: job 0: {SEED}",
        "error: job 1: the run failed: RuntimeError: out of luck (traceback in swept/1/run.log)",
        f"error: job 3: {SEED}",
        f"error: job 4: {NO_DATA}",
        f"error: job 5: {NO_DATA}",
    ]
    rows = [line.split(maxsplit=3) for line in out.splitlines()]
    assert [row[:3] for row in rows[1:4]] == [
        [str(job), f"data.path={striped}", f"seed={seed}"] for job, seed in enumerate((-1, 0, 1))
    ]
    assert rows[1][3] == f"failed: {SEED}"
    assert rows[3][3].startswith("val accuracy ")
    assert out.splitlines()[-1] == "sweep directory swept"


def test_bad_input_alone_gives_its_exit_code(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "optimizer.lr=0.1,nan", "epochs=1") == 2
    (sweep,) = Path("outputs/sweeps").glob("*/*")
    problem = "optimizer.lr: nan is not allowed, give a number > 0"
    assert statuses(str(sweep)) == {"0": ("done", None), "1": ("failed", problem)}
    assert capsys.readouterr().err == f"error: job 1: {problem}\n"


def test_what_nobody_foresaw_is_a_failure_of_its_job_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = setup.build

    def build(config: Any, dataset: Any) -> Any:
        return real(config, dataset) if config.settings.seed else 1 / 0

    monkeypatch.setattr(setup, "build", build)
    assert run("-m", "seed=0,1", "epochs=1", "sweep_dir=swept") == 1
    assert statuses("swept") == {"0": ("failed", "ZeroDivisionError: division by zero"), "1": ("done", None)}
    assert "Traceback" in capsys.readouterr().err


def test_a_signal_while_data_are_read_ends_the_sweep_and_marks_the_job(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Idx.read

    def read(source: Idx) -> Any:
        if source.split_seed == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(source)

    monkeypatch.setattr(Idx, "read", read)
    assert run("-m", "data.split_seed=0,1,2", "epochs=0,1", "sweep_dir=swept") == 130
    assert [state for state, _ in statuses("swept").values()] == ["failed", "done", "failed", "interrupted"]
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "interrupted by SIGINT"
    assert out.splitlines()[4].endswith("interrupted: SIGINT")


def test_a_signal_between_two_jobs(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, asked = HydraConfig.get, list[int]()

    def get() -> Any:
        asked.append(1)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return sound()

    monkeypatch.setattr(HydraConfig, "get", staticmethod(get))
    assert run("-m", "sweep_dir=swept", "seed=1,2", "epochs=1") == 143
    out, err = capsys.readouterr()
    assert err == "interrupted by SIGTERM\n"
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [["job", "overrides"], ["0", "data=idx"]]
    assert [job.name for job in Path("swept").iterdir()] == ["0"]


def test_reports_leave_no_directory(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "debug=summary", "data=mnist", "model=seed8", "model.width=0,2") == 2
    out, err = capsys.readouterr()
    assert err == "error: job 0: model.width: 0 is not allowed, give a whole number >= 1\n"
    assert out.startswith("job 1\nlayer ")
    assert out.splitlines()[-1] == "  1  model.width=2  done"
    assert list(Path().iterdir()) == []


def test_a_directory_that_is_there_already_is_left_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("swept").mkdir()
    assert run("-m", "seed=0,1", "sweep_dir=swept") == 2
    assert capsys.readouterr().err == "error: sweep_dir: swept already exists, choose another or remove it\n"
    assert list(Path("swept").iterdir()) == []
