"""A task and a layer of a user's own, each in one file: they are trained, stopped, resumed, swept and evaluated."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from runners.cli import evaluate, predict, train
from runners.files import checkpoint
from runners.tasks.registry import TASKS
from tests.runners.config.own_files import FILES, LAYER, TASK, forget
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at, stop_at_step_of
from tools.small_runs import outcome

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test has registered isn't there in the next one."""
    yield
    forget()


@pytest.mark.parametrize("own", [TASK, LAYER], ids=["task", "layer"])
def test_a_file_of_ones_own_is_trained_and_resumed_to_the_same_bits(
    own: list[str], run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run_dir=whole", "epochs=3", *own) == 0
    for step in (3, 8, 11):
        name = f"stopped{step}"
        with monkeypatch.context() as patch:
            if own is TASK:
                stop_at_step_of(TASKS["brightness"], step, patch)
            else:
                stop_at(step, patch)
            assert run(f"run_dir={name}", "epochs=3", *own) == 143
        command = f"continue with python run.py resume={name} {shlex.quote(own[0])}"
        assert command in capsys.readouterr().err
        forget()
        assert train.main([f"resume={name}"]) == 2
        assert f"add {own[0]}" in capsys.readouterr().err
        assert train.main([f"resume={name}", own[0]]) == 0
        assert outcome(name) == outcome("whole")


@pytest.mark.figures
@pytest.mark.parametrize("own", [TASK, LAYER], ids=["task", "layer"])
def test_a_file_of_ones_own_is_swept_and_evaluated(
    own: list[str], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "epochs=1", "optimizer.lr=0.01,0.001", "sweep_dir=swept", *own) == 0
    table = capsys.readouterr().out
    for job in "01":
        forget()
        assert evaluate.main([f"swept/{job}", "--json"]) == 2  # nothing is imported that isn't typed
        assert f"add extensions={own[0].partition('=')[2]}" in capsys.readouterr().err
        assert evaluate.main([f"swept/{job}", "--json", own[0]]) == 0
        found = json.loads(capsys.readouterr().out)
        summary = json.loads(Path(f"swept/{job}/summary.json").read_text())
        assert {name: found[name] for name in summary["test"]} == pytest.approx(summary["test"])
        assert Path(f"swept/{job}/figures/curves.png").is_file()
        if own is TASK:
            assert found["brightest"] > 0
            assert (
                f"val error {summary['best']['val/error']:.3f}, test error {summary['test']['test/error']:.3f}" in table
            )
            assert Path(f"swept/{job}/figures/brightness.png").is_file()


def test_the_numbers_of_a_task_are_its_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Lower is better, a column is empty in every other row, and the state is part of the checkpoint."""
    assert run("run_dir=a", "epochs=4", *TASK) == 0
    assert "test error " in capsys.readouterr().out
    with Path("a/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = ["epoch", "step", "lr", "train/loss", "train/error", "val/loss", "val/error", "val/spread"]
    assert list(rows[0]) == [*expected, "images_per_second", "seconds"]
    assert [bool(row["val/spread"]) for row in rows] == [False, True, False, True]
    summary = json.loads(Path("a/summary.json").read_text())
    assert summary["best"]["val/error"] == min(float(row["val/error"]) for row in rows)
    saved = checkpoint.load(Path("a/checkpoints/last.pkl"))
    assert saved.task == {"name": "brightness", "scale": 2.0}
    assert saved.task_state == {"pictures": 480}
    Image.new("L", (10, 10), 51).save("x.png")
    assert predict.main(["a", "x.png", TASK[0]]) == 0
    assert re.fullmatch(r"x\.png: -?\d+\.\d+\n", capsys.readouterr().out)


def test_the_name_of_an_extension_is_given_as_a_name(run: Run, capsys: Capture) -> None:
    assert run(TASK[0], "task=brightness", "loss=l2", "model.layers=[flatten,{linear:{out_features:1}}]") == 2
    hint = "to choose one that an extension defines, give task.name=brightness"
    known = "did you mean regression? (known: classification, gan, regression, vae)"
    assert capsys.readouterr().err == f"error: task: unknown 'brightness', {known}; {hint}\n"


def test_debug_modes_know_a_task_of_ones_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("summary", "gradcheck", "fast"):
        assert run(f"debug={mode}", *TASK) == 0
    assert "all gradients agree" in capsys.readouterr().out
    assert run("debug=gradcheck", *LAYER) == 0


def test_faults_of_a_task_of_ones_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "loss=cross_entropy": "loss.name: cross_entropy compares with classes, give l1, l2 or huber",
        "task.scale=-1": "task.scale: -1 is not allowed, give a number > 0",
        "task.skale=1": "task.skale: unknown, did you mean scale? (known: scale)",
        "model.layers=[flatten]": "model.layers: the last has to give one number, [1]",
    }
    for typed, message in wrong.items():
        others = [given for given in TASK if given.split("=")[0] != typed.split("=")[0]]
        assert run(*others, typed) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


BROKEN = {
    "x = 1 / 0": "mine.py:1: ZeroDivisionError: division by zero",
    "def f(:": "mine.py:1: SyntaxError: ",
    "import nothing_like_that": "mine.py:1: ModuleNotFoundError: No module named 'nothing_like_that'",
    "from cnn import Layer\nclass Mine(Layer):\n    kind = 'relu'": "Mine: its kind, relu, is already used by ReLU",
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_file_that_is_wrong_is_named_with_its_line(source: str, run: Run, capsys: Capture) -> None:
    Path("mine.py").write_text(source)
    assert run("extensions=mine.py") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: extensions: {BROKEN[source]}")
    assert run("extensions=yours.py") == 2
    assert capsys.readouterr().err == "error: extensions: there is no file 'yours.py'\n"


def test_reading_a_checkpoint_imports_nothing(run: Run, tmp_path: Path) -> None:
    """Not even in a process of its own, where nothing was imported before."""
    mark = "from pathlib import Path\nPath('mark').touch()\n"
    Path("mine.py").write_text(mark)
    assert run("run_dir=a", "epochs=1", "extensions=[mine.py]") == 0
    Path("mark").unlink()
    root = str(Path(__file__).parents[3])
    for command in ("runners.evaluate",):
        ended = subprocess.run([sys.executable, "-m", command, str(tmp_path / "a")], cwd=root, capture_output=True)
        assert ended.returncode == 0, ended.stderr
    assert not Path("mark").exists()
    assert not Path(root, "mark").exists()


PAIR = [
    *(f"extensions=[{FILES / 'pair.py'}]", "task.name=pair", "loss=l2"),
    "first={layers:[{conv2d:{out_channels:2,kernel_size:3}},batch_norm,relu,flatten,{linear:{out_features:4}}]}",
    "second2={layers:[relu,{linear:{out_features:1}}]}",
    "second2_optimizer={name:sgd,lr:0.01,momentum:0.9}",
]


@pytest.fixture
def pair(striped: Path, run: Run) -> Run:
    """run.py's command without a network of the name `model`, which the other one is given."""
    small = ["data=idx", f"data.path={striped}", "data.val_examples=30", "batch_size=16", "threads=1"]

    def command(*overrides: str) -> int:
        return train.main([*small, *overrides])

    return command


def test_two_networks_are_trained_in_turn_and_resumed_to_the_same_bits(
    pair: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    small = [*PAIR, "epochs=3", "schedule=reduce_on_plateau"]
    assert pair("run_dir=whole", *small) == 0
    saved = checkpoint.load(Path("whole/checkpoints/last.pkl"))
    assert {name: network.optimizer["steps"] for name, network in saved.networks.items()} == {
        "first": 12,
        "second2": 12,
    }
    assert set(saved.networks["second2"].optimizer) == {"steps", "velocity"}
    with Path("whole/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = ["epoch", "step", "lr/first", "lr/second2", "train/loss", "train/first_loss", "train/second2_loss"]
    assert list(rows[0]) == [*expected, "val/loss", "images_per_second", "seconds"]
    assert (float(rows[0]["lr/first"]), float(rows[0]["lr/second2"])) == (0.01, 0.01)
    for step in (3, 8, 13):
        name = f"stopped{step}"
        with monkeypatch.context() as patch:
            stop_at_step_of(TASKS["pair"], step, patch)
            assert pair(f"run_dir={name}", *small) == 143
        assert train.main([f"resume={name}", PAIR[0]]) == 0
        assert outcome(name) == outcome("whole")
    capsys.readouterr()
    assert evaluate.main(["whole", "--json", PAIR[0]]) == 0
    found = json.loads(capsys.readouterr().out)["test/loss"]
    assert found == pytest.approx(json.loads(Path("whole/summary.json").read_text())["test"]["test/loss"])
    for mode in ("summary", "gradcheck"):
        assert pair(f"debug={mode}", *PAIR) == 0


def test_faults_of_two_networks_have_their_places(pair: Run, capsys: Capture) -> None:
    wrong = {
        "second2={layers:[rellu]}": "second2.layers.0: unknown layer 'rellu', did you mean relu?",
        "second2={layers:[{linear:{out_features:2}}]}": "second2.layers: has to give [1]",
        "second2_optimizer={name:sgd,lr:-1}": "second2_optimizer.lr: -1 is not allowed, give a number > 0",
        "task.sise=3": "task.sise: unknown, nothing can be given here",
    }
    for typed, message in wrong.items():
        others = [given for given in PAIR if given.split("=")[0] != typed.split("=")[0]]
        assert pair(*others, typed) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {message}")


def test_each_registry_takes_classes_of_ones_own(run: Run) -> None:
    own = ["loss.name=half_entropy", "optimizer.name=sign_descent", "optimizer.lr=0.002", "schedule.name=halves"]
    layers = "model.layers=[flatten,{linear:{out_features:10}}]"
    assert run("run_dir=a", f"extensions={FILES / 'kinds.py'}", *own, "data.name=few_digits", layers, "data=mnist") == 0
    saved = checkpoint.load(Path("a/checkpoints/last.pkl"))
    assert saved.config["optimizer"] == {"name": "sign_descent", "lr": 0.002}
    assert saved.progress.rows[-1]["lr"] == 0.001
    assert saved.progress.rows[-1]["step"] == 2 * 13


def test_files_that_are_others_are_refused_in_a_resume(run: Run, capsys: Capture) -> None:
    Path("mine.py").write_text((FILES / "scale.py").read_text())
    own = ["extensions=mine.py", *LAYER[1:]]
    assert run("run_dir=a", "epochs=1", *own) == 0
    Path("mine.py").write_text((FILES / "scale.py").read_text() + "\n# edited\n")
    capsys.readouterr()
    assert train.main(["resume=a", "epochs=2", "extensions=mine.py"]) == 2
    assert "extensions: not the files that this run was trained with" in capsys.readouterr().err
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.py").write_text((FILES / "scale.py").read_text())
    forget()
    assert train.main(["resume=a", "epochs=2", "extensions=elsewhere/mine.py"]) == 0


def test_a_kind_belongs_to_one_file(run: Run, capsys: Capture) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text((FILES / "scale.py").read_text())
    assert run("extensions=[a/mine.py,b/mine.py]", *LAYER[1:]) == 2
    assert (
        capsys.readouterr().err == "error: extensions: Scale: its kind, scale, is already used by Scale: give another\n"
    )


CONTRACT = {
    "monitor = 'val/eror'": "ValueError: Own.monitor is 'val/eror', its columns are train/loss, val/loss",
    "metrics = (Metric('loss'),)": "ValueError: Own: the monitored metric has to say whether higher or lower is better",
    "networks = ('model', 'a-b')": "ValueError: Own: 'a-b' can't be a name, which is made of letters, digits and _",
}


@pytest.mark.parametrize("line", CONTRACT)
def test_a_task_that_breaks_the_contract_is_refused_when_it_is_imported(line: str, run: Run, capsys: Capture) -> None:
    head = "from runners.tasks.task import Metric, Task\n\nclass Own(Task):\n    kind = 'own'\n"
    Path("mine.py").write_text(f"{head}    {line}\n")
    assert run("extensions=mine.py", "task.name=own") == 2
    assert capsys.readouterr().err == f"error: extensions: mine.py:3: {CONTRACT[line]}\n"


def test_a_metric_that_is_never_added_ends_the_first_epoch(run: Run, capsys: Capture) -> None:
    source = (FILES / "brightness.py").read_text().replace('sums.add("error"', 'sums.add("eror"')
    Path("mine.py").write_text(source)
    assert run("run_dir=a", "extensions=mine.py", *TASK[1:]) == 1
    assert "row 1 has no train/error" in capsys.readouterr().err


def test_a_plateau_of_a_loss_that_is_not_measured_is_refused(run: Run, capsys: Capture) -> None:
    source = (FILES / "brightness.py").read_text().replace('"loss"', '"distance"')
    Path("mine.py").write_text(source)
    assert run("extensions=mine.py", *TASK[1:], "schedule=reduce_on_plateau") == 2
    problem = "'val/loss' is no validation metric of the task brightness"
    hint = "did you mean val/error? (known: val/distance, val/error)"
    assert capsys.readouterr().err == f"error: schedule.monitor: {problem}, {hint}\n"
