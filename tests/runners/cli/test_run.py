"""run.py from the command line to the files of a run directory."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from runners.files import checkpoint, metrics_csv
from runners.files.run_directory import RunDirectory
from tests.runners.conftest import Run
from tests.runners.outcomes import COLUMNS
from tests.runners.sweeps.statuses import statuses
from tools.small_runs import write_dataset


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def read(file: Path) -> Any:
    return json.loads(file.read_text())


RUN_FILES = {
    *("config.yaml", "overrides.yaml", "run.log", "status.json", "metrics.csv", "summary.json"),
    *("checkpoints/last.pkl", "checkpoints/best.pkl"),
    *("figures/curves.png", "figures/confusion.png", "figures/filters.png"),
}


@pytest.mark.figures
def test_a_run_leaves_a_complete_directory(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=first", "epochs=6", "seed=3", "threads=1") == 0
    folder = Path("first")
    assert files(folder) >= RUN_FILES
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["seed"] == 3
    assert config["threads"] == 1
    assert config["model"]["layers"][0] == {"conv2d": {"out_channels": 4, "kernel_size": 3}}
    assert "seed=3" in yaml.safe_load((folder / "overrides.yaml").read_text())
    status = read(folder / "status.json")
    assert status["state"] == "done"
    assert status["seed"] == 3
    assert len(status["data_fingerprint"]) == 64
    rows = metrics_csv.read(folder / "metrics.csv")
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows] == [
        8,
        16,
        24,
        32,
        40,
        48,
    ]  # 120 examples in batches of 16: the last short one counts
    assert rows[3]["lr"] == 0.01 * math.exp(-0.24)
    summary = read(folder / "summary.json")
    assert summary["best"]["val/accuracy"] == max(row["val/accuracy"] for row in rows)
    assert summary["final"]["train/loss"] == rows[-1]["train/loss"]
    assert summary["test"]["test/accuracy"] > 0.9
    assert summary["parameters"] == 4 * 9 + 4 + 8 + 4 * 64 * 3 + 3
    assert summary["steps"] == 48
    out, err = capsys.readouterr()
    assert f"test accuracy {summary['test']['test/accuracy']:.2%}" in out
    assert "run directory first" in out
    assert err == ""  # no terminal, no progress bar
    assert "epoch 6/6" in (folder / "run.log").read_text()


def test_nothing_but_the_run_directory_is_written(run: Run) -> None:
    assert run("run_dir=deep/er/first") == 0
    assert {name.split("/")[0] for name in files(Path())} == {"deep"}


def test_checkpoints_are_plain_pickles(run: Run) -> None:
    assert run("run_dir=first") == 0
    file = Path("first/checkpoints/best.pkl")
    plain = pickle.loads(file.read_bytes())
    ours = checkpoint.load(file)
    assert plain["networks"]["model"]["model"]["layers"][1] == "batch_norm"
    assert set(plain["networks"]["model"]["weights"]) == set(ours.networks["model"].weights)
    for name, array in plain["networks"]["model"]["weights"].items():
        assert type(array) is np.ndarray
        assert array.dtype == np.float32
        assert np.array_equal(array, ours.networks["model"].weights[name])


def weights(file: Path) -> dict[str, Any]:
    return checkpoint.load(file).networks["model"].weights


def without_timing(file: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if key not in metrics_csv.TIMING} for row in metrics_csv.read(file)
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(run: Run, threads: int) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert run(f"run_dir={name}", f"seed={seed}", f"threads={threads}") == 0
    assert without_timing(Path("a/metrics.csv")) == without_timing(Path("b/metrics.csv"))
    assert without_timing(Path("a/metrics.csv")) != without_timing(Path("c/metrics.csv"))
    for which in ("best", "last"):
        a, b, c = (
            checkpoint.load(Path(name, "checkpoints", f"{which}.pkl")).networks["model"].weights for name in "abc"
        )
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert not all(np.array_equal(a[name], c[name]) for name in a)


def test_both_kernel_sets_and_precisions_learn_alike(run: Run) -> None:
    rows = []
    for name, overrides in {"fast": [], "plain": ["kernels=reference"], "double": ["dtype=float64"]}.items():
        assert run(f"run_dir={name}", "epochs=3", *overrides) == 0
        rows.append(metrics_csv.read(Path(name, "metrics.csv"))[-1])
    assert rows[1]["train/loss"] == pytest.approx(rows[0]["train/loss"], rel=1e-3)
    assert rows[2]["train/loss"] == pytest.approx(rows[0]["train/loss"], rel=1e-2)
    assert (
        checkpoint.load(Path("double/checkpoints/last.pkl")).networks["model"].weights["conv2d_1.weight"].dtype
        == np.float64
    )


def test_runs_without_a_name_get_directories_of_their_own(run: Run) -> None:
    assert [run("epochs=1") for _ in range(3)] == [0, 0, 0]
    assert len(list(Path("outputs").glob("*/*/summary.json"))) == 3


@pytest.mark.parametrize("name", ["2026", "1e5", "true", "nan"])
def test_directories_may_be_named_as_numbers_are(name: str, run: Run) -> None:
    assert run(f"run_dir={name}", "epochs=1") == 0
    assert run(f"init_from={name}", f"run_dir=more/{name}", "epochs=1") == 0
    assert Path("more", name, "summary.json").exists()


def test_an_existing_directory_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("first").mkdir()
    Path("first/mine.txt").write_text("keep")
    assert run("run_dir=first") == 2
    assert "run_dir: first already exists" in capsys.readouterr().err
    assert files(Path("first")) == {"mine.txt"}


def test_init_from_starts_with_a_saved_runs_weights(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=first", "epochs=8") == 0
    assert run("run_dir=second", "epochs=1", "optimizer=sgd", "optimizer.lr=1e-6", "init_from=first") == 0
    assert metrics_csv.read(Path("second/metrics.csv"))[0]["train/loss"] < 0.2
    capsys.readouterr()
    assert run("run_dir=third", "init_from=first", "model.layers=[flatten,{linear:{out_features:3}}]") == 2
    assert "init_from: first/checkpoints/best.pkl: the saved weights don't fit this network" in capsys.readouterr().err
    assert not Path("third").exists()


@pytest.mark.figures
def test_a_sweep_leaves_a_directory_for_each_job(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "optimizer=sgd,adam", "batch_size=16,32", "epochs=1") == 0
    (sweep,) = Path("outputs/sweeps").glob("*/*")
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [job.name for job in jobs] == ["0", "1", "2", "3"]
    assert {name.split("/")[0] for name in files(Path())} == {"outputs"}
    seen = set()
    for job in jobs:
        assert files(job) >= RUN_FILES
        config = yaml.safe_load((job / "config.yaml").read_text())
        seen.add((config["optimizer"]["name"], config["batch_size"]))
        assert read(job / "status.json")["state"] == "done"
    assert seen == {("sgd", 16), ("sgd", 32), ("adam", 16), ("adam", 32)}
    assert "optimizer=sgd" in capsys.readouterr().out


def test_validation_on_test_examples_as_the_original_did(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=first", "data.val_split=test", "data.val_examples=60", "data.num_examples=150") == 0
    summary = read(Path("first/summary.json"))
    assert summary["best"]["val/accuracy"] == summary["test"]["test/accuracy"]
    assert "chosen on test examples" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["l1", "l2", "huber", "cross_entropy", "bce_with_logits"])
def test_a_network_that_ends_in_probabilities(run: Run, loss: str) -> None:
    end = "sigmoid" if loss == "bce_with_logits" else "softmax"
    layers = f"[flatten,{{linear:{{out_features:3}}}},{end}]"
    assert run("run_dir=first", "epochs=12", f"loss={loss}", f"model.layers={layers}") == 0
    assert read(Path("first/summary.json"))["test"]["test/accuracy"] > 0.9


def test_conv3d_learns_volumes(run: Run, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "volumes", (8, 8, 8), ".gz", 120)
    overrides = ["model=conv3d", "model.width=4", "model.classes=3", f"data.path={folder}", "epochs=6", "run_dir=first"]
    assert run(*overrides) == 0
    assert read(Path("first/summary.json"))["test"]["test/accuracy"] > 0.9


def test_numbers_beyond_all_bounds_are_json_that_any_parser_reads(tmp_path: Path) -> None:
    def refuse(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    with RunDirectory.make(tmp_path / "a", []) as directory:
        directory.write_json("summary.json", {"test": {"loss": math.inf, "accuracy": math.nan}})
    summary = json.loads((tmp_path / "a/summary.json").read_text(), parse_constant=refuse)
    assert summary["test"] == {"loss": None, "accuracy": None}


def test_choices_of_a_sweep_in_hydras_words(run: Run) -> None:
    assert run("-m", "optimizer=choice(sgd,adam)", "epochs=1", "sweep_dir=s") == 0
    assert sorted(statuses("s")) == ["0", "1"]


def test_a_failure_while_running_is_recorded(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr("runners.training.snapshot.arrays", broken)
    assert run("run_dir=first") == 1
    assert "error: the run failed: RuntimeError: no space left (traceback in first/run.log)" in capsys.readouterr().err
    status = read(Path("first/status.json"))
    assert status["state"] == "failed"
    assert status["reason"] == "RuntimeError: no space left"
    assert "Traceback" in Path("first/run.log").read_text()
