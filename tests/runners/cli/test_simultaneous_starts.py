"""Eight starts at the same moment. Processes are forked from one that has loaded everything, so that they do race."""

from __future__ import annotations

import os
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from runners.cli.train import main as train
from runners.exit_codes import guarded
from runners.files import metrics_csv
from tests.forks import context
from tests.runners.sweeps.statuses import statuses
from tools.small_runs import SMALL_MODEL

STARTS = 8


def start(number: int, gate: Barrier, arguments: list[str]) -> None:
    """run.py's main part, once all others have come as far; what it prints goes into files."""
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), stream.fileno())
    gate.wait(60)
    exit_code = guarded(train, arguments)
    sys.stdout.flush()
    os._exit(exit_code)


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    return context()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ends(forks: ForkServerContext, striped: Path, *overrides: str) -> list[tuple[int | None, str, str]]:
    """Exit code, stdout and stderr of each of eight equal starts."""
    small = ["data=idx", f"data.path={striped}", "data.val_examples=30", SMALL_MODEL, "batch_size=16", "threads=1"]
    small += ["kernels=reference", "epochs=2"]  # nothing to compile or to load
    gate = forks.Barrier(STARTS)
    processes = [forks.Process(target=start, args=(n, gate, [*small, *overrides])) for n in range(STARTS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [
        (process.exitcode, Path(f"{n}.out").read_text(), Path(f"{n}.err").read_text())
        for n, process in enumerate(processes)
    ]


def test_runs_get_directories_of_their_own(forks: ForkServerContext, striped: Path) -> None:
    ended = ends(forks, striped)
    assert [(code, err) for code, _, err in ended] == [(0, "")] * STARTS
    directories = {out.splitlines()[-1].removeprefix("run directory ") for _, out, _ in ended}
    assert directories == {str(folder) for folder in Path().glob("outputs/*/*")}
    assert len(directories) == STARTS
    first, *others = (metrics_csv.read(Path(directory, "metrics.csv")) for directory in directories)
    assert [row["epoch"] for row in first] == [1, 2]
    for rows in others:
        assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in first]


def test_one_directory_belongs_to_one_run(forks: ForkServerContext, striped: Path) -> None:
    ended = ends(forks, striped, "run_dir=runs/first")
    assert sorted(code for code, _, _ in ended if code is not None) == [0] + [2] * (STARTS - 1)
    told = "error: run_dir: runs/first already exists, choose another or remove it\n"
    assert all((out, err) == ("", told) for code, out, err in ended if code)
    assert statuses("runs") == {"first": ("done", None)}
    assert len(metrics_csv.read(Path("runs/first/metrics.csv"))) == 2


def test_one_directory_belongs_to_one_sweep(forks: ForkServerContext, striped: Path) -> None:
    ended = ends(forks, striped, "-m", "seed=0,1", "sweep_dir=swept")
    assert sorted(code for code, _, _ in ended if code is not None) == [0] + [2] * (STARTS - 1)
    messages = {
        "error: sweep_dir: swept already exists, choose another or remove it\n",
        "error: swept: in use by another process, wait until it ends\n",
    }
    assert all(out == "" and err in messages for code, out, err in ended if code)
    assert statuses("swept") == {"0": ("done", None), "1": ("done", None)}
