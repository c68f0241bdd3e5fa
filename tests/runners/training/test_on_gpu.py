"""Training steps and whole runs on a GPU: graphs have the bits of launches, and one device continues another's run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnn import Mode, build_model
from cnn.losses import CrossEntropy
from cnn.ops import NotFinite
from cnn.optimizers import Adam
from cnn.schedules import OneCycle, RunLength
from runners.cli import predict, train
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task
from runners.training.capturing import Steps
from tests.cnn.gpu.device import ON_A_GPU
from tests.cnn.test_trajectory import shipped
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tests.runners.training.test_resume import DROPOUT
from tools.small_runs import SMALL_MODEL, outcome

pytestmark = [*ON_A_GPU]

ROOT = Path(__file__).parents[3]
STEPS = 50
LENGTH = RunLength(STEPS, 1)
SIZES = 128, 128, 128, 97
"""Of the batches, in turn; each size is a graph of its own."""

NOISY: list[Any] = [
    {"conv2d": {"out_channels": 8, "kernel_size": 3}},
    *("batch_norm", "relu", {"dropout2d": {"p": 0.3}}, {"max_pool2d": {"kernel_size": 2}}),
    *("flatten", {"dropout": {"p": 0.4}}, {"linear": {"out_features": 10}}),
]
MODELS: dict[str, Callable[[], Any]] = {
    "seed8": lambda: shipped("seed8")["layers"],
    "resnet13": lambda: shipped("resnet13")["layers"],
    "dropout": lambda: NOISY,
}


def task_of(model: str) -> Task:
    task = Classification()
    task.build({"model": build_model({"layers": MODELS[model]()}, (1, 28, 28), seed=1, device="cuda")}, CrossEntropy())
    task.train_with({"model": (Adam(lr=0.01), OneCycle())})
    return task


def batch_of(index: int) -> Batch:
    generator, size = torch.Generator().manual_seed(index), SIZES[index % len(SIZES)]
    x, targets = torch.randn(1, 28, 28, size, generator=generator), torch.randint(0, 10, (size,), generator=generator)
    return Batch(x.cuda(), targets.cuda())


class Taker:
    """Takes steps of a task, with noise from a generator that each step seeds."""

    def __init__(self, model: str, *, capture: bool) -> None:
        self.task = task_of(model)
        self.steps = Steps(self.task, capture=capture)
        self.sums = Sums()
        self._noise = torch.Generator("cuda")

    def take(self, index: int, batch: Batch | None = None) -> None:
        step = Step(index, LENGTH, Mode(train=True, generator=self._noise.manual_seed(index)))
        self.sums.merge(self.steps.take([batch or batch_of(index)], step))

    def kept(self) -> dict[str, Tensor]:
        """Weights, buffers and the optimizer's moments."""
        found: dict[str, Any] = dict(self.task.graphs["model"].state())
        found |= {f"Adam's {name}": value for name, value in self.task.trained["model"].optimizer.state().items()}
        return {name: value.cpu().clone() for name, value in found.items() if isinstance(value, Tensor)}

    def captured(self) -> int:
        """How many kinds of steps are replayed."""
        return sum(each is not None and each.checked for each in self.steps._seen.values())


def trained(model: str, *, capture: bool = True, steps: int = STEPS) -> Taker:
    taker = Taker(model, capture=capture)
    for index in range(steps):
        taker.take(index)
    taker.steps.wait()
    return taker


def differences(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that differ in a bit."""
    assert a.keys() == b.keys()
    return [
        name
        for name in a
        if not torch.equal(a[name].reshape(-1).view(torch.uint8), b[name].reshape(-1).view(torch.uint8))
    ]


@pytest.mark.parametrize("model", MODELS)
def test_graphs_have_the_bits_of_launches(model: str) -> None:
    plain, graphs = trained(model, capture=False), trained(model)
    assert not graphs.steps.refused
    assert (plain.captured(), graphs.captured()) == (0, 2)
    assert not differences(plain.kept(), graphs.kept())
    assert plain.sums.numbers() == graphs.sums.numbers()


@pytest.mark.parametrize("model", MODELS)
def test_two_runs_from_one_seed_have_the_same_bits(model: str) -> None:
    first, second = trained(model), trained(model)
    assert not differences(first.kept(), second.kept())
    assert first.sums.numbers() == second.sums.numbers()


def spoilt(index: int) -> Batch:
    batch = batch_of(index)
    batch.x[0, 3, 4, 2] = math.nan
    return batch


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("at", [20, 23])
def test_a_captured_step_that_finds_a_fault_changes_nothing(at: int, model: str) -> None:
    """Nor do those after it, which are queued before anybody knows of the fault."""
    taker = trained(model, steps=at)
    before = taker.kept()

    def go_on() -> None:
        taker.take(at, spoilt(at))
        for index in range(at + 1, at + 10):
            taker.take(index)

    with pytest.raises(NotFinite) as caught:
        go_on()
    assert caught.value.argument.index == at
    torch.cuda.synchronize()
    assert not differences(before, taker.kept())
    for index in range(at + 1, at + 5):
        taker.take(index)
    taker.steps.wait()  # the fault is over
    after = taker.kept()
    assert differences(before, after)
    assert all(bool(value.isfinite().all()) for value in after.values())


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_fault_before_steps_are_replayed_is_reported_at_once(at: int) -> None:
    """In the first step, in the one that is recorded and in the one that is checked."""
    taker = trained("seed8", steps=at)
    weights = taker.task.graphs["model"].flat.data
    before = weights.clone()
    with pytest.raises(NotFinite):
        taker.take(at, spoilt(at))
    assert torch.equal(weights, before)


@pytest.fixture
def gpu(run: Run) -> Run:
    """A small run on the GPU, of three epochs."""
    return lambda *overrides: run("device=cuda", "epochs=3", "schedule=constant", *overrides)


def result_of(run: str) -> Any:
    """An outcome, but for how much memory the run took, and for whether steps were captured."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            others = "gpu_memory_bytes", "capture", "digest"
            return {key: without(item) for key, item in value.items() if key not in others}
        return value

    return without(outcome(run))


@pytest.mark.parametrize("more", [[], [DROPOUT, "augment=heavy"]], ids=["plain", "dropout and augmentation"])
def test_a_run_that_was_stopped_ends_like_one_that_never_was(
    more: list[str], gpu: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu("run_dir=whole", *more) == 0
    assert status("whole")["device"] == "cuda"
    assert "replayed" not in Path("whole/run.log").read_text()  # no step was refused
    for step in (3, 8, 11):
        with monkeypatch.context() as patch:
            stop_at(step, patch)
            assert gpu(f"run_dir=stopped{step}", *more) == 143
        assert train.main([f"resume=stopped{step}"]) == 0
        assert result_of(f"stopped{step}") == result_of("whole")


def test_runs_with_and_without_graphs_end_alike(gpu: Run) -> None:
    """Also where the last batch is short, and gradients are accumulated and clipped."""
    for number, more in enumerate(([DROPOUT], ["accumulate=3", "clip_grad_norm=0.5"], ["batch_size=17"])):
        for capture in ("true", "false"):
            assert gpu(f"run_dir={capture}{number}", f"capture={capture}", *more) == 0
        assert result_of(f"true{number}") == result_of(f"false{number}")


def test_the_cpu_resumes_a_run_of_a_gpu_with_a_warning(
    gpu: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert gpu("run_dir=a") == 143
    caplog.clear()
    assert train.main(["resume=a", "device=cpu", "resume_changed=true"]) == 0
    assert any(each.startswith("warning: device is now cpu instead of cuda (") for each in caplog.messages)
    assert (status("a")["state"], status("a")["device"]) == ("done", "cpu")


def test_divergence_names_the_layer(gpu: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu("run_dir=a", "optimizer.lr=1e30") == 1
    err = capsys.readouterr().err
    assert "isn't finite in step " in err
    assert "_1 " in err.partition("isn't finite")[0]
    assert status("a")["diverged"]


def test_gradients_agree_with_finite_differences(gpu: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu("debug=gradcheck") == 0
    assert "all gradients agree with finite differences (compiled kernels, float64)" in capsys.readouterr().out


def started(arguments: Sequence[str], folder: Path, **environment: str) -> str:
    """What a command prints that runs as a process of its own, and has nothing to complain of."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_trains_on_a_gpu_and_others_use_its_checkpoint_without_one(striped: Path, tmp_path: Path) -> None:
    data = ["data=idx", f"data.path={striped}", "data.val_examples=30", SMALL_MODEL, "batch_size=16"]
    started([str(ROOT / "run.py"), *data, "device=cuda", "epochs=2", "run_dir=a"], tmp_path)
    assert status(str(tmp_path / "a"))["device"] == "cuda"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    answer = json.loads(started(["-m", "runners.evaluate", "a", "--json"], tmp_path, **hidden))
    saved = json.loads((tmp_path / "a" / "summary.json").read_text())["test"]
    assert answer["test/accuracy"] == pytest.approx(saved["test/accuracy"], abs=0.05)
    Image.fromarray(np.full((10, 10), 120, np.uint8)).save(tmp_path / "grey.png")
    answer = json.loads(
        started([str(ROOT / "predict.py"), "a", "grey.png", "--json"], tmp_path, CUDA_VISIBLE_DEVICES="")
    )
    assert answer["label"] in {"0", "1", "2"}


def test_predictions_of_a_run_on_a_gpu(gpu: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu("run_dir=a") == 0
    Image.fromarray(np.full((10, 10), 120, np.uint8)).save("grey.png")
    capsys.readouterr()
    assert predict.main(["a", "grey.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in {"0", "1", "2"}
