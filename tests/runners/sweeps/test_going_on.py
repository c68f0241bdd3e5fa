"""A sweep that goes on: what is done stays, the rest is resumed to the same bits, and what failed runs again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.files.run_directory import RunDirectory
from runners.sweeps.pool import Pool
from tests.runners.conftest import Run
from tests.runners.sweeps.statuses import statuses
from tests.runners.sweeps.test_sweep import UNLUCKY, failing
from tools.small_runs import outcome

SLOW = "model.layers=[flatten,{slow:{seconds:0.01}},{linear:{out_features:3}}]"
GRID = ["-m", "seed=1,2,3", "epochs=5", "capture=false", SLOW, f"extensions=[{UNLUCKY}]"]


def interrupted(run: Run, monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    """A sweep of three jobs that gets a signal while its second job trains."""
    sound = Pool._start

    def start(pool: Pool, *arguments: Any) -> None:
        sound(pool, *arguments)
        if Path("swept/1/metrics.csv").exists():
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_start", start)
        assert run(*GRID, "sweep_dir=swept", *given) == 130


EXTENSION = f"extensions=[{UNLUCKY}]"


@pytest.mark.parametrize("again", [["sweep_dir=swept"], ["-m", "resume=swept", EXTENSION]], ids=["command", "resume"])
def test_an_interrupted_sweep_goes_on(
    again: list[str],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*GRID, "sweep_dir=whole", "jobs=2") == 0
    interrupted(run, monkeypatch)
    assert {job: state for job, (state, _) in statuses("swept").items()} == {"0": "done", "1": "interrupted"}
    assert capsys.readouterr().err.splitlines()[-1].endswith("continue with python run.py -m resume=swept")
    done = Path("swept/0/run.log").read_bytes()
    commands.clear()
    assert (bare(*again) if "-m" in again else run(*GRID, *again)) == 0
    assert [command[0] for command in commands] == ["resume=swept/1", commands[1][0]]
    assert commands[1][-1] == "run_dir=swept/2"
    assert Path("swept/0/run.log").read_bytes() == done
    for job in range(3):
        assert outcome(f"swept/{job}") == outcome(f"whole/{job}")
    assert "note: 1 of 3 jobs are done already" in capsys.readouterr().err
    assert len(yaml.safe_load(Path("swept/sweep.yaml").read_text())["continued"]) == 1


def bare(*arguments: str) -> int:
    """run.py's command with nothing added to it."""
    from runners.cli import train

    return train.main(arguments)


def test_a_new_sweep_names_an_unfinished_one_of_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Path("outputs/sweeps/day/first")
    interrupted(run, monkeypatch)
    first.parent.mkdir(parents=True)
    Path("swept").rename(first)
    capsys.readouterr()
    assert run(*GRID, "debug=summary") == 0
    assert capsys.readouterr().err == ""
    again = f"python run.py -m resume={first}"
    note = f"note: {first} has jobs of this command left to do; to go on with them: {again}\n"
    monkeypatch.setattr(Pool, "run", lambda pool, jobs: None)
    assert run("-m", "jobs=2", *reversed(GRID[1:]), "retry=1") == 0
    assert capsys.readouterr().err == note
    assert bare("-m", "resume=auto", EXTENSION) == 130  # that of its interrupted job
    assert f"sweep directory {first}" in capsys.readouterr().out


def test_what_failed_runs_again(run: Run, commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *failing("bad,fine", times=1)) == 1
    assert run("-m", *failing("bad,fine", times=1)) == 0
    assert [command[-1] for command in commands[:2]] == ["run_dir=swept/0", "run_dir=swept/1"]
    assert [command[0] for command in commands[2:]] == ["resume=swept/0"]
    assert statuses("swept") == {"0": ("done", None), "1": ("done", None)}
    printed = Path("swept/0/output.log").read_text()
    assert printed.index("out of luck" if "out of luck" in printed else "bad") < printed.index("test accuracy")


def test_what_has_saved_something_is_resumed(run: Run, commands: list[list[str]]) -> None:
    """Also if the process was killed; its extensions are given again."""
    assert run("-m", *failing("killed", times=1)) == 1
    assert Path("swept/0/checkpoints/last.pkl").exists()
    assert run("-m", *failing("killed", times=1)) == 0
    assert commands[1] == ["resume=swept/0", EXTENSION]


def test_a_grid_that_changed(run: Run, commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1", "seed=1,2,3", "sweep_dir=swept") == 0
    commands.clear()
    assert run("-m", "epochs=1", "seed=3,5,1", "sweep_dir=swept", "jobs=2") == 0
    assert [command[-2:] for command in commands] == [["run_dir=swept/3", "threads=1"]] or "seed=5" in commands[0]
    out, err = capsys.readouterr()
    assert "note: 2 of 3 jobs are done already" in err
    assert "note: new jobs: 3" in err
    assert "jobs of earlier starts, no longer asked for: 1" in out
    assert [line.split()[:2] for line in out.splitlines()[-5:-2]] == [["0", "seed=1"], ["2", "seed=3"], ["3", "seed=5"]]
    assert yaml.safe_load(Path("swept/3/config.yaml").read_text())["seed"] == 5


def test_configs_and_code_that_changed(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path("configs/model")
    model.mkdir(parents=True)
    (model / "mine.yaml").write_text("layers: [flatten, {linear: {out_features: 3}}]\n")
    grid = ["-m", "model=mine", "epochs=1", "seed=1,2", "sweep_dir=swept"]
    assert run(*grid) == 0
    (model / "mine.yaml").write_text("layers: [flatten, relu, {linear: {out_features: 3}}]\n")
    content = yaml.safe_load(Path("swept/sweep.yaml").read_text())
    content["origin"]["commit"] = "0" * 40
    Path("swept/sweep.yaml").write_text(yaml.safe_dump(content))
    capsys.readouterr()
    assert run(*grid) == 0
    err = capsys.readouterr().err
    assert "differs from that of today: job 0: model.layers; job 1: model.layers" in err
    assert "warning: the code has changed since this sweep was last started: commit 000000000000" in err


def test_overrides_in_another_order_and_files_elsewhere(run: Run, tmp_path: Path, commands: list[list[str]]) -> None:
    """The jobs are the same ones: nothing is run again."""
    assert run("-m", *failing("fine"), "seed=1,2") == 0
    commands.clear()
    moved = tmp_path / "moved.py"
    moved.write_text(UNLUCKY.read_text())
    assert bare("-m", "resume=swept", f"extensions=[{moved}]") == 0
    assert run("-m", "seed=1,2", *failing("fine")) == 0
    assert commands == []


def test_a_job_that_can_not_be_resumed_has_failed(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its directory says of the time before."""
    interrupted(run, monkeypatch)
    for name in ("last", "previous"):
        Path(f"swept/1/checkpoints/{name}.pkl").write_bytes(b"junk")
    capsys.readouterr()
    assert bare("-m", "resume=swept", EXTENSION) == 2
    state, reason = statuses("swept")["1"]
    assert (state, str(reason)[:9]) == ("failed", "swept/1/c")
    assert "error: job 1: swept/1/checkpoints" in capsys.readouterr().err


def test_what_is_no_remains_of_a_run_is_left_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1", "seed=1,2,3", "sweep_dir=swept") == 0
    for job in ("0", "1"):
        shutil.rmtree(f"swept/{job}")
    Path("swept/0").mkdir()
    Path("swept/0/notes.txt").write_text("mine")
    Path("swept/1").symlink_to(Path("elsewhere").absolute())
    Path("elsewhere").mkdir()
    capsys.readouterr()
    assert bare("-m", "resume=swept") == 2
    assert Path("swept/0/notes.txt").read_text() == "mine"
    assert Path("swept/1").is_symlink()
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: job 0: swept/0 has nothing to resume from, but notes.txt: move it elsewhere",
        "error: job 1: swept/1 has nothing to resume from, but is a link: move it elsewhere",
    ]


def test_a_sweep_is_resumed_where_it_was_started(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "epochs=1", "seed=1,2", "sweep_dir=swept") == 0
    capsys.readouterr()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert bare("-m", "resume=../swept") == 2
    where = f"this sweep was started in {tmp_path}, where its relative paths lead: resume it there"
    assert capsys.readouterr().err == f"error: resume: {where}\n"


STRANGERS = {
    "--config-dir": ["--config-dir", "evil"],
    "extensions": ["extensions=[evil.py]"],
    "hydra.launcher.setup": ["hydra/launcher=slurm", "hydra.launcher.setup=[touch evil]"],
    "hydra.launcher.x": ["hydra.launcher.x={_target_:os.system,_args_:[touch evil]}"],
    "hydra.sweeper.x": ["+hydra.sweeper.x={_target_:runners.config.extensions.load,_args_:[[evil.py]]}"],
}


@pytest.mark.parametrize("place", STRANGERS)
def test_a_strangers_sweep_runs_nothing_of_theirs(place: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1", "seed=1,2", "sweep_dir=swept") == 0
    Path("evil").mkdir()
    Path("evil.py").write_text("from pathlib import Path\nPath('done').touch()\n")
    content = yaml.safe_load(Path("swept/sweep.yaml").read_text())
    content["arguments"] += STRANGERS[place]
    Path("swept/sweep.yaml").write_text(yaml.safe_dump(content))
    capsys.readouterr()
    assert bare("-m", "resume=swept") == 2
    assert capsys.readouterr().err.startswith(f"error: {place}: ")
    assert not Path("done").exists()


def test_two_starts_at_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1", "seed=1,2", "sweep_dir=swept") == 0
    with RunDirectory(Path("swept")):
        assert run("-m", "epochs=1", "seed=1,2", "sweep_dir=swept") == 2
    assert capsys.readouterr().err.endswith("error: swept: in use by another process, wait until it ends\n")


REFUSED = {
    ("seed=1,2",): "seed: can't be changed with resume=SWEEP, which has its jobs in sweep.yaml; "
    "give the whole command with sweep_dir=swept",
    ("--config-dir", "x"): "--config-dir: can't be changed with resume=SWEEP",
    ("jobs=0",): "jobs: 0 is not allowed, give a whole number >= 1",
    ("extensions=[]",): "",
}


@pytest.mark.parametrize("more", [*REFUSED][:3], ids=" ".join)
def test_what_a_resume_refuses(more: tuple[str, ...], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1", "seed=1,2", "sweep_dir=swept") == 0
    capsys.readouterr()
    assert bare("-m", "resume=swept", *more) == 2
    assert capsys.readouterr().err.startswith(f"error: {REFUSED[more]}")


def test_files_of_a_users_own_are_only_imported_if_given_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *failing("fine"), "seed=1,2") == 0
    capsys.readouterr()
    assert bare("-m", "resume=swept") == 2
    assert capsys.readouterr().err == (
        "error: extensions: this sweep uses files of its own, which are only imported if they are given again: "
        f"add '{EXTENSION}'\n"
    )
    assert bare("-m", "resume=swept", EXTENSION) == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[", "can't be read: "),
        ("version: 1", "command: Field required"),
        ("jobs: 3", "command: Field required"),
        ("{version: 2, command: a, arguments: [], folder: a, started: a}", "written by a newer version"),
        (b"\xff", "can't be read: "),
    ],
)
def test_a_broken_record(content: str | bytes, problem: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("swept").mkdir()
    Path("swept/sweep.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in (["-m", "resume=swept"], ["-m", "seed=1,2", "sweep_dir=swept"]):
        assert bare(*arguments) == 2
        assert capsys.readouterr().err.startswith(f"error: swept/sweep.yaml: {problem}")


def test_a_sweep_is_no_run_and_a_run_no_sweep(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1", "seed=1,2", "sweep_dir=swept") == 0
    capsys.readouterr()
    assert bare("resume=swept") == 2
    assert bare("-m", "resume=swept/0") == 2
    assert bare("-m", "resume=nowhere") == 2
    assert bare("-m", "resume=auto") == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: swept: a sweep, resume it with -m resume=SWEEP, or one of its jobs with resume=SWEEP/0",
        "error: swept/0: a run and no sweep, resume it without -m",
        "error: nowhere: there is no such sweep",
        "error: resume: there is no unfinished sweep in outputs/sweeps, give resume=SWEEP",
    ]
