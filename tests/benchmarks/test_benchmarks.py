"""Each command runs as a process, with the smallest settings, and prints what it promises. Nothing is timed."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import contention, inference, memory, onnx_runtime, timing
from benchmarks.sides import TORCH, Case, sides, step_flops
from tests.forks import Forked

ROOT = Path(__file__).parents[2]
SETTING = {"model": "seed8", "batch": 16, "threads": 1}
SMALL = ["--models", "seed8", "--batches", "16", "--threads", "1", "--json"]
BRIEF = ["--rounds", "1", "--seconds", "0.01"]
COMMANDS = {
    "train_step": [*SMALL, *BRIEF, "--no-compile"],
    "inference": [*SMALL, *BRIEF, "--no-compile", "--no-onnx"],
    "contention": [*SMALL, *BRIEF],
    "memory": [*SMALL, "--no-compile"],
    "epoch": [*SMALL, *BRIEF, "--examples", "32", "--epochs", "2", "--parts", "loop"],
    "scaling": ["--batches", "16,32", "--widths", "10", "--sizes", "28", "--threads", "1", "--json", *BRIEF],
    "first_step": ["batch_size=16", "threads=1"],
    "gan_step": ["--batches", "16", "--threads", "1", "--json", *BRIEF, "--no-compile"],
    "torch_loop": ["--examples", "320", "--epochs", "1", "--threads", "1"],
}
SIDES = {"ours", "eager", "eager, channels last", "ratio_to_eager", "ratio_to_faster", "ratio_to_fastest"}
FIELDS = {
    "train_step": SETTING.keys() | SIDES | {"gflops", "matrix_gflops", "share_of_peak"},
    "inference": SETTING.keys() | SIDES | {"ours_ms", "eager_ms", "eager, channels last_ms"},
    "memory": SETTING.keys() | {"ours", "eager", "ratio_to_eager"},
    "epoch": SETTING.keys() | {"part", "loop", "bare", "ratio"},
}


Printed = Callable[..., str]


@pytest.fixture
def printed(forked: Callable[..., Forked]) -> Printed:
    """Runs a command and gives what it prints."""

    def run(module: str, *more: str) -> str:
        process = forked([sys.executable, "-m", f"benchmarks.{module}", *COMMANDS[module], *more], ROOT)
        out, err = process.communicate()
        assert (process.wait(), err) == (0, "")
        return out

    return run


@pytest.mark.parametrize(
    "module", ["train_step", *(pytest.param(name, marks=pytest.mark.long) for name in FIELDS if name != "train_step")]
)
def test_a_case_is_a_row_of_json(module: str, printed: Printed) -> None:
    (row,) = json.loads(printed(module))
    assert row.keys() == FIELDS[module]
    assert SETTING.items() <= row.items()
    assert all(value > 0 for value in row.values() if not isinstance(value, str))


@pytest.mark.long
def test_a_pair_of_steps_is_measured_beside_both_formats_of_torch(printed: Printed) -> None:
    (row,) = json.loads(printed("gan_step"))
    assert row.keys() == {"batch", "threads", "eager, contiguous", *SIDES}
    assert all(value > 0 for value in row.values())


def test_scaling_measures_each_point_and_draws_them(printed: Printed, tmp_path: Path) -> None:
    rows = json.loads(printed("scaling", "--output", str(tmp_path / "scaling.png")))
    assert [(row["axis"], row["value"]) for row in rows] == [("batch", 16), ("batch", 32), ("width", 10), ("size", 28)]
    assert rows[0].keys() >= {"ours", "eager", "ratio_to_eager", "ratio_to_faster"} | {
        "gflops",
        "matrix_gflops",
        "flops_per_image",
    }
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_first_step_ends_after_it(printed: Printed, tmp_path: Path) -> None:
    """The part `start` begins with an empty cache, and compiling takes too long for a test."""
    assert printed("first_step", f"run_dir={tmp_path / 'run'}").startswith("data: ")
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 1


def test_torch_loop_prints_an_accuracy(printed: Printed) -> None:
    assert 0 < float(printed("torch_loop")) <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't reset the peak")
def test_peak_memory_sees_what_was_given_back() -> None:
    memory.reset_peak()
    before = memory.peak_bytes()
    with mmap.mmap(-1, 64 << 20) as taken:  # of the system itself: an allocator may keep what is freed
        taken.write(os.urandom(1 << 20) * 64)
    assert memory.peak_bytes() - before >= 60 << 20
    memory.reset_peak()
    assert memory.peak_bytes() - before < 60 << 20


@pytest.mark.long
def test_without_a_compiler_torch_compile_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "/there/is/none")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert sides(compiled=True) == ["ours", "eager", "eager, channels last"]
    told = capfd.readouterr().err
    assert told.startswith("torch.compile doesn't work here and is left out: ")
    assert told.count("\n") == 1


def test_every_model_is_built_in_a_process_that_has_imported_nothing_else() -> None:
    code = "from benchmarks.sides import MODELS, Case\nfor model in MODELS: Case(model, 1).network()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_operations_of_a_step() -> None:
    """The first convolution's input gradient is left out: 10 x 26 x 26 outputs of 9 products, 8 sums and a bias."""
    network = Case("seed8", 1).network()
    assert step_flops(network) == 3 * network.flops((1, 28, 28)) - 10 * 26 * 26 * (9 + 8 + 1)


TIMES = {
    "ours": [1.0, 2.0, 4.0],
    "eager": [2.0, 8.0, 4.0],
    "compile": [3.0, 4.0, 8.0],
    "eager, channels last": [1.5, 2.0, 6.0],
}


def test_ratios_are_those_of_each_round() -> None:
    row = timing.compare(TIMES, images=8)
    speeds = {"ours": 4.0, "eager": 2.0, "compile": 2.0, "eager, channels last": 4.0}
    assert row == {**speeds, "ratio_to_eager": 2.0, "ratio_to_faster": 2.0, "ratio_to_fastest": 1.0}


def test_onnx_runtime_is_compared_with_on_its_own() -> None:
    row = inference.speeds({**TIMES, "onnxruntime": [0.5, 0.5, 0.5]}, images=8)
    own = {"onnxruntime": 16.0, "onnxruntime_ms": 500.0, "ratio_to_onnxruntime": 0.25}
    assert row == {**inference.speeds(TIMES, images=8), **own}


def test_without_onnx_runtime_its_columns_stay_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {**SETTING, **inference.speeds({"ours": [1.0], "eager": [2.0]}, images=16)}
    monkeypatch.setattr(inference, "by_threads", lambda measure, cases, chosen, options: [measured])
    monkeypatch.setattr(onnx_runtime, "problem", lambda: "No module named 'onnx'")
    monkeypatch.setattr("sys.argv", ["inference", "--no-compile"])
    inference.main()
    out, err = capsys.readouterr()
    title, row = out.splitlines()
    assert "onnxruntime ms" in title
    assert title.endswith("to onnxruntime")
    assert row.endswith("  2.00")
    assert err.count("\n") == 1
    assert "No module named 'onnx'" in err
    assert measured.keys().isdisjoint(inference.MISSING)


def test_onnx_runtime_computes_what_its_network_does() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    case = Case("seed8", 2)
    network, images = case.peer().eval(), TORCH["eager"].images(case.draw().x)
    outputs: Any = onnx_runtime.forward_pass(network, images, 1)()
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(outputs[0]), network(images), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_images_of_one_channel_are_in_a_memory_format_too(batch: int) -> None:
    """Strides say so: torch takes a tensor of one channel for one of either format and runs it as a contiguous one."""
    x = Case("seed8", batch, size=5).draw().x
    both = [TORCH[side].images(x) for side in ("eager", "eager, channels last")]
    assert [images.stride() for images in both] == [(25, 25, 5, 1), (25, 1, 5, 1)]
    assert all(torch.equal(images, x.movedim(-1, 0)) for images in both)


def test_contention_compares_with_one_thread_and_with_one_training() -> None:
    speeds = {"quiet": [8.0, 8.0, 8.0], "busy": [2.0, 4.0, 4.0], "first": [1.0, 2.0, 3.0], "second": [3.0, 2.0, 2.0]}
    row = contention.compare(speeds, one=[4.0, 4.0, 8.0], alone=[8.0, 4.0, 5.0])
    ratios = {"busy": 0.5, "first": 0.375, "second": 0.5}
    assert row == {
        **{"quiet": 8.0, "busy": 4.0, "first": 2.0, "second": 2.0, "sum": 4.0, "sum_to_alone": 1.0},
        **{f"{name}_to_one_thread": ratio for name, ratio in ratios.items()},
    }


@pytest.mark.long
def test_contention_has_a_row_for_each_side(printed: Printed) -> None:
    ours, peer = json.loads(printed("contention"))
    assert ours.keys() == peer.keys() == contention.COLUMNS.keys()
    assert (ours["side"], peer["side"]) in [("ours", side) for side in contention.EAGER]
    assert all(SETTING.items() <= row.items() for row in (ours, peer))
    assert all(value > 0 for value in ours.values() if not isinstance(value, str))


def test_busy_processes_are_killed_whatever_happens() -> None:
    processes: list[Any] = []

    def fail() -> None:
        with contention.busy(2) as started:
            processes.extend(started)
            assert [process.poll() for process in processes] == [None, None]
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert all(process.returncode for process in processes)


def test_a_busy_process_ends_with_the_one_that_started_it() -> None:
    with contention.busy(1) as (process,):
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdin = None


def test_a_table_leaves_out_what_was_not_measured() -> None:
    columns = {"model": ("model", ""), "ours": ("ours", ",.0f"), "compile": ("compile", ",.0f")}
    assert timing.table([{"model": "seed8", "ours": 1234.5}], columns) == "model   ours\nseed8  1,234"


def test_what_could_not_be_measured_is_an_empty_cell() -> None:
    assert timing.table([{"a": None, "b": 1.0}], {"a": ("first", ".2f"), "b": ("b", ".0f")}) == "first  b\n       1"


@pytest.mark.parametrize("arguments", [["--models", "seed9"], ["--batches", "0"], ["--threads", "100000"]])
def test_bad_options_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        timing.parser("x", "About.", models=[], batches=[], threads=[]).parse_args(arguments)
    assert "argument --" in capsys.readouterr().err
