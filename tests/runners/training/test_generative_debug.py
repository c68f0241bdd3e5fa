"""debug=summary, gradcheck, overfit and fast for generative tasks, broken losses, and what a divergence names."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cnn import losses
from runners.tasks.gan import GAN
from tests.runners.conftest import Run
from tests.runners.training.test_generative_runs import CODED, DENOISED, PAIR, TASKS, last_given

ADVERSARIAL = (losses.NonSaturating, losses.LeastSquares, losses.Hinge, losses.Wasserstein)
WIDE_ENCODER = "encoder.layers=[flatten,{linear:{out_features:64}},relu,{linear:{out_features:6}}]"
WIDE_DECODER = (
    "decoder.layers=[{linear:{out_features:64}},relu,{linear:{out_features:64}},relu,{linear:{out_features:100}},"
    "{reshape:{shape:[1,10,10]}}]"
)


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
    assert run("run_dir=a", "capture=false", *PAIR) == 1
    err = capsys.readouterr().err
    assert "the output of generator.batch_norm_1 isn't finite in step 4 of epoch 1 (lr/generator" in err


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
