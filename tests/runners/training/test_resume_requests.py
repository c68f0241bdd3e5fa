"""What a resume takes, what it asks for, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

from cnn.ops.threads import available_threads
from runners.cli import train
from runners.config.schema import sections
from runners.config.settings import Settings
from runners.files import checkpoint, metrics_csv, plain_pickle
from runners.files.run_directory import RunDirectory
from runners.files.status import state as state_of
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tools.small_runs import outcome, write_dataset


def resume(*arguments: str) -> int:
    return train.main(arguments)


KNOWN = [*sections(["model"]), *Settings.model_fields, "resume", "resume_changed"]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


REFUSED = {
    "optimizer.lr=0.5": "optimizer.lr: changing it from 0.01 to 0.5 affects what this run computes",
    "optimizer=sgd": "optimizer.name: changing it from 'adam' to 'sgd' affects what this run computes",
    "schedule=cosine": "schedule.name: changing it from 'constant' to 'cosine' affects what this run computes",
    "kernels=reference": "kernels: changing it from 'compiled' to 'reference' affects what this run computes",
    "--help": "--help: can't be combined with resume=RUN",
    "--resume=b": "--resume=b: can't be combined with resume=RUN",
    "optimizer.lrr=0.5": "optimizer.lrr: unknown, did you mean lr",
    "optimizer.lr=0.1,0.2": "optimizer.lr: 0.1,0.2 is more than one value, give one",
    "~patience": "~patience: keys can't be removed from a config",
    "epoch=5": "epoch: unknown, did you mean epochs",
    "optimizer=sdg": "optimizer: unknown 'sdg', did you mean sgd",
    "optimizer.lr=nan": "optimizer.lr: nan is not allowed",
    "optimizer.lr=[1": "optimizer.lr: '[1' can't be read: ",
    "optimizer.lr": "optimizer.lr: a key needs a value, give key=value",
    "epochs.more=1": "epochs.more: can't be set: epochs is 3",
    "model.width=3": "model.width: can't be changed in a resume; start a new run from these weights with init_from=RUN",
    "model=lenet": "model: can't be changed in a resume",
    "run_dir=b": "run_dir: can't be changed in a resume",
    "-m": "a: a run and no sweep, resume it without -m",
    "resume_changed=yes": "resume_changed: 'yes' is not allowed, give true or false",
    "data=mnist": "model.layers: the last, linear_1, gives [3], but the data have 10 classes",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_what_is_typed_is_refused_and_the_run_stays_as_it_was(
    typed: str, stopped: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(Path("a"))
    assert resume("resume=a", typed) == 2
    message = capsys.readouterr().err
    assert f"error: {REFUSED[typed]}" in message
    assert "Traceback" not in message
    assert everything(Path("a")) == before


@pytest.mark.skipif(available_threads() == 1, reason="there is no other number of threads")
def test_threads_may_change(stopped: Run) -> None:
    assert resume("resume=a", "threads=2", "threads_fixed=true") == 0


@pytest.mark.skipif(available_threads() == 1, reason="there is no other number of threads")
def test_threads_of_reference_kernels_are_restored(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are torch's, which splits sums among them."""
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run("run_dir=a", "kernels=reference") == 143
    assert resume("resume=a", "threads=2") == 2
    problem = "changing it from 1 to 2 affects what this run computes: add resume_changed=true"
    assert f"error: threads: {problem}" in capsys.readouterr().err


def test_something_else_in_a_section_is_one_change(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume("resume=a", "schedule=one_cycle") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("plus", ["+", "++"])
def test_resume_may_be_typed_as_other_keys_are(plus: str, stopped: Run) -> None:
    assert resume(f"{plus}resume=a") == 0
    assert status("a")["state"] == "done"
    assert [path.name for path in Path().iterdir()] == ["a"]


def test_what_belongs_beside_resume(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("resume_changed=true", "resumee=a") == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "error: resume_changed: is only allowed with resume=RUN",
        f"error: resumee: unknown, did you mean resume? (known: {', '.join(sorted(KNOWN))})",
    ]


@pytest.mark.parametrize("part", ["a/checkpoints", "a/checkpoints/last.pkl", "a/config.yaml"])
def test_a_part_of_a_run(part: str, stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(f"resume={part}") == 2
    assert capsys.readouterr().err == f"error: {part}: part of a run, give the run itself: a\n"


def test_more_epochs_than_can_be_compared(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume("resume=a", "epochs=2000000000", "seed=5") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: seed: changing it from 0 to 5")


@pytest.mark.parametrize("typed", ["optimizer.momentum=0.9", "optimizer=rmsprop"])
def test_an_optimizer_that_keeps_other_things_begins_anew(
    typed: str, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "epochs=3", "optimizer=sgd") == 143
    assert resume("resume=a", typed, "resume_changed=true") == 0
    assert [record.getMessage() for record in caplog.records if "starts from its initial state" in record.getMessage()]


def test_the_last_of_a_repeated_key_counts(stopped: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert resume("resume=b", "epochs=5", "epochs=4", "resume=a", "patience=9", "patience=9") == 0
    assert status("a")["resumed"][0]["overrides"] == ["epochs=4", "patience=9"]
    assert [text for text in caplog.messages if "again" in text] == [
        "note: epochs is given as 5 and again as 4: the last one counts",
        "note: resume is given as b and again as a: the last one counts",
    ]


def test_a_name_and_tags_may_change(stopped: Run, run: Run) -> None:
    assert run("run_dir=whole", "epochs=3", "schedule=constant", "name=2026", "tags=x") == 0
    assert resume("resume=a", "name=a b=c, d", "tags=[large,slow]") == 0
    for name, given in (
        ("a", {"name": "a b=c, d", "tags": ["large", "slow"]}),
        ("whole", {"name": "2026", "tags": "x"}),
    ):
        for content in (status(name), json.loads(Path(name, "summary.json").read_text())):
            assert {key: content[key] for key in given} == given
        saved = checkpoint.load(Path(name, "checkpoints/last.pkl"))
        assert {key: saved.config[key] for key in given} == given
    assert outcome("a")["rows"] == outcome("whole")["rows"]
    weights = [checkpoint.load(Path(name, "checkpoints/last.pkl")).networks["model"].weights for name in ("a", "whole")]
    assert all(np.array_equal(values, weights[1][name]) for name, values in weights[0].items())


def test_all_mistakes_are_told_at_once(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume("resume=a", "model.width=3", "optimizer=sdg", "epochs", "run_dir=b") == 2
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "model.width:",
        "optimizer:",
        "epochs:",
        "run_dir:",
    ]


@pytest.mark.parametrize("typed", ["optimizer.lr=0.5", "optimizer=sgd", "schedule=cosine", "augment=shift"])
def test_what_changes_the_run_is_done_where_it_is_wanted(typed: str, stopped: Run) -> None:
    assert resume("resume=a", typed, "resume_changed=true") == 0
    assert status("a")["resumed"][0]["overrides"] == [typed]
    assert metrics_csv.read(Path("a/metrics.csv"))[-1]["epoch"] == 3
    key, _, value = typed.partition("=")
    saved = yaml.safe_load(Path("a/config.yaml").read_text())
    assert saved == checkpoint.load(Path("a/checkpoints/last.pkl")).config
    assert str(saved["optimizer"]["lr"] if "." in key else saved[key].get("name", value)) == (
        value if key != "augment" else "shift"
    )


@pytest.mark.parametrize("typed", ["batch_size=8", "seed=3", "data.num_examples=50", "accumulate=2"])
def test_the_order_of_examples_changes_between_epochs_only(
    typed: str, stopped: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume("resume=a", typed, "resume_changed=true") == 2
    key = typed.partition("=")[0]
    message = f"error: {key}: can only change between epochs, but the run stopped after step 3 of epoch 2\n"
    assert capsys.readouterr().err == message
    assert resume("resume=a") == 0
    assert resume("resume=a", typed, "epochs=4", "resume_changed=true") == 0
    assert [row["epoch"] for row in metrics_csv.read(Path("a/metrics.csv"))] == [1, 2, 3, 4]


def test_more_epochs_are_a_change_only_where_the_schedule_counts_them(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run_dir=whole", "epochs=4") == 0
    assert run("run_dir=a", "epochs=2") == 0
    assert resume("resume=a", "epochs=4") == 0
    assert outcome("a")["rows"] == outcome("whole")["rows"]
    assert outcome("a")["last"]["networks"] == outcome("whole")["last"]["networks"]
    assert run("run_dir=b", "epochs=2", "schedule=one_cycle") == 0
    capsys.readouterr()
    assert resume("resume=b", "epochs=4") == 2
    assert "epochs: changing it from 2 to 4 affects what this run computes" in capsys.readouterr().err
    assert resume("resume=b", "epochs=4", "resume_changed=true") == 0
    assert resume("resume=b", "epochs=3", "resume_changed=true") == 2
    assert capsys.readouterr().err == "error: epochs: 3 is not allowed, 4 are already done\n"


def test_a_finished_run_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    before = everything(Path("a"))
    capsys.readouterr()
    for typed in ([], ["patience=3"], ["checkpoint.every_steps=2"]):
        assert resume("resume=a", *typed) == 0
        assert capsys.readouterr().out == "a: already finished; give a larger epochs=N to train further\n"
        assert everything(Path("a")) == before


def test_a_run_that_patience_stopped_says_so_and_trains_on_with_more(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    little = ["optimizer=sgd", "optimizer.lr=1e-9", "schedule=constant"]
    assert run("run_dir=a", "epochs=5", "patience=1", *little) == 0
    assert run("run_dir=whole", "epochs=5", "patience=3", *little) == 0
    before = everything(Path("a"))
    capsys.readouterr()
    for typed, patience in (([], 1), (["epochs=40"], 1), (["checkpoint.every_steps=2"], 1), (["epochs=3"], 1)):
        assert resume("resume=a", *typed) == 0
        how = "give a larger patience=N, or patience=null, to train further"
        assert capsys.readouterr().out == f"a: already finished, patience={patience} has run out; {how}\n"
        assert everything(Path("a")) == before
    assert resume("resume=a", "patience=3") == 0
    ours, expected = outcome("a"), outcome("whole")
    assert len(ours["rows"]) == 4
    for part in (ours, expected):
        del part["best"]["config"]  # it was saved with the patience of its time
    assert ours == expected
    assert resume("resume=a", "patience=null", "epochs=6") == 0
    assert len(metrics_csv.read(Path("a/metrics.csv"))) == 6
    assert resume("resume=a", "patience=null") == 0
    assert capsys.readouterr().out.endswith("a: already finished; give a larger epochs=N to train further\n")


def test_auto_takes_the_latest_that_is_not_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume("resume=auto") == 2
    assert capsys.readouterr().err == "error: resume: there is no unfinished run in outputs, give resume=RUN\n"
    for _ in range(3):
        with monkeypatch.context() as patch:
            stop_at(5, patch)
            assert run() == 143
    runs = list(Path("outputs").glob("*/*"))
    for number, path in enumerate(runs):
        for file in (path / "checkpoints").iterdir():
            os.utime(file, (number, number))
    assert run("epochs=1") == 0  # finished, and later than all of them
    with RunDirectory.open(runs[2]):  # somebody is at work in it
        capsys.readouterr()
        assert resume("resume=auto") == 0
    assert f"resuming {runs[1]}\n" in capsys.readouterr().out
    assert [state_of(path) for path in runs] == ["interrupted", "done", "interrupted"]


def test_auto_leaves_what_diverged_and_what_tells_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        assert run("run_dir=outputs/a") == 143
        stop_at(5, patch)
        assert run("run_dir=outputs/c") == 143
    Path("outputs/a/checkpoints/last.pkl").rename("outputs/a/checkpoints/previous.pkl")  # killed in a save
    Path("outputs/c/status.json").unlink()
    assert run("run_dir=outputs/b", "optimizer=sgd", "optimizer.lr=1e30") == 1
    assert status("outputs/b")["diverged"]
    capsys.readouterr()
    assert resume("resume=auto") == 0
    assert "resuming outputs/a\n" in capsys.readouterr().out
    assert resume("resume=auto") == 2


def test_who_looks_at_a_run_keeps_nobody_out(stopped: Run) -> None:
    lock = FileLock("a/.lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release, kwargs={"force": True}).start()
    with RunDirectory.open(Path("a")):
        pass


def test_two_processes_never_work_in_one_run(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDirectory.open(Path("a")):
        assert resume("resume=a") == 2
    assert capsys.readouterr().err == "error: a: in use by another process, wait until it ends\n"
    assert resume("resume=a") == 0


def test_a_run_that_died_is_told_from_one_that_runs(stopped: Run) -> None:
    with RunDirectory.open(Path("a")) as directory:
        directory.status("running")
        assert state_of(Path("a")) == "running"
    assert state_of(Path("a")) == "died"
    assert resume("resume=a") == 0
    assert state_of(Path("a")) == "done"


def test_other_data_are_noticed(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data")
    assert run("run_dir=a", "epochs=1", f"data.path={folder}") == 0
    labels = folder / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] = (content[-1] + 1) % 3
    labels.write_bytes(content)
    capsys.readouterr()
    assert resume("resume=a", "epochs=2") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: data: not the files that this run used (fingerprint ")
    assert "add resume_changed=true" in message
    labels.unlink()
    assert resume("resume=a", "epochs=2") == 2
    assert "there is no train-labels-idx1-ubyte" in capsys.readouterr().err
    labels.write_bytes(content)
    assert resume("resume=a", "epochs=2", "resume_changed=true") == 0


def test_leftovers_are_cleaned(stopped: Run) -> None:
    for name in ("a/.status.json.17.new", "a/checkpoints/.last.pkl.99.new", "a/.run.new"):
        Path(name).write_text("half")
    assert resume("resume=a") == 0
    assert not list(Path("a").rglob("*.new"))


def change(**changes: Any) -> None:
    """Write other things into both checkpoints, with a right trailer."""
    for which in ("last", "previous"):
        file = Path(f"a/checkpoints/{which}.pkl")
        content = plain_pickle.read(file)
        network = content["networks"]["model"]
        for key, value in changes.items():
            place = network if key in network else content
            place[key] = place[key] | value if key in ("progress", "optimizer") else value
        plain_pickle.write(file, content)


def empty(folder: str) -> None:
    for file in Path(folder).iterdir():
        file.unlink()


NO_RUNS: dict[str, tuple[Callable[[], Any], str]] = {
    "missing": (lambda: shutil.rmtree("a"), "a: there is no such run"),
    "another folder": (
        lambda: shutil.rmtree("a/checkpoints"),
        "a: not a run directory: it has no folder checkpoints",
    ),
    "no checkpoint": (lambda: empty("a/checkpoints"), "a: the run ended before its first step, start it again"),
    "another config": (
        lambda: change(config={"epochs": 3, "model": {}}),
        "the model in the checkpoint's config doesn't match its weights",
    ),
    "no config": (lambda: change(config="{}"), "not a usable checkpoint: config: "),
    "steps": (lambda: change(progress={"steps": 900}, step=908), "the checkpoint has 900 steps in an epoch of 8"),
    "step": (lambda: change(step=900), "step: it is 900, but its progress is that of step 11"),
    "rows": (lambda: change(progress={"rows": [{"epoch": 1.0}]}), "row 1 can't be the row of an epoch"),
    "sums": (lambda: change(progress={"sums": {"loss": 1.0}}), "progress.sums: "),
    "a sum of something else": (
        lambda: change(progress={"sums": {"dice": [1.0, 2.0]}}),
        "it has a sum of dice, which its task doesn't have",
    ),
    "examples": (lambda: change(progress={"steps": 7, "examples": 0}), "its sums don't match its steps"),
    "task state": (lambda: change(task_state={"more": 1}), "a saved state with ['more'] doesn't match the task"),
    "optimizer": (lambda: change(optimizer={"velocity": 1}), "doesn't fit adam"),
    "vector": (
        lambda: change(optimizer={"mean": np.zeros(3, np.float32)}),
        "optimizer.mean is float32 [3], expected [819]",
    ),
    "schedule": (lambda: change(schedule={"best": 1.0}), "a saved state with ['best'] doesn't fit constant"),
    "model": (lambda: change(model={"layers": ["flatten"]}), "its network can't be rebuilt"),
}


@pytest.mark.parametrize("case", NO_RUNS)
def test_what_is_no_run_is_refused(case: str, stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, message = NO_RUNS[case]
    prepare()
    assert resume("resume=a") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    if Path("a").exists():
        assert status("a")["state"] == "interrupted"
