"""What is measured on a GPU, as far as it can be tried without one: sides, rows and tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

from benchmarks import gpu, gpu_profile, gpu_sides, gpu_tiles, gpu_timing, gpu_warm
from benchmarks.gpu_sides import MODELS, PEERS, GpuCase, Ours, Peer, chosen_peers
from benchmarks.timing import Step
from cnn import Mode, ops
from cnn.ops import backend, replays
from cnn.ops.cuda.launching import launch
from cnn.ops.graphs import GraphEngine
from tests.cnn.oracle import compare, randomised
from tests.graphs import StandIn

ROOT = Path(__file__).parents[2]
SMALL = GpuCase("blocks", 4)


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is the device, and a stand-in records torch's operations instead of CUDA."""
    monkeypatch.setattr(gpu_sides, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    device = StandIn()
    monkeypatch.setattr(replays, "_engine_for", lambda _: GraphEngine(device))
    for name, empty in (("_backends", []), ("_waiting", {}), ("_found", {})):
        monkeypatch.setattr(backend, name, empty)
    monkeypatch.setattr(ops.precision, "_chosen", "float32")


def test_resnet20_is_its_peer() -> None:
    case = GpuCase("resnet20", 2)
    network = randomised(case.network())
    assert network.flat.data.numel() == sum(parameter.numel() for parameter in case.peer().parameters())
    assert sum("conv2d" in name for name, layer in network.named_layers()) == 1 + 2 * 9 + 2
    with ops.kernels("reference"):
        errors = compare(network, case.peer(), case.draw().x.double(), Mode(train=True), as_one=True)
    assert max(errors.values()) <= 1e-9


def test_every_model_has_a_case() -> None:
    assert MODELS == ("seed8", "blocks", "lenet", "resnet13", "resnet20")


def test_our_step_is_replayed(on_the_cpu: None) -> None:
    ours = Ours(SMALL, "float32")
    ours.warm()
    weights = ours.steps.task.graphs["model"].flat.data
    before = weights.clone()
    ours.take()
    ours.steps.wait()
    assert not torch.equal(weights, before)
    before = weights.clone()
    ours.replay()
    assert not torch.equal(weights, before)


def test_a_step_that_is_not_replayed_is_no_measurement(on_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays.Captured, "play", lambda *arguments: 1 / 0)
    with pytest.raises(RuntimeError, match="not replayed: a replay can't be checked"):
        Ours(SMALL, "float32").warm()


@pytest.fixture
def flags() -> Iterator[None]:
    """What a peer sets for the process is put back."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


@pytest.mark.usefixtures("on_the_cpu", "flags")
@pytest.mark.parametrize("peer", [*PEERS["eager"], Peer("eager", "bf16")], ids=lambda peer: str(peer.name))
def test_eager_peers_train(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SMALL.peer()
    monkeypatch.setattr(GpuCase, "peer", lambda case: made)
    before = [parameter.detach().clone() for parameter in made.parameters()]
    peer.step(SMALL)()
    assert any(not torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    assert torch.backends.cudnn.allow_tf32 == (peer.precision == "tf32")


def test_bf16_is_measured_beside_ours_alone() -> None:
    assert [peer.name for peer in chosen_peers(["graph"], ["float32", "tf32"])] == [
        "graph float32, channels last",
        "graph tf32, channels last",
    ]
    assert len(chosen_peers([*PEERS], ["bf16"])) == 9


def fake_times() -> dict[str, list[float]]:
    return {
        "ours float32": [1e-4, 2e-4, 4e-4],
        "replay float32": [1e-4, 1e-4, 2e-4],
        "eager float32": [3e-4, 8e-4, 8e-4],
        "eager float32, channels last": [4e-4, 4e-4, 9e-4],
        "graph bf16, channels last": [1e-4, 1e-4, 1e-4],
    }


FAILED = {"ours bf16": "OutOfMemoryError: no", "eager tf32": "Error: a", "eager tf32, channels last": "Error: b"}


def fake_rows() -> list[dict[str, Any]]:
    peers = [*PEERS["eager"], PEERS["graph"][2]]
    return gpu.rows_of(GpuCase("seed8", 128), ["float32", "bf16"], peers, fake_times(), FAILED)


def test_rows() -> None:
    """Of each kind of peer the smallest time of each round counts."""
    float32, bf16 = fake_rows()
    assert (float32["ours"], float32["replay"], float32["images"]) == (200.0, 100.0, 640_000)
    assert (float32["eager float32"], float32["eager tf32"]) == (400.0, "Error: a; Error: b")
    assert (float32["ratio_to_eager float32"], float32["replay_ratio_to_eager float32"]) == (2.0, 4.0)
    assert "ratio_to_graph bf16" not in float32
    assert (bf16["ours"], bf16["images"]) == ("OutOfMemoryError: no", None)
    assert bf16["ratio_to_graph bf16"] is None
    assert json.loads(json.dumps(fake_rows())) == fake_rows()


def test_the_table_names_what_failed() -> None:
    title, *lines = gpu.shown(fake_rows()).splitlines()
    assert title.split()[:3] == ["model", "batch", "precision"]
    assert len(lines) == 2
    assert "640,000" in lines[0]
    assert "OutOfMemoryError: no" in lines[1]


def test_a_side_that_fails_does_not_stop_the_others(on_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Peer, case: GpuCase) -> Step:
        if self.precision == "tf32":
            raise RuntimeError("CUDA out of memory\nmore")
        return lambda: None

    def fail(self: Ours) -> None:
        raise ValueError("fails later")

    monkeypatch.setattr(Peer, "step", step)
    monkeypatch.setattr(Peer, "prepare", lambda self: None)
    monkeypatch.setattr(Ours, "prepare", lambda self: None)
    monkeypatch.setattr(Ours, "__post_init__", lambda self: None)
    monkeypatch.setattr(Ours, "warm", lambda self: None)
    monkeypatch.setattr(Ours, "replay", lambda self: None)
    monkeypatch.setattr(Ours, "take", fail)
    [row] = gpu.measure(SMALL, ["float32"], PEERS["eager"], 2, 0.001)
    assert row["ours"] == "ValueError: fails later"
    assert row["eager float32"] >= 0
    assert row["eager tf32"] == "RuntimeError: CUDA out of memory; RuntimeError: CUDA out of memory"


@pytest.mark.usefixtures("on_the_cpu", "flags")
def test_a_case_is_measured() -> None:
    rows = gpu.measure(SMALL, ["float32", "tf32"], PEERS["eager"][:2], 2, 0.001)
    assert [row["precision"] for row in rows] == ["float32", "tf32"]
    for row in rows:
        assert row["failed"] == {}
        wanted = ["ours", "replay", "eager float32", "ratio_to_eager float32", "replay_ratio_to_eager float32"]
        assert all(row[name] > 0 for name in wanted)


COMMAND = ["gpu", "--models", "blocks", "--batches", "4", "--precisions", "float32", "--peers", "eager"]


@pytest.fixture
def measured(on_the_cpu: None, flags: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes the CPU for a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "machine", lambda: {"card": "none", "torch": "2"})
    monkeypatch.setattr(gpu_profile, "copy_rate", lambda: 1e12)
    monkeypatch.setattr(gpu_profile, "kernels_of", lambda ours: {"gather": (2.0, 30.0)})


def test_the_command_prints_a_table_or_lines(
    measured: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = ["--rounds", "1", "--seconds", "0.001"]
    monkeypatch.setattr("sys.argv", [*COMMAND, *brief, "--json"])
    assert gpu.main() == 0
    head, row = map(json.loads, capsys.readouterr().out.splitlines())
    assert head == {"card": "none", "torch": "2"}
    assert (row["model"], row["batch"], row["failed"]) == ("blocks", 4, {})
    monkeypatch.setattr("sys.argv", [*COMMAND, *brief])
    assert gpu.main() == 0
    head, titles, line = capsys.readouterr().out.splitlines()
    assert head == "card none, torch 2"
    assert titles.split()[:3] == ["model", "batch", "precision"]
    assert line.split()[:3] == ["blocks", "4", "float32"]


def test_the_command_prints_kernels(
    measured: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [*COMMAND, "--profile", "--json"])
    assert gpu.main() == 0
    _, rate, row = map(json.loads, capsys.readouterr().out.splitlines())
    assert rate == {"copy_bytes_a_second": 1e12}
    assert (row["nodes"], row["microseconds"]) == (2.0, 30.0)
    assert row["kernels"][0]["kernel"] == "gather"
    monkeypatch.setattr("sys.argv", [*COMMAND, "--profile"])
    assert gpu.main() == 0
    assert "gather" in capsys.readouterr().out.splitlines()[-1]


def test_bytes_are_those_of_a_kernels_tensors() -> None:
    """Each tensor once; the launch itself goes on."""
    launched: list[Any] = []

    class Kernel:
        __name__ = "gather"

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **options: launched.append((grid, options))

    x, y = torch.empty(10), torch.empty(3, dtype=torch.float64)
    with gpu_profile.noted_bytes() as found:
        for _ in range(2):
            launch(Kernel(), (2,), x, x, y, 7, num_warps=4)
    assert found == {"gather": 2 * (40 + 24)}
    assert launched == 2 * [((2,), {"num_warps": 4})]


def test_what_compiles_longest_comes_first() -> None:
    found = gpu_warm.jobs(["blocks", "resnet20"], [128, 512], ["float32", "tf32"])
    assert found[:3] == [("resnet20", 128, "float32"), ("blocks", 128, "float32"), ("resnet20", 128, "tf32")]
    assert len(found) == 8
    assert {*gpu_warm.COSTLY} == {*MODELS}
    assert gpu_warm.compile_step("blocks", 128, "float32", end=0.0) == "no time left"


def test_a_step_is_compiled_without_a_gpu() -> None:
    """In a process of its own, as kernels for GPUs serve all tensors there."""
    code = """
import time
from tests.cnn.gpu.compiled import NoDevice
from triton.runtime import driver
from benchmarks import gpu_warm
driver.set_active(NoDevice(90))
print(gpu_warm.compile_step("blocks", 128, "tf32", time.time() + 600) or "compiled")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert (done.stdout, done.stderr) == ("compiled\n", "")


def test_kernels_of_a_profile() -> None:
    kernels = {"gather": (2.0, 30.0), "void at::native::fill": (1.0, 10.0)}
    first, second = gpu_profile.rows_of(kernels, {"gather": 6e6}, 1e12)
    assert first == {
        **{"kernel": "gather", "launches": 2.0, "microseconds": 30.0, "share": 0.75, "megabytes": 6.0},
        "copy_share": pytest.approx(0.2),
    }
    assert (second["megabytes"], second["copy_share"]) == (None, None)
    assert gpu_profile.rows_of({}, {}, 1.0) == []


@pytest.mark.parametrize("module", ["gpu", "gpu_tiles"])
def test_without_a_gpu_nothing_is_measured(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Callable[[], int] = {"gpu": gpu.main, "gpu_tiles": gpu_tiles.main}[module]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", [module])
    assert main() == 2
    assert capsys.readouterr() == ("", "error: there is no GPU\n")
    monkeypatch.setattr("sys.argv", [module, "--models", "seed9"])
    with pytest.raises(SystemExit):
        main()


def test_an_error_is_a_line() -> None:
    assert gpu_timing.described(ValueError("a\nb")) == "ValueError: a"
    assert gpu_timing.described(ValueError()) == "ValueError: "
