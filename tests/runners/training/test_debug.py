"""debug=summary, gradcheck, overfit and fast; and gradcheck against a broken copy of every layer."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cnn import Cache
from cnn.graphs import GRAPHS
from cnn.layers import LAYERS
from cnn.layers.activation import ReLU
from cnn.ops.cpu import conv as direct
from cnn.ops.cpu.kernels import norm as norm_kernels
from cnn.ops.cpu.kernels import window as window_kernels
from runners.config import folders
from runners.errors import DebugFailed
from runners.files import metrics_csv
from runners.training import debug
from tests.runners.conftest import Run
from tests.runners.training.broken_layers import WRONG_FORMULAS, mistakes

WINDOW: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
TANH: list[Any] = [{"batch_norm": {}}, "tanh"]
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{f"conv{n}d": {"out_channels": 4, "groups": 2, **WINDOW} for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": {"out_channels": 4, "groups": 2, "output_padding": 1, **WINDOW} for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": WINDOW for kind in ("max", "avg") for n in (1, 2, 3)},
    "linear": {"out_features": 5},
    "embedding": {"num_embeddings": 7, "embedding_dim": 3, "padding_idx": 2},
    "group_norm": {"num_groups": 2},
    "prelu": {"num_parameters": 4},
    "reshape": {"shape": [2, -1]},
    "upsample": {"scale_factor": 2, "mode": "bilinear"},
    "pixel_shuffle": {"upscale_factor": 2},
    "dropout": {"p": 0.4},
    "dropout2d": {"p": 0.4},
    "dropout3d": {"p": 0.4},
    "instance_norm": {"affine": True},
    "sequential": {"layers": TANH},
    "repeat": {"times": 2, "layers": TANH},
    "residual": {"body": TANH},
    "spectral_norm": {"layers": [{"conv2d": {"out_channels": 4, **WINDOW}}]},
    "concat": {"branches": [["identity"], TANH]},
}
SHAPES: dict[str, list[int]] = {
    **{
        f"{kind}{n}d": [4, *(25,) * (n == 1), *(5, 5) * (n == 2), *(1, 5, 5) * (n == 3)]
        for n in (1, 2, 3)
        for kind in ("conv", "conv_transpose", "max_pool", "avg_pool")
    },
    "linear": [100],
    "dropout3d": [4, 1, 5, 5],
}


def typed(value: Any) -> str:
    """A value as one types it on the command line."""
    return re.sub(r'"', "", json.dumps(value)).replace(" ", "")


def layers_with(kind: str) -> str:
    """A small network for 10x10 pixels and three classes around one layer of this kind."""
    layers: list[Any] = [
        {"sigmoid": {"name": "around_1"}},
        {"reshape": {"shape": SHAPES.get(kind, [4, 5, 5]), "name": "around_2"}},
        {kind: {**ARGUMENTS.get(kind, {}), "name": "tested"}},
        {"flatten": {"name": "around_3"}},
        {"linear": {"out_features": 3, "name": "around_4"}},
    ]
    return typed(layers)


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Repeat` and the others stay what they are for the layers around the broken one."""
    for registry in (LAYERS, GRAPHS):
        for kind in list(registry):
            monkeypatch.setitem(registry, kind, registry[kind])


@pytest.mark.parametrize("kind", [*LAYERS, *GRAPHS])
def test_a_broken_copy_of_every_layer_is_caught_and_named(
    kind: str, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command composes the config and checks the sound layer; the broken ones are checked with the same config."""
    configs: list[Any] = []
    report_on = debug.run

    def kept(config: Any, mode: str) -> str:
        configs.append(config)
        return report_on(config, mode)

    monkeypatch.setattr(debug, "run", kept)
    network = [f"model.layers={layers_with(kind)}", "debug=gradcheck", "kernels=reference"]
    assert run(*network) == 0, capsys.readouterr().out
    registry: dict[str, Any] = LAYERS if kind in LAYERS else GRAPHS
    sound = registry[kind]
    for broken in mistakes(kind):
        registry[kind] = broken(sound)
        with pytest.raises(DebugFailed) as failed:
            report_on(configs[0], "gradcheck")
        report = str(failed.value)
        (verdict,) = [line for line in report.splitlines() if line.startswith("wrong: ")]
        names = verdict.removeprefix("wrong: ").split(", ")
        assert "tested" in names, report
        assert all(name in ("tested", "network and loss") or "around" in name for name in names), report
        assert kind in ("sigmoid", "reshape", "flatten", "linear") or not any("around" in name for name in names)
        registry[kind] = sound
    assert not Path("outputs").exists()


@pytest.mark.parametrize(("kind", "backward"), WRONG_FORMULAS)
def test_a_wrong_formula_is_caught(
    kind: str, backward: Any, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LAYERS[kind], "backward", backward)
    assert run(f"model.layers={layers_with(kind)}", "debug=gradcheck", "threads=1") == 1
    assert "wrong: tested" in capsys.readouterr().out


def test_embeddings_get_numbers_that_they_take(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """As the first layer, after one that reshapes, and in a branch, alone and in the whole network."""
    table = {"embedding": {"num_embeddings": 9, "embedding_dim": 2}}
    branches = {"concat": {"branches": [["flatten", table], [table, {"reshape": {"shape": [2, -1]}}]]}}
    for first in ([table], ["flatten", {"sequential": {"layers": [table]}}], [branches]):
        layers = typed([*first, "flatten", {"linear": {"out_features": 3}}])
        assert run(f"model.layers={layers}", "debug=gradcheck", "threads=1") == 0, capsys.readouterr()
        assert "embedding_1 " in capsys.readouterr().out


def test_a_broken_compiled_kernel_is_caught(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels in use are the ones that are checked."""
    sound = window_kernels.max_pool_backward
    monkeypatch.setattr(window_kernels, "max_pool_backward", lambda dy, *rest: sound(dy[..., ::-1].copy(), *rest))
    network = [f"model.layers={layers_with('max_pool2d')}", "debug=gradcheck", "threads=1"]
    assert run(*network, "kernels=reference") == 0
    assert run(*network, "kernels=compiled") == 1
    assert "wrong: tested" in capsys.readouterr().out


def doubling(kernel: Any, written: int) -> Any:
    """The kernel, but what it writes to this argument is twice too large."""

    def broken(*arguments: Any) -> None:
        kernel(*arguments)
        arguments[written][:] *= 2

    return broken


NORM_AND_POOL = "[batch_norm,{max_pool2d:{kernel_size:2}},relu,flatten,{linear:{out_features:3}}]"


@pytest.mark.parametrize(
    ("module", "name", "broken", "network", "wrong"),
    [
        (direct, "gather_products", lambda make: lambda *size: doubling(make(*size), -1), "conv2d", "tested"),
        (direct, "weight_gradient", lambda make: lambda *size: doubling(make(*size), -2), "conv2d", "tested"),
        (norm_kernels, "batch_norm_pool_backward", lambda kernel: doubling(kernel, -3), NORM_AND_POOL, "network and"),
    ],
)
def test_a_broken_fast_path_is_caught(
    module: Any,
    name: str,
    broken: Any,
    network: str,
    wrong: str,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = network if network.startswith("[") else layers_with(network)
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    assert run(f"model.layers={layers}", "debug=gradcheck", "threads=1") == 1
    assert f"wrong: {wrong}" in capsys.readouterr().out


@pytest.mark.parametrize("model", [name for name in folders.choices("model") if name != "conv3d"])
def test_the_gradients_of_every_model_pass(model: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["task=regression", "task.target=input", "loss=l2"] if model in ("autoencoder", "denoiser") else []
    assert run(f"model={model}", "data=mnist", "model.width=4", "debug=gradcheck", "threads=1", *task) == 0
    assert "all gradients agree" in capsys.readouterr().out


def test_a_layer_that_breaks_down_is_named(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copy(ReLU):
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            raise ValueError("no such gradient")

    monkeypatch.setitem(LAYERS, "relu", Copy)
    assert run("debug=gradcheck") == 1
    assert "relu_1: ValueError: no such gradient" in capsys.readouterr().out


def test_summary(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("debug=summary") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0].isalpha()] == [
        *("layer", "conv2d_1", "batch_norm_1", "relu_1", "flatten_1", "linear_1", "total")
    ]
    conv = next(line for line in lines if line.startswith("conv2d_1"))
    assert conv.split()[1:] == ["[4,", "8,", "8]", "40", f"{4 * 64 * 2 * 9:,}", "0.4", "KiB"]
    assert lines[-1].split()[3:5] == [f"{40 + 8 + 256 * 3 + 3:,}", f"{4608 + 512 + 256 + 256 * 2 * 3 + 3:,}"]
    assert not Path("outputs").exists()


def test_the_summary_is_in_the_log_of_a_run(run: Run) -> None:
    assert run("epochs=1", "run_dir=here") == 0
    assert "total per example" in Path("here/run.log").read_text(encoding="utf-8")


def test_overfit_learns_one_batch_without_regularisers(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    layers = ["{conv2d:{out_channels:8,kernel_size:3}}", "batch_norm", "relu", "{dropout:{p:0.5}}", "flatten"]
    noisy = f"model.layers=[{','.join(layers)},{{linear:{{out_features:3}}}}]"
    regularised = ["optimizer=adamw", "optimizer.weight_decay=0.5", "loss.label_smoothing=0.2"]
    assert run("debug=overfit", noisy, *regularised) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r"one batch of 16 examples learnt: loss (\S+) after (\d+) steps", line)
    assert found
    assert float(found[1]) <= 1e-3
    assert not Path("outputs").exists()


def test_overfit_says_when_a_network_cannot_learn(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    constant = "model.layers=[global_avg_pool,{linear:{out_features:3}}]"
    assert run("debug=overfit", constant, "optimizer.lr=1e-5") == 1
    assert "one batch of 16 examples not learnt: loss " in capsys.readouterr().out


@pytest.mark.figures
def test_fast_runs_two_batches_of_everything(run: Run) -> None:
    assert run("debug=fast", "schedule=cosine", "schedule.warmup_steps=500", "epochs=9", "run_dir=here") == 0
    summary = json.loads(Path("here/summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 9 * 2
    assert {file.name for file in Path("here/figures").iterdir()} >= {"curves.png", "confusion.png"}


def test_unknown_modes_and_null(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("debug=gradchek") == 2
    assert "debug: unknown 'gradchek', did you mean gradcheck?" in capsys.readouterr().err
    assert run("debug=null", "experiment=null", "epochs=1") == 0


def test_faults_come_before_a_report(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("debug=summary", "model.layers=[flatten,{linear:{out_features:7}}]") == 2
    assert "model.layers: the last, linear_1, gives [7], but the data have 3 classes" in capsys.readouterr().err


def test_classes_of_weight_zero_are_no_fault(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("debug=gradcheck", "loss.weight=[0,0,1]", "threads=1") == 0
    assert run("loss.weight=[0,0,1]", "batch_size=2", "epochs=1", "run_dir=here") == 0
    row = metrics_csv.read(Path("here/metrics.csv"))[0]
    assert math.isfinite(row["train/loss"])
