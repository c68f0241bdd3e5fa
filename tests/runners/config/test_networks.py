"""Tasks with several networks: each is a config group of its own, and is served as well as `model`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from cnn import Cache, build_model
from cnn.layers.rectifiers import LeakyReLU
from runners.cli import train
from runners.config import folders, schema
from runners.files import checkpoint
from runners.tasks.registry import TASKS
from runners.training import debug
from tests.runners.config.own_files import FILES, forget
from tests.runners.conftest import Run, faults
from tests.runners.outcomes import stop_at_step_of
from tools.small_runs import outcome, write_dataset

Capture = pytest.CaptureFixture[str]
EXTENSION = f"extensions=[{FILES / 'duel.py'}]"
DUEL = [EXTENSION, "task.name=duel", "loss=l2", "batch_size=32", "threads=1", "data=idx", "data.val_examples=54"]
NETWORKS = ["generator=dcgan", "generator.width=2", "discriminator=dcgan", "discriminator.width=2"]
SMALL = [*DUEL, *NETWORKS]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget()


@pytest.fixture(scope="session")
def stripes28(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("stripes28"), (28, 28))


@pytest.fixture
def duel(stripes28: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run.py's command in an empty directory, on pictures of 28 x 28."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])
    return lambda *overrides: train.main([f"data.path={stripes28}", *overrides])


def column(run: str, name: str) -> list[float]:
    with Path(run, "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_networks_are_chosen_trained_and_resumed_to_the_same_bits(
    duel: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    own = ["generator_optimizer.lr=0.0001", "discriminator_optimizer=sgd", "discriminator_optimizer.momentum=0.5"]
    small = [*SMALL, *own, "epochs=2", "schedule=constant"]
    assert duel("run_dir=whole", *small) == 0
    assert column("whole", "lr/generator") == [0.0001] * 2
    assert column("whole", "lr/discriminator") == [0.1] * 2
    saved = checkpoint.load(Path("whole/checkpoints/last.pkl"))
    assert saved.config["generator"]["width"] == 2
    assert not saved.config.keys() & {"model", "encoder", "decoder"}
    assert saved.config["generator_optimizer"] == {"lr": 0.0001}
    assert saved.config["discriminator_optimizer"] == {"name": "sgd", "momentum": 0.5}
    assert set(saved.networks["discriminator"].optimizer) == {"steps", "velocity"}
    with monkeypatch.context() as patch:
        stop_at_step_of(TASKS["duel"], 3, patch)
        assert duel("run_dir=stopped", *small) == 143
    assert train.main(["resume=stopped", EXTENSION]) == 0
    assert outcome("stopped") == outcome("whole")
    capsys.readouterr()
    assert train.main(["resume=whole", EXTENSION, "epochs=3", "discriminator_optimizer=adamw"]) == 2
    assert "discriminator_optimizer.name: changing it from 'sgd' to 'adamw' affects" in capsys.readouterr().err
    changes = ["discriminator_optimizer.lr=0.002", "discriminator_optimizer=adamw", "resume_changed=true"]
    assert train.main(["resume=whole", EXTENSION, "epochs=3", *changes]) == 0
    saved = checkpoint.load(Path("whole/checkpoints/last.pkl"))
    assert saved.config["discriminator_optimizer"] == {"name": "adamw", "lr": 0.002}
    assert column("whole", "lr/discriminator")[-1] == 0.002


def test_what_is_not_chosen_leaves_no_key(run: Run) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    assert not yaml.safe_load(Path("a/config.yaml").read_text()).keys() & set(folders.NETWORKS)


def test_an_experiment_chooses_networks_and_the_command_line_others(duel: Run, capsys: Capture) -> None:
    Path("configs/experiment").mkdir(parents=True)
    Path("configs/generator").mkdir()
    Path("configs/generator/flat.yaml").write_text(
        "width: 3\nlayers: [{linear: {out_features: '${....width}'}}, {linear: {out_features: 784}},"
        " {reshape: {shape: [1, 28, 28]}}]"
    )
    Path("configs/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /generator: dcgan\n  - override /discriminator: dcgan\n"
        "discriminator: {width: 2}\ngenerator_optimizer: {betas: [0.5, 0.9]}\n"
    )
    chosen = [*DUEL, "experiment=mine", "debug=summary"]
    assert duel(*chosen) == 0
    assert "[64, 7, 7]" in capsys.readouterr().out
    assert duel(*chosen, "generator=flat", "generator.width=5") == 0
    out = capsys.readouterr().out
    assert "linear_1           [5]" in out
    assert [line for line in out.splitlines() if line in TASKS["duel"].networks] == ["generator", "discriminator"]


LAYERS = "generator.layers=[{linear:{out_features:784}},{reshape:{shape:[1,28,28]}}]"
FAULTS = {
    "generator=dcgann": "generator: unknown 'dcgann', did you mean dcgan? (known: ",
    "generator={layers:[relu]}": "generator: unknown '{layers:[relu]}', known: ",
    "generator=null": "generator: unknown 'null', known: ",
    "generator.widht=8": "generator.widht: unknown, no layer uses ${generator.widht}, did you mean width? (known: ",
    f"{LAYERS} generator.channels=1": "generator.channels: unknown, no layer uses ${generator.channels}, known: ",
    "generator.width=0": "generator.width: 0 is not allowed, give a whole number >= 1",
    "discriminator.width=x": "discriminator.width: 'x' is not allowed, give a whole number >= 1",
    "generator.layers.0.linear.bias=3": "generator.layers.0.linear.bias: 3 is not allowed, give true or false",
    "model.width=3": "model: not used, the task duel trains generator, discriminator",
    "model=lenet": "model: not used, the task duel trains generator, discriminator",
    "encoder=mlp": "encoder: not used, the task duel trains generator, discriminator",
    "generater.width=3": "generater: unknown, did you mean generator? (known: ",
    "generator_optimizer=adamm": "generator_optimizer.name: unknown 'adamm', did you mean adam? (known: adagrad, ",
    "generator_optimizer=null": "generator_optimizer: null is not allowed, choose one with generator_optimizer=NAME",
    "generator_optimizer=3": "generator_optimizer: 3 is not allowed, give keys with values",
    "generator_optimizer=sgd,adam": "generator_optimizer.name: sgd,adam is more than one value, add -m to sweep",
    "generator_optimizer.lr=-1": "generator_optimizer.lr: -1 is not allowed, give a number > 0",
    "generator_optimizer.rl=1": "generator_optimizer.rl: unknown, did you mean lr? (known: ",
    "generator_optimizer=sgd generator_optimizer.betas=[0.5,0.9]": "generator_optimizer.betas: unknown, ",
    "generator_optimizer.betas=[0.5,0.9] optimizer.lr=-1": "optimizer.lr: -1 is not allowed, give a number > 0",
    "generator_optimizer.lr=1e60": "generator_optimizer.lr: 1e+60 is more than a float32 can represent",
    "generator_schedule=cosine generator_schedule.min_lr=1": "generator_schedule.min_lr: 1 is more than optimizer.lr",
    "critic_optimizer=adam": "critic_optimizer: unknown, did you mean ",
}


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("typed", FAULTS)
def test_a_fault(typed: str, duel: Run, capsys: Capture) -> None:
    given = {text.split("=")[0] for text in typed.split()}
    given |= {"generator.width"} if LAYERS in typed else set()
    assert duel(*(text for text in SMALL if text.split("=")[0] not in given), *typed.split()) == 2
    (told,) = faults(capsys)
    assert told.startswith(FAULTS[typed])


@pytest.mark.usefixtures("closed")
def test_a_network_that_is_not_chosen(duel: Run, capsys: Capture) -> None:
    assert duel(*DUEL, *NETWORKS[2:]) == 2
    assert faults(capsys) == ["generator: null is not allowed, choose one with generator=NAME"]
    assert duel(*DUEL, *NETWORKS[1:]) == 2
    assert faults(capsys) == [
        "generator.layers: missing, give a list of layers, or choose a network with generator=NAME"
    ]


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("typed", ["generator=dcgan", "encoder=mlp", "decoder.layers=[flatten]", "generator.width=3"])
def test_networks_of_other_tasks_are_refused_in_one_line(typed: str, run: Run, capsys: Capture) -> None:
    assert run(typed) == 2
    name = typed.split("=")[0].split(".")[0]
    assert faults(capsys) == [f"{name}: not used, the task classification trains model"]


@pytest.mark.usefixtures("closed")
def test_an_unknown_task_is_the_only_fault(run: Run, capsys: Capture) -> None:
    assert run("task.name=duell", "generator=dcgan") == 2
    (told,) = faults(capsys)
    assert told.startswith("task.name: unknown 'duell', ")


def test_help_lists_the_groups(run: Run, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    for name in folders.NETWORKS:
        assert f"{name}: {', '.join(folders.choices(name))}" in out


def test_the_networks_of_own_sections_are_swept(duel: Run, capsys: Capture) -> None:
    assert duel("-m", *SMALL, "epochs=1", "discriminator_optimizer=sgd,adamw", "sweep_dir=swept") == 0
    saved = [checkpoint.load(Path(f"swept/{job}/checkpoints/last.pkl")) for job in range(2)]
    assert [content.config["discriminator_optimizer"] for content in saved] == [{"name": "sgd"}, {"name": "adamw"}]
    assert "discriminator_optimizer.name=adamw" in capsys.readouterr().out


def test_overfit_changes_own_sections_that_change_a_part(duel: Run) -> None:
    own = ["generator_optimizer.lr=0.001", "discriminator_optimizer=adamw", "optimizer.weight_decay=0.1"]
    assert duel("run_dir=a", *SMALL, *own, "discriminator_optimizer.weight_decay=0.2", "epochs=1") == 0
    config = debug._without_regularisers(schema.parse(yaml.safe_load(Path("a/config.yaml").read_text())))
    for name in ("generator", "discriminator"):
        section, _ = schema.of_network(config.raw, name, "optimizer")
        assert section["weight_decay"] == 0.0
    assert config.optimizer("generator").lr == 0.001


def test_gradcheck_names_the_network(duel: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = LeakyReLU.backward

    def wrong(self: LeakyReLU, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
        return backward(self, 2 * dy, cache, **needs)

    monkeypatch.setattr(LeakyReLU, "backward", wrong)
    small = [*DUEL, *NETWORKS[:3]]
    assert duel("debug=gradcheck", *small, "discriminator.layers=[flatten,{linear:{out_features:1}},leaky_relu]") == 1
    lines = "".join(capsys.readouterr()).splitlines()
    assert [line for line in lines if line in TASKS["duel"].networks] == ["generator", "discriminator"]
    assert lines[-1].startswith("wrong: discriminator.leaky_relu_1, discriminator.")


def test_a_plateau_of_a_metric_that_is_better_higher_and_missing_at_times(
    duel: Run, caplog: pytest.LogCaptureFixture
) -> None:
    watched = ["schedule=reduce_on_plateau", "schedule.monitor=val/realism", "schedule.patience=0"]
    assert duel("run_dir=a", *SMALL, *watched, "epochs=5") == 0
    assert column("a", "lr/generator") == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001])
    change = ["resume=a", EXTENSION, "epochs=6", "schedule.monitor=val/loss"]
    assert train.main([*change, "resume_changed=true"]) == 0
    started = "the schedule now watches val/loss instead of val/realism: it starts from its initial state"
    assert started in caplog.text
    assert column("a", "lr/generator")[-1] == 0.01


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("name", ["val/real", "val/score", "train/loss", "epoch"])
def test_a_monitor_that_is_no_column_is_refused(name: str, duel: Run, capsys: Capture) -> None:
    assert duel(*SMALL, "generator_schedule=reduce_on_plateau", f"generator_schedule.monitor={name}") == 2
    (told,) = faults(capsys)
    assert told.startswith(f"generator_schedule.monitor: '{name}' is no validation metric of the task duel, ")
    assert told.rpartition("known: ")[2].rstrip(")") == "val/loss, val/realism"


SHAPES: dict[str, Any] = {
    "generator": ((16,), (1, 28, 28)),
    "discriminator": ((1, 28, 28), (1,)),
    "encoder": ((1, 28, 28), (64,)),
    "decoder": ((16,), (1, 28, 28)),
}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in folders.NETWORKS for name in folders.choices(group)]
)
def test_shipped_networks_have_the_shapes_of_digits(group: str, name: str, run: Run, capsys: Capture) -> None:
    assert run(f"{group}={name}", "--cfg", "job", "--resolve") == 0
    composed = yaml.safe_load(capsys.readouterr().out)[group]
    before, after = SHAPES[group]
    assert build_model({"layers": composed["layers"]}, before).output_shape(before) == after
