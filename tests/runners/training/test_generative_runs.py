"""Runs of generative tasks like any other: stopped, killed and resumed, judged, reported, checked."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.cli import evaluate, train
from runners.files import checkpoint, metrics_csv
from runners.tasks.gan import GAN
from runners.tasks.regression import Regression
from runners.tasks.vae import VAE
from tests.forks import ROOT, Forked
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at_step_of
from tools.small_runs import outcome, write_dataset

Fork = Callable[..., Forked]
CONV = "{conv2d:{out_channels:4,kernel_size:4,stride:2,padding:1}}"
GENERATOR = (
    "generator.layers=[{linear:{out_features:100}},{reshape:{shape:[4,5,5]}},batch_norm,relu,"
    "{conv_transpose2d:{out_channels:1,kernel_size:4,stride:2,padding:1}},tanh]"
)
DISCRIMINATOR = f"discriminator.layers=[{CONV},leaky_relu,{{dropout:{{p:0.3}}}},flatten,{{linear:{{out_features:1}}}}]"
PAIR = ["task=gan", "task.latent_size=4", "task.judge=null", "loss=non_saturating", GENERATOR, DISCRIMINATOR]
CODED = [
    *("task=vae", "task.latent_size=3", "loss=bce_with_logits"),
    "encoder.layers=[flatten,{linear:{out_features:8}},relu,{linear:{out_features:6}}]",
    "decoder.layers=[{linear:{out_features:100}},{reshape:{shape:[1,10,10]}}]",
]
SAME = "model.layers=[{conv2d:{out_channels:4,kernel_size:3,padding:1}},relu,{conv2d:{out_channels:1,kernel_size:1}}]"
DENOISED = ["task=regression", "task.target=input", "task.noise=0.3", "loss=l2", SAME]
TASKS: dict[str, tuple[Any, list[str]]] = {
    "gan": (GAN, PAIR),
    "conditional gan, two critic steps": (GAN, [*PAIR, "task.conditional=true", "task.critic_steps=2"]),
    "wasserstein, accumulated": (GAN, [*PAIR, "loss=wasserstein", "accumulate=2", "task.ema=null"]),
    "own optimizer": (GAN, [*PAIR, "discriminator_optimizer=sgd", "generator_schedule.rate=0.5", "augment=shift"]),
    "vae": (VAE, [*CODED, "task.beta_warmup_steps=9", "clip_grad_norm=1"]),
    "denoiser": (Regression, DENOISED),
}


def last_given(overrides: list[str]) -> list[str]:
    """Each key once, with its last value."""
    return [*{override.partition("=")[0]: override for override in overrides}.values()]


@pytest.fixture
def judge(run: Run) -> str:
    """A run of a small classifier of the same pictures."""
    assert run("run_dir=judge", "epochs=3") == 0
    return "judge"


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_run_ends_like_one_that_was_never_stopped(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, overrides = TASKS[name][0], last_given(TASKS[name][1])
    assert run("run_dir=whole", *overrides) == 0
    expected = outcome("whole")
    for step in (3, 4, 6):  # between a discriminator's and a generator's step, and the other way round
        with monkeypatch.context() as patch:
            stop_at_step_of(task, step, patch)
            assert run(f"run_dir=stopped{step}", *overrides) == 143
        assert checkpoint.load(Path(f"stopped{step}", "checkpoints/last.pkl")).step == step
        assert train.main([f"resume=stopped{step}"]) == 0
        assert outcome(f"stopped{step}") == expected
    capsys.readouterr()


def killed_and_resumed(forked: Fork, folder: Path, start: list[str], times: int) -> int:
    """Kill a run at random moments and resume it each time, until it was killed so often or is done; the kills."""
    chance, kills, arguments = random.Random(7), 0, start
    while True:
        process = forked([sys.executable, str(ROOT / "run.py"), *arguments], folder)
        if kills < times:
            moment = time.monotonic() + chance.uniform(0.05, 1.5)
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.005)
        if kills >= times or process.poll() is not None:
            assert process.wait() == 0, process.communicate()[1]
            return kills
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        saved = (folder / "a" / "checkpoints" / "last.pkl").exists()
        arguments = ["resume=a"] if saved else [*start[:-1], f"run_dir={folder / 'a'}"]
        if not saved and (folder / "a").exists():
            (folder / "a").rename(folder / f"before_the_first_step_{kills}")


@pytest.mark.parametrize("kills", [pytest.param(20, marks=pytest.mark.long), 3])
def test_a_pair_that_is_killed_at_random_moments_ends_like_one_that_was_not(
    kills: int, judge: str, run: Run, striped: Path, forked: Fork, tmp_path: Path
) -> None:
    small = ["data=idx", f"data.path={striped}", "data.val_examples=30", "batch_size=16", "threads=1"]
    pair = [override for override in PAIR if "judge" not in override]
    common = [*small, *pair, f"task.judge={judge}", "epochs=40" if kills < 10 else "epochs=150"]
    assert train.main([*common, "run_dir=whole"]) == 0
    done = killed_and_resumed(forked, tmp_path, [*common, "checkpoint.every_steps=1", "run_dir=a"], kills)
    assert done == kills

    def comparable(name: str) -> Any:
        found = outcome(name)
        for which in ("last", "best"):
            found[which]["config"]["checkpoint"] = None
        return found

    assert comparable("a") == comparable("whole")


def test_a_judged_run_reports_the_distance_and_whose_weights_measured_it(
    judge: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [*PAIR, f"task.judge={judge}", "task.conditional=true", "task.eval_every=3", "epochs=5"]
    assert run("run_dir=a", *last_given(pair)) == 0
    out = capsys.readouterr().out
    rows = metrics_csv.read(Path("a", "metrics.csv"))
    measured = [row for row in rows if "val/frechet" in row]
    assert [row["epoch"] for row in measured] == [1, 3, 5]  # the first, each third, and the last
    assert all({"val/precision", "val/recall", "val/agreement"} <= row.keys() for row in measured)
    summary = json.loads(Path("a", "summary.json").read_text())
    assert summary["best"]["epoch"] == min(measured, key=lambda row: row["val/frechet"])["epoch"]
    assert f"judged by the classifier with weights sha256 {summary['judge'][:12]}" in out
    assert f"test frechet {summary['test']['test/frechet']:.2f}, " in out
    assert evaluate.main(["a"]) == 0
    out = capsys.readouterr().out
    assert f"frechet {summary['test']['test/frechet']:.2f}" in out
    assert f"judged by a classifier with weights sha256 {summary['judge'][:12]}" in out
    assert "frechet distance of the test pictures blurred by 1 pixel: " in out
    assert "share of 1,000 samples" in out


def test_the_judge_of_the_data_is_made_once_and_found_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pair = last_given([*PAIR, "task.judge=auto", "epochs=1"])
    assert run("run_dir=a", *pair) == 2
    few = "batch_size: 128 is more than the 120 training examples, give at most 120"
    alternative = "give a run directory, or null to measure nothing"
    expected = f"error: task.judge: no judge can be made of these data: {few}; {alternative}"
    assert capsys.readouterr().err.splitlines()[-1] == expected
    assert not Path("a").exists()
    pair.append(f"data.path={write_dataset(tmp_path / 'more', count=400)}")
    assert run("run_dir=a", *pair) == 0
    assert "making the classifier that judges samples of these data, once: " in capsys.readouterr().err
    [made] = [path for path in (tmp_path / "cache/cnn-from-scratch/judges").iterdir() if path.is_dir()]
    before = (made / "checkpoints/best.pkl").read_bytes()
    assert run("run_dir=b", *pair) == 0
    assert "making" not in capsys.readouterr().err
    assert (made / "checkpoints/best.pkl").read_bytes() == before
    first, second = outcome("a"), outcome("b")
    assert first["rows"] == second["rows"]
    (made / "summary.json").unlink()  # as if its process had been killed
    assert run("run_dir=c", *pair) == 0
    assert outcome("c")["summary"]["judge"] == first["summary"]["judge"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("nowhere", "task.judge: nowhere: there is no such run directory or checkpoint"),
        ("a", "a/checkpoints/best.pkl: can't judge pictures: not a classifier whose layers end in a linear one"),
    ],
)
def test_a_judge_that_cannot_judge_is_refused(
    given: str, problem: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run_dir=a", *DENOISED) == 0
    capsys.readouterr()
    assert run("run_dir=b", *last_given([*PAIR, f"task.judge={given}"])) == 2
    assert problem in capsys.readouterr().err
    assert not Path("b").exists()


def test_patience_waits_for_epochs_that_are_measured(judge: str, run: Run) -> None:
    pair = [*PAIR, f"task.judge={judge}", "task.eval_every=4", "patience=2", "epochs=30", "optimizer.lr=1e-12"]
    assert run("run_dir=a", *last_given(pair)) == 0
    best, *others = [row["epoch"] for row in metrics_csv.read(Path("a", "metrics.csv")) if "val/frechet" in row]
    assert (best, others[-1] % 4) == (1, 0)
    assert len(others) >= 2


def test_a_judge_of_other_classes_is_refused_where_classes_count(
    judge: str, run: Run, striped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four = ["model.layers=[flatten,{linear:{out_features:4}}]", "data.class_names=[a,b,c,d]"]
    assert run("run_dir=other", "epochs=1", *four) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert run("run_dir=b", *last_given([*PAIR, "task.judge=other", "task.conditional=true"])) == 2
    message = "task.judge: other/checkpoints/best.pkl knows the classes a; b; c, and 1 more, the data have 0; 1; 2"
    assert message in capsys.readouterr().err


def test_a_resume_with_another_judge_is_refused(
    judge: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at_step_of(GAN, 5, patch)
        assert run("run_dir=a", *last_given([*PAIR, f"task.judge={judge}"])) == 143
    assert run("run_dir=again", "epochs=1", "seed=9") == 0
    Path("again/checkpoints/best.pkl").replace(Path(judge, "checkpoints/best.pkl"))
    capsys.readouterr()
    assert train.main(["resume=a"]) == 2
    assert "its samples were judged by weights sha256 " in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_judge_of_either_precision_judges_either(dtype: str, run: Run) -> None:
    assert run("run_dir=judge", "epochs=1", f"dtype={dtype}") == 0
    for other in ("float32", "float64"):
        assert run(f"run_dir={other}", f"dtype={other}", *last_given([*PAIR, "task.judge=judge", "epochs=1"])) == 0
        assert "val/frechet" in metrics_csv.read(Path(other, "metrics.csv"))[0]


def test_a_sweep_over_losses(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [override for override in PAIR if not override.startswith("loss=")]
    assert run("-m", "loss=hinge,least_squares", "sweep_dir=s", "epochs=1", *pair) == 0
    out = capsys.readouterr().out
    assert "loss=hinge" in out
    assert "loss=least_squares" in out
    assert np.isfinite(metrics_csv.read(Path("s/0/metrics.csv"))[0]["val/generator_loss"])
