"""Whole runs with replayed steps end with the bits of runs without; either resumes the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnn.ops.replays import Captured
from cnn.ops.threads import available_threads
from runners.cli import train
from runners.files import checkpoint
from runners.tasks.classification import Classification
from runners.training.capturing import Steps
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at_step_of
from tests.runners.training.steps import never
from tests.runners.training.test_generative_runs import CODED, DENOISED, PAIR, TASKS, last_given
from tests.runners.training.test_resume import DROPOUT
from tools.small_runs import outcome

RUNS: dict[str, tuple[Any, list[str]]] = {
    "classifier": (Classification, ["schedule=one_cycle", "augment=shift"]),
    "dropout, accumulated and clipped": (Classification, [DROPOUT, "accumulate=3", "clip_grad_norm=0.5", "epochs=3"]),
    "gan": (TASKS["gan"][0], [*PAIR, "task.critic_steps=2", "epochs=3"]),
    "vae": (TASKS["vae"][0], [*CODED, "task.beta_warmup_steps=5"]),
    "denoiser": (TASKS["denoiser"][0], DENOISED),
}
NUMPY = '''
import numpy as np
from cnn import Layer


class Halved(Layer):
    """Numpy computes half of the input; `calls` counts how often."""

    kind = "halved"
    calls = 0

    def forward(self, x, mode):
        self.calls += 1
        return x * float(np.float32(0.5) + np.abs(x.numpy()).max() * self.calls / 1000), mode.keep()

    def backward(self, dy, cache, *, need_dx=True, need_dparams=True):
        cache.take()
        return dy * 0.5
'''


def without_setting(value: Any) -> Any:
    """An outcome, but for whether steps were replayed, and with how many threads."""
    settings = "capture", "digest", "threads", "threads_fixed"
    if isinstance(value, dict):
        return {key: without_setting(item) for key, item in value.items() if key not in settings}
    return value


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are replayed from now on."""
    taken: list[int] = []
    sound = Captured.play

    def counted(self: Captured[Any, Any], batches: Any, step: Any) -> Any:
        if step is not None:  # and not an evaluation
            taken.append(step.index)
        return sound(self, batches, step)

    monkeypatch.setattr(Captured, "play", counted)
    return taken


@pytest.mark.parametrize("name", RUNS)
def test_runs_with_and_without_replays_end_alike(
    name: str, run: Run, replays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they were stopped in an epoch, and resumed with the other setting."""
    task, overrides = RUNS[name][0], last_given(RUNS[name][1])
    assert run("run_dir=plain", "capture=false", *overrides) == 0
    assert not replays
    expected = without_setting(outcome("plain"))
    assert run("run_dir=replayed", *overrides) == 0
    assert without_setting(outcome("replayed")) == expected
    assert len(replays) >= checkpoint.load(Path("replayed/checkpoints/last.pkl")).step // 2 - 2
    assert "replayed" not in Path("replayed/run.log").read_text()
    for step, before in ((3, "true"), (5, "false"), (7, "true")):
        with monkeypatch.context() as patch:
            stop_at_step_of(task, step, patch)
            assert run(f"run_dir=stopped{step}", f"capture={before}", *overrides) == 143
        assert checkpoint.load(Path(f"stopped{step}", "checkpoints/last.pkl")).step == step
        other = {"true": "false", "false": "true"}[before]
        assert train.main([f"resume=stopped{step}", f"capture={other}"]) == 0
        assert without_setting(outcome(f"stopped{step}")) == expected


def test_a_layer_of_ones_own_by_numpy_trains_as_python_and_the_log_says_so(run: Run, replays: list[int]) -> None:
    Path("halved.py").write_text(NUMPY)
    layers = "model.layers=[halved,{conv2d:{out_channels:4,kernel_size:3}},relu,flatten,{linear:{out_features:3}}]"
    own = [f"extensions=[{Path('halved.py').resolve()}]", layers]
    assert run("run_dir=plain", "capture=false", *own) == 0
    assert run("run_dir=a", *own) == 0
    assert without_setting(outcome("a")) == without_setting(outcome("plain"))
    assert len(replays) == 1  # the check
    assert Path("a/run.log").read_text().count("training steps aren't replayed: a replay gives other values") == 1
    assert "replayed" not in Path("plain/run.log").read_text()


def test_reference_kernels_are_not_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Steps, "_record", never)
    assert run("run_dir=a", "kernels=reference") == 0


@pytest.mark.skipif(available_threads() == 1, reason="there is no other number of threads")
@pytest.mark.parametrize("name", RUNS)
def test_the_number_of_threads_changes_no_bit(name: str, run: Run) -> None:
    overrides = last_given(RUNS[name][1])
    assert run("run_dir=one", "threads=1", *overrides) == 0
    for settings in (["threads=2", "threads_fixed=true"], ["threads=2"], ["threads=2", "capture=false"]):
        folder = "_".join(settings)
        assert run(f"run_dir={folder}", *settings, *overrides) == 0
        assert without_setting(outcome(folder)) == without_setting(outcome("one"))
