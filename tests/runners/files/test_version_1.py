"""A run that version 1 of the checkpoints was written by, stopped in its second epoch: it is all still of use."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.cli import evaluate, predict, train
from runners.errors import CheckpointError
from runners.files import checkpoint, metrics_csv, plain_pickle

OLD = Path(__file__).parent / "version_1"
"""`run/`, and the end of the same run where it was never stopped: in double precision, on the reference kernels."""


PICTURE = Path(__file__).parents[3] / "docs/images/4.jpg"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])
    shutil.copytree(OLD, "old")
    return Path("old")


def test_it_is_resumed_to_the_same_weights(old: Path) -> None:
    assert train.main([f"resume={old}"]) == 0
    expected = pickle.loads((OLD / "whole.pkl").read_bytes())["weights"]
    found = checkpoint.load(old / "checkpoints/last.pkl").networks["model"].weights
    assert found.keys() == expected.keys()
    for name, array in found.items():
        # A bias before a batch norm is nothing but the sum of rounding errors.
        assert np.allclose(array, expected[name], rtol=1e-9, atol=1e-10)
    rows, whole = (metrics_csv.read(file) for file in (old / "metrics.csv", OLD / "whole.csv"))
    for row, before in zip(rows, whole, strict=True):
        assert list(row) == list(before)
        assert row == pytest.approx(before | {name: row[name] for name in metrics_csv.TIMING}, rel=1e-9)


def test_it_predicts_and_is_evaluated(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(old), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(map(sum, found["confusion"])) == 10_000
    assert found["test/accuracy"] > 0.15
    assert predict.main([str(old), str(PICTURE), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    names, shares = zip(*answer["top"], strict=True)
    assert set(names) < set("0123456789")
    assert 1 / 10 < shares[0] == answer["probability"] <= 1


def test_a_new_run_starts_from_it(old: Path) -> None:
    model = checkpoint.load(old / "checkpoints/best.pkl").config["model"]
    layers = json.dumps(model["layers"]).replace('"', "")
    small = ["data.num_examples=20", "data.val_examples=20", "epochs=1", "optimizer=sgd", "optimizer.lr=1e-30"]
    kept = ["dtype=float64", "kernels=reference", "batch_size=20"]
    assert train.main([f"init_from={old}", f"model.layers={layers}", "run_dir=new", *small, *kept]) == 0
    before, after = (
        checkpoint.load(Path(run, "checkpoints/best.pkl")).networks["model"].weights for run in ("old", "new")
    )
    assert np.allclose(before["linear_1.weight"], after["linear_1.weight"], rtol=1e-12)


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"more": 1}, "more: unknown"),
    "sums of something else": ({"progress": {"totals": {"dice": 1.0}}}, "progress.totals: not the sums of version 1"),
    "no progress": ({"progress": None}, "progress: must be a mapping"),
    "a config that is none": ({"config": 3}, "config: must be a mapping"),
    "another loss": ({"loss": "l2"}, "config.loss.name: not the checkpoint's loss"),
    "weights": ({"weights": {"linear_1.weight": "x"}}, "networks.model.weights: "),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_wrong_with_one_is_named(damage: str, old: Path) -> None:
    change, message = DAMAGED[damage]
    file = old / "checkpoints/last.pkl"
    content = plain_pickle.read(file)
    plain_pickle.write(file, content | change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(file)
    for key in content:
        plain_pickle.write(file, {name: value for name, value in content.items() if name != key})
        with pytest.raises(CheckpointError, match=f"{key}: missing"):
            checkpoint.load(file)
