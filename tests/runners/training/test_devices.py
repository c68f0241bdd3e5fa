"""What a run says of its device, and what it keeps of it. Where a test needs a GPU's answer, it gives a made-up one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
import yaml

from cnn import ops
from cnn.ops import backend, precision
from runners.cli import train
from runners.config.settings import Settings
from runners.files import checkpoint, plain_pickle
from runners.training import devices
from runners.training.capturing import Steps
from tests.runners.conftest import Run
from tests.runners.outcomes import status
from tests.runners.training.test_generative_runs import PAIR, last_given
from tools.small_runs import outcome, write_dataset

Capture = pytest.CaptureFixture[str]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MISSING = "Triton is missing: install it"
SLOWER = f"{MISSING}; plain torch operations are used on the GPU, which are slower"


@pytest.fixture(autouse=True)
def full_precision_again() -> Iterator[None]:
    """The precision belongs to the process, and the next test may look at it."""
    yield
    ops.set_precision("float32")


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A backend for GPUs that can't be loaded; returns a list with an item for each attempt."""
    attempts = []

    def unfit() -> NoReturn:
        attempts.append("")
        raise ops.Unfit(MISSING)

    monkeypatch.setattr(backend, "_waiting", {})
    monkeypatch.setattr(backend, "_unfit", {})
    backend.register_when_needed("cuda", unfit)
    return attempts


def settings(**given: Any) -> Settings:
    base: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 1,
        "seed": 0,
        "dtype": "float32",
        "device": "auto",
        "kernels": "compiled",
    }
    return Settings(**(base | given))


def lines_with(text: str, file: str) -> list[str]:
    return [line for line in Path(file).read_text().splitlines() if text in line]


WITHOUT_EFFECT: dict[str, tuple[dict[str, Any], torch.device, str]] = {
    "a CPU": ({}, CPU, "on device cpu: products are computed in float32"),
    "a GPU of Apple": ({}, torch.device("mps"), "on device mps: products are computed in float32"),
    "the reference": ({"kernels": "reference"}, CUDA, "with kernels=reference: products are computed in float32"),
    "float64": ({"dtype": "float64"}, CUDA, "with dtype=float64: products are computed in float64"),
}


@pytest.mark.parametrize("name", ["tf32", "bf16"])
@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_a_precision_without_effect_is_noted(case: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "load_backends", lambda device: [])
    changed, device, expected = WITHOUT_EFFECT[case]
    assert devices.notes(settings(precision=name, **changed), device) == [f"precision={name} has no effect {expected}"]
    assert devices.notes(settings(**changed), device) == []


def test_a_precision_with_an_effect_is_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "load_backends", lambda device: [])
    assert devices.notes(settings(precision="tf32"), CUDA) == []


def test_kernels_that_cannot_be_used_are_noted_where_they_would_be(no_triton: list[str]) -> None:
    assert devices.notes(settings(kernels="reference"), CUDA) == devices.notes(settings(), CPU) == []
    assert no_triton == []
    assert devices.notes(settings(), CUDA) == devices.notes(settings(), CUDA) == [SLOWER]
    assert no_triton == [""]
    without = "precision=bf16 has no effect without compiled kernels: products are computed in float32"
    assert devices.notes(settings(precision="bf16"), CUDA) == [SLOWER, without]


def test_a_run_prints_and_logs_each_note_once(
    no_triton: list[str], run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    of_device = devices.notes
    monkeypatch.setattr(devices, "notes", lambda settings, device: of_device(settings, CUDA))
    assert run("run_dir=a", "epochs=1") == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "note" in line] == [f"note: {SLOWER}"]
    assert [line.partition(" ")[2] for line in lines_with("note", "a/run.log")] == [f"WARNING note: {SLOWER}"]


def test_precision_is_that_of_the_config_and_changes_nothing_on_a_cpu(run: Run, capsys: Capture) -> None:
    assert run("run_dir=a", "precision=tf32") == 0
    assert precision.chosen() == "tf32"
    note = "note: precision=tf32 has no effect on device cpu: products are computed in float32"
    assert [line for line in capsys.readouterr().err.splitlines() if "note" in line] == [note]
    assert run("run_dir=b") == 0
    assert precision.chosen() == "float32"
    assert "note" not in capsys.readouterr().err
    assert lines_with("note", "b/run.log") == []
    ours, expected = outcome("a"), outcome("b")
    assert ours["rows"] == expected["rows"]
    assert ours["last"]["networks"] == expected["last"]["networks"]


def test_an_unknown_precision_is_refused(run: Run, capsys: Capture) -> None:
    assert run("run_dir=a", "precision=fp16") == 2
    assert capsys.readouterr().err == "error: precision: 'fp16' is not allowed, give one of float32, tf32, bf16\n"


def test_gradients_are_checked_whatever_the_precision(run: Run, capsys: Capture) -> None:
    assert run("debug=gradcheck", "precision=bf16") == 0
    assert "all gradients agree with finite differences (compiled kernels, float64)" in capsys.readouterr().out


def test_a_judge_is_made_in_full_precision_and_serves_every_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = f"data.path={write_dataset(tmp_path / 'more', count=400)}"
    pair = last_given([*PAIR, "task.judge=auto", "epochs=1", data])
    assert run("run_dir=a", "precision=tf32", *pair) == 0
    assert precision.chosen() == "tf32"
    [made] = [path for path in (tmp_path / "cache/cnn-from-scratch/judges").iterdir() if path.is_dir()]
    assert yaml.safe_load((made / "config.yaml").read_text())["precision"] == "float32"
    capsys.readouterr()
    assert run("run_dir=b", *pair) == 0
    assert "making" not in capsys.readouterr().err


@pytest.mark.parametrize("given", ["precision=tf32", "precision=bf16"])
def test_another_precision_in_a_resume_is_wanted_twice(given: str, stopped: Run, capsys: Capture) -> None:
    assert train.main(["resume=a", given]) == 2
    name = given.partition("=")[2]
    problem = f"changing it from 'float32' to '{name}' affects what this run computes: add resume_changed=true"
    assert f"error: precision: {problem}" in capsys.readouterr().err
    assert train.main(["resume=a", given, "resume_changed=true"]) == 0
    assert checkpoint.load(Path("a/checkpoints/last.pkl")).config["precision"] == name


def test_a_run_from_before_there_was_a_precision_was_in_float32(stopped: Run, capsys: Capture) -> None:
    for which in ("last", "previous"):
        file = Path(f"a/checkpoints/{which}.pkl")
        content = plain_pickle.read(file)
        del content["config"]["precision"]
        plain_pickle.write(file, content)
    assert train.main(["resume=a", "precision=tf32"]) == 2
    assert "precision: changing it from 'float32' to 'tf32' affects" in capsys.readouterr().err
    assert train.main(["resume=a", "precision=float32"]) == 0
    assert train.main(["resume=a", "precision=float32"]) == 0
    assert capsys.readouterr().out.endswith("a: already finished; give a larger epochs=N to train further\n")


def test_memory_and_name_of_a_gpu_are_kept(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    used, take = [0], Steps.take

    def step(self: Steps, *arguments: Any) -> Any:
        used[0] += 10**6
        return take(self, *arguments)

    monkeypatch.setattr(Steps, "take", step)
    monkeypatch.setattr(devices, "reset_peak_memory", lambda device: used.__setitem__(0, 0))
    monkeypatch.setattr(devices, "peak_memory", lambda device: used[0])
    monkeypatch.setattr(devices, "gpu_name", lambda device: "NVIDIA L4")
    for name, epochs in (("a", 2), ("b", 1)):  # of 8 steps
        assert run(f"run_dir={name}", f"epochs={epochs}") == 0
        assert json.loads(Path(name, "summary.json").read_text())["gpu_memory_bytes"] == epochs * 8 * 10**6
        assert f" images/s in training, {epochs * 8} MB of GPU memory\n" in capsys.readouterr().out
        assert (status(name)["device"], status(name)["device_name"]) == ("cpu", "NVIDIA L4")


def test_nothing_of_a_gpu_is_kept_without_one(run: Run, capsys: Capture) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    assert "gpu_memory_bytes" not in json.loads(Path("a/summary.json").read_text())
    assert "GPU" not in capsys.readouterr().out
    assert status("a")["device_name"] is None


def test_versions_are_those_of_what_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"python", "torch", "numpy"}
    assert devices.versions(CPU).keys() == common | {"numba"}
    assert devices.versions(torch.device("mps")).keys() == common
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.6.0"))
    assert devices.versions(CUDA) == {name: devices.versions(CPU)[name] for name in common} | {"triton": "3.6.0"}
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it weren't installed
    assert devices.versions(CUDA).keys() == common


def changed_status(**values: Any) -> None:
    Path("a/status.json").write_text(json.dumps(status("a") | values))


def warnings_of_resume(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    assert train.main(["resume=a"]) == 0
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def warning_of(name: str, now: str, before: str) -> str:
    return f"warning: {name} is now {now} instead of {before}: results may differ in their last bits"


def test_a_run_that_comes_from_a_gpu_is_warned_of_that_alone(stopped: Run, caplog: pytest.LogCaptureFixture) -> None:
    versions = {name: version for name, version in devices.versions(CPU).items() if name != "numba"}
    changed_status(device="cuda", device_name="NVIDIA L4", versions=versions | {"triton": "3.6.0"})
    assert warnings_of_resume(caplog) == [warning_of("device", "cpu", "cuda (NVIDIA L4)")]
    assert status("a")["versions"] == devices.versions(CPU)
    assert status("a")["device_name"] is None


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({"device_name": "NVIDIA L4"}, []),
        ({"device_name": "NVIDIA T4"}, [warning_of("device", "cpu (NVIDIA L4)", "cpu (NVIDIA T4)")]),
        ({"device_name": None}, []),  # of a run from before cards were noted
        ({"device": "cuda", "device_name": None}, [warning_of("device", "cpu (NVIDIA L4)", "cuda")]),
        ({"device": None, "device_name": "NVIDIA T4"}, []),
        ({"versions": {"numba": "0.1"}}, [warning_of("numba", devices.versions(CPU)["numba"], "0.1")]),
    ],
    ids=str,
)
def test_another_card_is_warned_of(
    before: dict[str, Any],
    expected: list[str],
    stopped: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(devices, "gpu_name", lambda device: "NVIDIA L4")
    changed_status(**before)
    assert warnings_of_resume(caplog) == expected
