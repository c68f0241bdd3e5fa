"""Sweeps: one job's fault is its own, its directory says why, and the exit code says that there was one."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
import yaml

from runners.sweeps import process
from runners.sweeps.pool import Pool
from tests.runners.conftest import Run
from tests.runners.sweeps.statuses import statuses

UNLUCKY = Path(__file__).with_name("unlucky.py")
SEED = "seed: -1 is not allowed, give a whole number >= 0 and <= 9223372036854775807"
NO_DATA = "data.path: there is no directory /nowhere"


def failing(how: str, times: int = 1_000_000) -> list[str]:
    """The overrides of a network that fails while it trains, or of several."""
    layers = f"[flatten,{{unlucky:{{how:${{model.how}},times:{times}}}}},{{linear:{{out_features:3}}}}]"
    return [f"extensions=[{UNLUCKY}]", f"model.layers={layers}", f"model.how={how}", "epochs=1", "sweep_dir=swept"]


def test_jobs_of_every_end(run: Run, striped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some that are done, some with a fault in the config, without data, and that break down in mid-run."""
    assert run("-m", f"data.path={striped},/nowhere", "seed=-1,1", *failing("'out of luck',fine")) == 1
    luck, no_data = "RuntimeError: out of luck", ("failed", NO_DATA)
    bad_seed, states = ("failed", SEED), statuses("swept")
    ends = [bad_seed, bad_seed, ("failed", luck), ("done", None), bad_seed, bad_seed, no_data, no_data]
    assert [*states.values()] == ends
    assert "data.path=/nowhere" in yaml.safe_load(Path("swept/4/overrides.yaml").read_text())
    assert "Traceback" in Path("swept/2/run.log").read_text()
    assert "out of luck" in Path("swept/2/output.log").read_text()
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"error: job 0: {SEED}",
        f"error: job 1: {SEED}",
        f"error: job 2: the run failed: {luck} (traceback in swept/2/run.log)",
        f"error: job 4: {SEED}",
        f"error: job 5: {SEED}",
        f"error: job 6: {NO_DATA}",
        f"error: job 7: {NO_DATA}",
    ]
    rows = out.splitlines()
    assert rows[1].split(maxsplit=3)[1:] == [
        f"data.path={striped}",
        "seed=-1",
        f"model.how='out of luck'  failed: {SEED}",
    ]
    assert rows[4].split(maxsplit=4)[4].startswith("val accuracy ")
    assert out.splitlines()[-1] == "sweep directory swept"


def test_bad_input_alone_gives_its_exit_code(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "optimizer.lr=0.1,nan", "epochs=1") == 2
    (sweep,) = Path("outputs/sweeps").glob("*/*")
    problem = "optimizer.lr: nan is not allowed, give a number > 0"
    assert statuses(sweep) == {"0": ("done", None), "1": ("failed", problem)}
    assert capsys.readouterr().err == f"error: job 1: {problem}\n"


def test_what_kills_a_job_is_recorded(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *failing("killed,fine")) == 1
    reason = "killed by SIGKILL, perhaps for want of memory"
    assert statuses("swept") == {"0": ("failed", reason), "1": ("done", None)}
    out, err = capsys.readouterr()
    assert err == f"error: job 0: {reason}\n"
    assert out.splitlines()[1].endswith(f"failed: {reason}")


def test_what_fails_is_tried_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "retry=2", *failing("killed,fine", times=2)) == 0
    assert statuses("swept") == {"0": ("done", None), "1": ("done", None)}
    _, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [
        "note: job 0 is tried again, 1 of 2 times",
        "note: job 0 is tried again, 2 of 2 times",
    ]
    assert len(Path("failures").read_text()) == 2


@pytest.mark.parametrize(("more", "tried"), [(["optimizer=sgd", "optimizer.lr=1e30"], 1), (["seed=-1"], 1)])
def test_what_would_fail_again_is_not_tried_again(more: list[str], tried: int, run: Run) -> None:
    """A run that diverges, and bad input."""
    assert run("-m", "epochs=1", "retry=2", "sweep_dir=swept", *more) in (1, 2)
    assert statuses("swept")["0"][0] == "failed"
    assert Path("swept/0/output.log").read_text().count("error: ") == tried


def test_a_failure_can_stop_a_sweep(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "stop_on_failure=true", *failing("fine,bad,fine")) == 1
    assert {job: state for job, (state, _) in statuses("swept").items()} == {"0": "done", "1": "failed"}
    assert capsys.readouterr().out.splitlines()[3].endswith("  not started")


def test_a_signal_while_a_job_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = Pool._start

    def start(pool: Pool, *arguments: object) -> None:
        sound(pool, *arguments)  # type: ignore[arg-type]
        if Path("swept/1/metrics.csv").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Pool, "_start", start)
    assert run("-m", "epochs=1,1000000,1", "sweep_dir=swept") == 143
    assert statuses("swept") == {"0": ("done", None), "1": ("interrupted", "SIGTERM")}
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "interrupted by SIGTERM; continue with python run.py -m resume=swept"
    assert [line.split(maxsplit=2)[2] for line in out.splitlines()[2:4]] == ["interrupted: SIGTERM", "not started"]


def test_a_full_disk_ends_a_sweep(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = process.start

    def start(command: list[str], folder: Path, output: int) -> process.Process:
        if "run_dir=swept/1" in command:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "swept/1.log")
        return sound(command, folder, output)

    monkeypatch.setattr(process, "start", start)
    assert run("-m", "seed=1,2,3", "epochs=1", "sweep_dir=swept") == 1
    out, err = capsys.readouterr()
    again = "continue with python run.py -m resume=swept"
    assert err == f"error: the sweep ended: swept/1.log: No space left on device; {again}\n"
    assert [line.split()[2] for line in out.splitlines()[1:4]] == ["val", "not", "not"]


def test_reports_leave_no_directory(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "debug=summary", "data=mnist", "model=seed8", "model.width=0,2") == 2
    out, err = capsys.readouterr()
    assert err == "error: job 0: model.width: 0 is not allowed, give a whole number >= 1\n"
    assert out.startswith("job 1\nlayer ")
    assert out.splitlines()[-1] == "  1  model.width=2  done"
    assert list(Path().iterdir()) == []


def test_a_directory_that_is_something_else_is_left_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("swept").mkdir()
    assert run("-m", "seed=0,1", "sweep_dir=swept") == 2
    assert capsys.readouterr().err == "error: sweep_dir: swept already exists, choose another or remove it\n"
    assert list(Path("swept").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["-m", "jobs=0"], "jobs: 0 is not allowed, give a whole number >= 1"),
        (["-m", "retry=-1"], "retry: -1 is not allowed, give a whole number >= 0"),
        (["-m", "stop_on_failure=yes"], "stop_on_failure: 'yes' is not allowed, give true or false"),
        (["-m", "jobs=1,2"], "jobs: 1,2 is more than one value, give one"),
        (["jobs=2"], "jobs: is only used by a sweep (-m)"),
    ],
    ids=" ".join,
)
def test_settings_of_a_sweep(given: list[str], problem: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*given) == 2
    assert capsys.readouterr().err == f"error: {problem}\n"
    assert list(Path().iterdir()) == []


def test_a_job_is_a_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs share the cores, and what is given for all or for one is passed on as it was typed."""
    commands, sound = [], process.start

    def start(command: list[str], folder: Path, output: int) -> process.Process:
        commands.append(command)
        return sound(command, folder, output)

    monkeypatch.setattr(process, "start", start)
    monkeypatch.setattr("runners.cli.sweep.available_threads", lambda: 4)
    assert run("-m", "jobs=3", "epochs=1", "name='one, two'", "sweep_dir=swept", "seed=1,2", "threads=1") == 0
    for number, command in enumerate(commands):
        assert command[1:3] == ["-m", "runners.train"]
        assert command[-1] == f"run_dir=swept/{number}"
        assert f"seed={number + 1}" in command
        assert 'name="one, two"' in command or "name='one, two'" in command
