"""Runs of generative tasks like any other: stopped, killed and resumed, judged, reported, checked."""

from __future__ import annotations

import itertools
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

from cnn import losses
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
ADVERSARIAL = (losses.NonSaturating, losses.LeastSquares, losses.Hinge, losses.Wasserstein)
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
WIDE_ENCODER = "encoder.layers=[flatten,{linear:{out_features:64}},relu,{linear:{out_features:6}}]"
WIDE_DECODER = (
    "decoder.layers=[{linear:{out_features:64}},relu,{linear:{out_features:64}},relu,{linear:{out_features:100}},"
    "{reshape:{shape:[1,10,10]}}]"
)
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
    pair = [*PAIR, f"task.judge={judge}", "task.conditional=true", "task.eval_every=3", "epochs=4"]
    assert run("run_dir=a", *last_given(pair)) == 0
    out = capsys.readouterr().out
    rows = metrics_csv.read(Path("a", "metrics.csv"))
    assert [("val/frechet" in row) for row in rows] == [True, False, True, False]
    assert all({"val/precision", "val/recall", "val/agreement"} <= row.keys() for row in (rows[0], rows[2]))
    summary = json.loads(Path("a", "summary.json").read_text())
    assert summary["best"]["epoch"] == min((rows[0], rows[2]), key=lambda row: row["val/frechet"])["epoch"]
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
    assert capsys.readouterr().err.splitlines() == [expected]
    assert not Path("a").exists()
    pair.append(f"data.path={write_dataset(tmp_path / 'more', count=400)}")
    assert run("run_dir=a", *pair) == 0
    assert "making the classifier that judges samples of these data, once: " in capsys.readouterr().out
    [made] = [path for path in (tmp_path / "cache/cnn-from-scratch/judges").iterdir() if path.is_dir()]
    before = (made / "checkpoints/best.pkl").read_bytes()
    assert run("run_dir=b", *pair) == 0
    assert "making" not in capsys.readouterr().out
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


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("mode", ["summary", "gradcheck", "fast"])
def test_debug_modes(mode: str, name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"debug={mode}", "run_dir=a", "kernels=reference", *last_given(TASKS[name][1])) == 0
    out = capsys.readouterr().out
    assert {"summary": "total per example", "gradcheck": "all gradients agree", "fast": "run directory a"}[mode] in out


@pytest.mark.parametrize(
    ("overrides", "learnt"),
    [
        (PAIR, ["discriminator: one batch of 16 examples learnt", "generator: one batch of 16 examples learnt"]),
        ([*PAIR, "loss=hinge"], ["discriminator: one batch", "generator: one batch"]),
        ([*CODED, WIDE_ENCODER, WIDE_DECODER], ["one batch of 16 examples learnt"]),
        (DENOISED[:2] + DENOISED[3:], ["one batch of 16 examples learnt"]),
    ],
    ids=["gan", "hinge", "vae", "autoencoder"],
)
def test_overfit_learns_a_batch(
    overrides: list[str], learnt: list[str], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("debug=overfit", "optimizer.lr=0.02", *last_given(overrides)) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    for line, beginning in itertools.zip_longest(lines, learnt):
        assert line.startswith(beginning)


def test_a_divergence_names_the_network_and_the_layer(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = GAN.train_step

    def spoilt(self: GAN, batches: Any, step: Any, sums: Any) -> None:
        if step.index == 3:
            self.graphs["generator"].layers["batch_norm_1"].eps = float("nan")  # type: ignore[attr-defined]
        sound(self, batches, step, sums)

    monkeypatch.setattr(GAN, "train_step", spoilt)
    assert run("run_dir=a", *PAIR) == 1
    err = capsys.readouterr().err
    assert "the output of generator.batch_norm_1 isn't finite in step 4 of epoch 1 (lr/generator" in err


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


def doubled(sound: Any) -> Any:
    return lambda self, *arguments: 2 * sound(self, *arguments)


def halved_value(sound: Any) -> Any:
    """The loss, but half of it: its gradient is then twice too large."""

    def halved(self: Any, *arguments: Any) -> Any:
        value, cache = sound(self, *arguments)
        return value / 2, cache

    return halved


@pytest.mark.parametrize(
    ("loss", "method", "broken", "wrong"),
    [
        *((loss, "backward", doubled, ["generator", "discriminator"]) for loss in ADVERSARIAL),
        *((loss, "forward", halved_value, ["discriminator"]) for loss in ADVERSARIAL),
        *((loss, "of_generator", halved_value, ["generator"]) for loss in ADVERSARIAL),
        (losses.LipschitzPenalty, "backward", doubled, ["discriminator"]),
        (losses.NegativeELBO, "backward", doubled, ["encoder"]),
        (losses.BCEWithLogits, "backward", doubled, ["encoder", "decoder"]),
    ],
)
def test_a_broken_loss_is_caught_at_the_network_that_it_trains(
    loss: Any,
    method: str,
    broken: Any,
    wrong: list[str],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loss, method, broken(getattr(loss, method)))
    adversarial = "wasserstein" if loss is losses.LipschitzPenalty else loss.kind
    task = CODED if loss in (losses.NegativeELBO, losses.BCEWithLogits) else [*PAIR, f"loss={adversarial}"]
    assert run("debug=gradcheck", "kernels=reference", *last_given(task)) == 1
    verdict = next(line for line in capsys.readouterr().out.splitlines() if "wrong: " in line)

    for name in wrong:
        assert f"{name}.loss" in verdict
        assert f"{name}.network and loss" in verdict
    for name in {"generator", "discriminator", "encoder", "decoder"} - set(wrong):
        assert f"{name}.loss" not in verdict
