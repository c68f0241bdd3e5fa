from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from filelock import FileLock

from runners.cli import train
from runners.data.sources.idx import Idx, Mnist, read_idx
from runners.sweeps import process
from tests.forks import ForkedJob
from tests.runners.outcomes import stop_at
from tools.small_runs import SMALL_MODEL, write_dataset

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Shells start what runs in the background with SIGINT ignored, and runs and children would ignore it as well."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def forked_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of a sweep in this process don't wait for an interpreter's start and imports."""
    monkeypatch.setattr(process, "start", ForkedJob)


@pytest.fixture(scope="session")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of IDX files with three easy classes of 10x10 images."""
    return write_dataset(tmp_path_factory.mktemp("striped"))


@pytest.fixture(scope="session")
def digits() -> tuple[Array, Array]:
    """The test file's images and labels."""
    folder = Mnist().path
    return read_idx(folder / "t10k-images-idx3-ubyte.gz"), read_idx(folder / "t10k-labels-idx1-ubyte.gz")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default experiment, cut to three epochs, which nobody may change: all workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    with FileLock(folder.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        if not (folder / "summary.json").exists():
            patch.setattr("sys.argv", ["run.py"])
            assert train.main(["epochs=3", "data.num_examples=20000", "threads=1", f"run_dir={folder}"]) == 0
    return folder


Run = Callable[..., int]


@pytest.fixture
def run(striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run.py's command, in this process and in an empty working directory, on a small network and dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])

    def command(*overrides: str) -> int:
        small = ["data=idx", f"data.path={striped}", "data.val_examples=30", SMALL_MODEL, "epochs=2", "batch_size=16"]
        small += ["threads=1"]  # two would wait for each other
        given = {override.lstrip("+").split("=")[0] for override in overrides}
        given |= {"model.layers"} if given & {"model", "generator.layers", "encoder.layers"} else set()
        given |= {"data.path", "data.val_examples"} if "data" in given else set()
        return train.main([*(o for o in small if o.split("=")[0] not in given), *overrides])

    return command


@pytest.fixture
def stopped(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A run in `a`, stopped in step 11 of 24, in its second epoch."""
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "epochs=3", "schedule=constant") == 143
    capsys.readouterr()
    return run


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that nobody may open yet."""

    def opened(source: Idx) -> NoReturn:
        raise AssertionError("data were opened")

    monkeypatch.setattr(Idx, "read", opened)


def faults(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The faults that were told, a line each, after a look that there is nothing on stdout and nothing left behind."""
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert out == ""
    assert list(Path().iterdir()) == []
    return [line.removeprefix("error: ") for line in lines]
