"""A run that was stopped and resumed ends with the bits of one that never was."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.cli import train
from runners.files import checkpoint
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tools.small_runs import outcome

LITTLE = "optimizer.lr=1e-12"
DROPOUT = (
    "model.layers=[{conv2d:{out_channels:4,kernel_size:3}},batch_norm,relu,{dropout:{p:0.3}},flatten,"
    "{linear:{out_features:16}},relu,{dropout:{p:0.5}},{linear:{out_features:3}}]"
)
SETTINGS: dict[str, list[str]] = {
    "adam": [],
    "sgd with nesterov": ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true", "optimizer.lr=0.01"],
    "rmsprop, centered": ["optimizer=rmsprop", "optimizer.centered=true", "optimizer.momentum=0.5"],
    "adagrad": ["optimizer=adagrad", "optimizer.lr_decay=0.01"],
    "adamw, clipped": ["optimizer=adamw", "optimizer.weight_decay=0.1", "clip_grad_norm=0.5"],
    "dropout": [DROPOUT],
    "dropout and augmentation": [DROPOUT, "augment=heavy"],
    "elastic augmentation": ["augment=elastic"],
    "accumulated batches": ["accumulate=3", "schedule=cosine", "schedule.warmup_steps=2"],
    "one cycle": ["schedule=one_cycle", "optimizer.lr=0.02"],
    "reduce on plateau": ["schedule=reduce_on_plateau", "schedule.patience=0", "schedule.threshold=0.9", LITTLE],
    "double precision": ["dtype=float64", "loss=cross_entropy", "loss.label_smoothing=0.1"],
    "reference kernels": ["kernels=reference", "optimizer=sgd", "optimizer.lr=0.05"],
    "patience": ["patience=1", LITTLE, "augment=shift"],
    "one thread, bce": ["threads=1", "loss=bce_with_logits", DROPOUT],
}
STOPS = {"in the first epoch": 3, "behind the last step of an epoch": 8, "in the second epoch": 11}
ACCUMULATED = {"in the first epoch": 2, "behind the last step of an epoch": 3, "in the second epoch": 4}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_resumed_run_ends_like_one_that_was_never_stopped(
    setting: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["epochs=3", *SETTINGS[setting]]
    assert run("run_dir=whole", *overrides) == 0
    expected = outcome("whole")
    if "plateau" in setting:  # else there would be nothing to be restored
        assert expected["rows"][1]["lr"] > expected["rows"][2]["lr"]
    for number, step in enumerate((ACCUMULATED if "accumulated" in setting else STOPS).values()):
        name = f"stopped{number}"
        with monkeypatch.context() as patch:
            stop_at(step, patch)
            assert run(f"run_dir={name}", *overrides) == 143
        assert f"interrupted by SIGTERM; continue with python run.py resume={name}" in capsys.readouterr().err
        assert checkpoint.load(Path(name, "checkpoints/last.pkl")).step == step
        assert status(name)["state"] == "interrupted"
        assert train.main([f"resume={name}"]) == 0
        assert outcome(name) == expected
        assert (status(name)["state"], status(name)["resumed"][0]["step"]) == ("done", step)
