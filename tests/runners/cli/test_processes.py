"""The commands as processes: exit codes, silence, signals, several at once.

What is about the interpreter's start or end, or about its environment, starts one; all else is forked.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.cli import train
from runners.exit_codes import COMPILING_MESSAGE
from runners.files import checkpoint, metrics_csv
from runners.files.content import Checkpoint
from runners.files.status import state as state_of
from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.training.capturing import Steps
from tests.forks import Forked
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at
from tests.runners.sweeps.statuses import statuses
from tools.small_runs import SMALL_MODEL

ROOT = Path(__file__).parents[3]
LONG = pytest.mark.long


def command(striped: Path, *overrides: str) -> list[str]:
    small = ["data=idx", f"data.path={striped}", "data.val_examples=30", SMALL_MODEL, "batch_size=16", "threads=1"]
    given = {override.split("=")[0] for override in overrides}
    return [sys.executable, str(ROOT / "run.py"), *(o for o in small if o.split("=")[0] not in given), *overrides]


def test_exit_codes_and_streams(striped: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(striped, "run_dir=a", "epochs=1"), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "run directory a"
    bad = subprocess.run(command(striped, "epochs=0"), cwd=tmp_path, capture_output=True, text=True)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "error: epochs: 0 is not allowed, give a whole number >= 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


Fork = Callable[..., Forked]


def on_a_terminal(start: Callable[..., Forked | subprocess.Popen[Any]]) -> str:
    """What somebody sees who starts a process and waits for its end, without what it prints on stdout."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = start(stderr=writer)
    os.close(writer)
    shown = b""
    try:
        while piece := os.read(reader, 4096):
            shown += piece
    except OSError:
        pass  # how a pseudo-terminal says that the other end has closed
    os.close(reader)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_a_progress_bar(forked: Fork, striped: Path, tmp_path: Path) -> None:
    shown = on_a_terminal(functools.partial(forked, command(striped, "epochs=3"), tmp_path))
    assert "step/s" in shown
    assert "epoch 3/3" in shown


def wait_for_epochs(run: Path, process: Forked) -> None:
    """Until a run has finished an epoch."""
    while not (run / "metrics.csv").exists() or len((run / "metrics.csv").read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_save_and_leave(number: signal.Signals, code: int, forked: Fork, striped: Path, tmp_path: Path) -> None:
    process = forked(command(striped, "run_dir=a", "epochs=100000"), tmp_path)
    wait_for_epochs(tmp_path / "a", process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.wait() == code
    assert err == f"interrupted by {number.name}; continue with python run.py resume=a\n"
    status = json.loads((tmp_path / "a" / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("interrupted", number.name)
    assert checkpoint.load(tmp_path / "a" / "checkpoints" / "last.pkl").step >= 8
    assert metrics_csv.read(tmp_path / "a" / "metrics.csv")


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Until a process catches SIGTERM, which Python itself doesn't."""
    status = Path("/proc", str(process.pid), "status")
    if not status.exists():
        pytest.skip("this system doesn't tell which signals a process catches")
    while True:
        assert process.poll() is None
        caught = int(re.findall(r"SigCgt:\s*(\w+)", status.read_text())[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)


@pytest.mark.parametrize("delay", [0, 0.5, 1.1, 1.7])
def test_a_signal_during_the_start_leaves_without_a_traceback(delay: float, striped: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(striped, "run_dir=a", "epochs=100000"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for_handlers(process)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("delay", [pytest.param(2 + moment / 4, marks=pytest.mark.long) for moment in range(12)])
def test_a_signal_while_kernels_are_compiled_leaves_without_a_traceback(
    delay: float, striped: Path, tmp_path: Path
) -> None:
    """An interrupted compiler crashed once in a dozen times, or never ended."""
    process = subprocess.Popen(
        command(striped, "run_dir=a", "epochs=100000"),
        cwd=tmp_path,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_signal_before_the_first_step_is_done_leaves_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be compiling kernels, and there is nothing to be saved."""
    sound = Classification.train_step

    def slow(*arguments: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the step went on")

    monkeypatch.setattr(Classification, "train_step", slow)
    assert run("run_dir=a") == 130
    assert capsys.readouterr().err == "interrupted by SIGINT; continue with python run.py resume=a\n"
    assert state_of(Path("a")) == "interrupted"
    monkeypatch.setattr(Classification, "train_step", sound)
    assert train.main(["resume=a"]) == 0


def test_a_signal_that_a_callback_of_compiled_code_swallows_is_raised_once_more(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compiles(*arguments: Any, **more: Any) -> None:
        ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()
        time.sleep(20)
        raise AssertionError("the step went on")

    monkeypatch.setattr(Classification, "train_step", compiles)
    assert run("run_dir=a") == 143
    assert capsys.readouterr().err == "interrupted by SIGTERM; continue with python run.py resume=a\n"


def test_a_signal_before_the_first_step_is_heeded_when_that_begins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = checkpoint.save

    def save(file: Path, content: Checkpoint) -> None:
        sound(file, content)
        os.kill(os.getpid(), signal.SIGINT)

    def step(*arguments: Any, **more: Any) -> None:
        raise AssertionError("a step was begun")

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(Classification, "train_step", step)
    assert run("run_dir=a") == 130
    assert checkpoint.load(Path("a/checkpoints/last.pkl")).step == 0


def test_a_resume_that_has_nothing_left_to_train_is_done_when_figures_are_drawn(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("runners.training.experiment.evaluate", lambda *arguments: 1 / 0)
        assert run("run_dir=a", "epochs=1") == 1
    monkeypatch.setattr("runners.training.experiment._draw", lambda *arguments: os.kill(os.getpid(), signal.SIGINT))
    capsys.readouterr()
    assert train.main(["resume=a"]) == 130
    assert capsys.readouterr().err == "interrupted by SIGINT; the run is done, see a/summary.json\n"
    assert state_of(Path("a")) == "done"


def test_commands_can_be_pasted(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run("run_dir=my run") == 143
    [line] = capsys.readouterr().err.splitlines()
    *_, python, script, argument = shlex.split(line.partition("; ")[2])
    assert (python, script, argument) == ("python", "run.py", "resume=my run")
    assert train.main([argument]) == 0


def test_of_two_signals_the_first_counts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Steps.take

    def stop(*arguments: Any) -> Sums:
        sums = sound(*arguments)
        steps.append(1)
        if len(steps) == 3:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
        return sums

    steps: list[int] = []
    monkeypatch.setattr(Steps, "take", stop)
    assert run("run_dir=a") == 130


def test_a_terminal_that_goes_away_stops_nothing(forked: Fork, striped: Path, tmp_path: Path) -> None:
    reader, writer = pty.openpty()
    process = forked(command(striped, "run_dir=a", "epochs=40"), tmp_path, stdout=writer, stderr=writer)
    os.close(writer)
    assert os.read(reader, 10)
    os.close(reader)
    process.wait()
    assert json.loads((tmp_path / "a/status.json").read_text())["state"] == "done"
    assert len(metrics_csv.read(tmp_path / "a/metrics.csv")) == 40


PREDICT = [sys.executable, str(ROOT / "predict.py"), "a", "missing.png"]


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", *(pytest.param(one, marks=LONG) for one in ("<&-", ">&-", "2>&-"))])
def test_a_shell_may_close_streams(closed: str, striped: Path, tmp_path: Path) -> None:
    train = shlex.join(command(striped, "run_dir=a", "epochs=1"))
    assert subprocess.run(["bash", "-c", f"{train} {closed}"], cwd=tmp_path).returncode == 0
    assert checkpoint.load(tmp_path / "a/checkpoints/last.pkl").epoch == 1
    assert subprocess.run(["bash", "-c", f"{shlex.join(PREDICT)} {closed}"], cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_streams_may_be_closed(closed: int, forked: Fork, striped: Path, tmp_path: Path) -> None:
    """As the interpreter leaves them in sys: None."""
    assert forked(command(striped, "run_dir=a", "epochs=1"), tmp_path, closed=[closed]).wait() == 0
    assert checkpoint.load(tmp_path / "a/checkpoints/last.pkl").epoch == 1
    assert forked(PREDICT, tmp_path, closed=[closed]).wait() == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once_and_harms_nothing(
    number: int, forked: Fork, striped: Path, tmp_path: Path
) -> None:
    """Sent in the middle of a step, again and again, until the process is gone."""
    process = forked(command(striped, "run_dir=a", "epochs=100000", "checkpoint.every_steps=1"), tmp_path)
    wait_for_epochs(tmp_path / "a", process)
    for _ in range(2):
        process.send_signal(number)
    assert process.wait() in (-number, 128 + number)  # the first may have been heeded before the second came
    assert state_of(tmp_path / "a") in ("died", "interrupted")
    saved = checkpoint.load_run(tmp_path / "a", "last")
    resumed = [sys.executable, str(ROOT / "run.py"), "resume=a", f"epochs={saved.epoch + 1}"]
    assert forked(resumed, tmp_path).wait() == 0
    assert len(metrics_csv.read(tmp_path / "a" / "metrics.csv")) == saved.epoch + 1


def test_a_signal_while_figures_are_drawn(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runners.training.experiment._draw", lambda *arguments: os.kill(os.getpid(), signal.SIGTERM))
    assert run("run_dir=a", "epochs=1") == 143
    assert json.loads(Path("a/status.json").read_text())["state"] == "done"  # it was: only the pictures were missing
    assert capsys.readouterr().err == "interrupted by SIGTERM; the run is done, see a/summary.json\n"


def test_figures_that_cannot_be_drawn_do_not_fail_a_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr("runners.training.experiment._draw", broken)
    assert run("run_dir=a", "epochs=1") == 0
    assert json.loads(Path("a/status.json").read_text())["state"] == "done"
    assert "ValueError: no font" in Path("a/run.log").read_text()
    assert capsys.readouterr().err == "warning: the figures could not be drawn: no font\n"


def test_nobody_reads_what_is_printed(striped: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(striped, "run_dir=a", "epochs=1"), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the output can't be written: No space left on device\n",
    )
    line = f"{sys.executable} {ROOT / 'predict.py'} a missing.png --json | true"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""


def test_a_signal_ends_a_sweep(forked: Fork, striped: Path, tmp_path: Path) -> None:
    process = forked(command(striped, "-m", "epochs=100000,100001", "sweep_dir=s"), tmp_path)
    wait_for_epochs(tmp_path / "s" / "0", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.wait() == 130
    assert err == "interrupted by SIGINT; continue with python run.py -m resume=s\n"
    assert statuses(tmp_path / "s") == {"0": ("interrupted", "SIGINT")}


def test_of_many_resumes_at_once_one_works(forked: Fork, striped: Path, tmp_path: Path) -> None:
    train = forked(command(striped, "run_dir=a", "epochs=100000"), tmp_path)
    wait_for_epochs(tmp_path / "a", train)
    train.send_signal(signal.SIGKILL)
    train.wait()
    assert state_of(tmp_path / "a") == "died"
    resume = [sys.executable, str(ROOT / "run.py"), "resume=a"]
    processes = [forked(resume, tmp_path) for _ in range(4)]
    while sum(process.poll() is None for process in processes) > 1:
        time.sleep(0.05)
    [working] = [process for process in processes if process.poll() is None]
    assert state_of(tmp_path / "a") == "running"
    working.send_signal(signal.SIGTERM)
    told = {process: process.communicate()[1] for process in processes}
    assert working.wait() == 143
    message = "error: a: in use by another process, wait until it ends\n"
    refused = [process for process in processes if process is not working]
    assert [(process.wait(), told[process]) for process in refused] == [(2, message)] * 3
    assert state_of(tmp_path / "a") == "interrupted"


LINEAR = "model.layers=[flatten,{linear:{out_features:3}}]"
WITH_MANY_KERNELS = SMALL_MODEL.replace(
    "batch_norm,relu", "batch_norm,relu,{max_pool2d:{kernel_size:2}},{conv2d:{out_channels:4,kernel_size:2}}"
)


@pytest.mark.parametrize(
    ("layers", "files"), [(LINEAR, 3), pytest.param(WITH_MANY_KERNELS, 6, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_the_start_that_compiles_says_so_and_gives_the_same_bits_as_the_next(
    layers: str, files: int, striped: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    shown, compiled = [], []
    for name in ("first", "second"):
        train = command(striped, layers, f"run_dir={name}", "epochs=3")
        start = functools.partial(subprocess.Popen, train, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        shown.append(on_a_terminal(start))
        compiled.append({file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.nbc")})
    assert [text.count(COMPILING_MESSAGE) for text in shown] == [1, 0]
    assert len(compiled[0]) >= files
    assert compiled[0] == compiled[1]
    rows = [metrics_csv.read(tmp_path / name / "metrics.csv") for name in ("first", "second")]
    assert all(a[key] == b[key] for a, b in zip(*rows, strict=True) for key in a if key not in metrics_csv.TIMING)
    first, second = (checkpoint.load(tmp_path / name / "checkpoints" / "last.pkl") for name in ("first", "second"))
    for name, weights in first.networks["model"].weights.items():
        assert np.array_equal(weights, second.networks["model"].weights[name])


@pytest.mark.parametrize("start", [["run.py"], ["predict.py"], ["-m", "runners.evaluate"]], ids=" ".join)
def test_without_the_packages_a_command_says_how_to_get_them(start: list[str]) -> None:
    done = subprocess.run([sys.executable, "-S", *start], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: \w+ is not installed for \S+: use .venv/bin/python, .*\n", done.stderr)


def test_predict_and_evaluate_as_processes(run: Run, tmp_path: Path) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    done = subprocess.run(PREDICT, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: missing.png: there is no such file\n")
    evaluate = [sys.executable, "-m", "runners.evaluate", str(tmp_path / "a")]
    done = subprocess.run(evaluate, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("idx: 60 test examples, accuracy ")
