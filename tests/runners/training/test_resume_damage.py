"""What a resume finds: broken, missing, moved, edited and foreign files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from runners.cli import train
from runners.files import checkpoint, metrics_csv, plain_pickle
from runners.files import status as status_file
from runners.files.content import Checkpoint
from runners.files.status import state as state_of
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tools.small_runs import outcome, write_dataset

Capture = pytest.CaptureFixture[str]
LAST, PREVIOUS, BEST = (Path("a/checkpoints", f"{which}.pkl") for which in ("last", "previous", "best"))


def resume(*arguments: str) -> int:
    return train.main(arguments)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def without_a_number(file: Path) -> None:
    """Whole, but of no use."""
    content = plain_pickle.read(file)
    content["networks"]["model"]["weights"]["batch_norm_1.running_var"] = np.full(4, np.inf, np.float32)
    plain_pickle.write(file, content)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "torn": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "missing": Path.unlink,
    "not a number in it": without_a_number,
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_last_gives_way_to_previous(
    damage: str, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("run_dir=whole") == 0
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "checkpoint.every_steps=2") == 143
    BROKEN[damage](LAST)
    caplog.clear()
    spared: list[int] = []
    sound = checkpoint.save

    def look(file: Path, content: Checkpoint) -> None:
        if not spared:  # the first save must not put what is broken in the place of what is whole
            spared.append(checkpoint.load(LAST).step)
        sound(file, content)

    monkeypatch.setattr(checkpoint, "save", look)
    assert resume("resume=a") == 0
    assert spared == [10]
    [warning] = warnings(caplog)
    assert "using a/checkpoints/previous.pkl, of step 10, instead" in warning
    assert outcome("a")["last"]["networks"] == outcome("whole")["last"]["networks"]
    assert outcome("a")["rows"] == outcome("whole")["rows"]


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_lost_best_is_told_before_anything_is_trained(damage: str, stopped: Run, capsys: Capture) -> None:
    BROKEN[damage](BEST)
    assert resume("resume=a") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: a/checkpoints/best.pkl: ")
    assert "the weights of epoch 1, the best so far, are lost; start a new run from the last weights with " in message
    assert "init_from=a/checkpoints/last.pkl" in message
    assert status("a")["state"] == "interrupted"


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_lost_best_is_made_anew_where_the_last_weights_are_the_best(damage: str, run: Run) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    before = BEST.read_bytes()
    BROKEN[damage](BEST)
    assert resume("resume=a", "epochs=2", "optimizer.lr=1e-30", "resume_changed=true") == 0
    assert plain_pickle.read(BEST)["epoch"] == 1
    assert plain_pickle.parse(before)["progress"] == plain_pickle.read(BEST)["progress"]


def test_best_weights_of_a_course_that_was_left_are_not_taken(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Killed between the saving of `best` and of `last`, then resumed with a change."""
    assert run("run_dir=a", "epochs=2", "checkpoint.every_steps=8", "optimizer.lr=1e-30") == 0
    content = plain_pickle.read(LAST)
    for row, accuracy in zip(content["progress"]["rows"], (0.3, 0.2), strict=True):
        row["val/accuracy"] = accuracy
    plain_pickle.write(LAST, content)
    rows = content["progress"]["rows"]
    later = {"epoch": 3.0, "step": 24.0, "val/accuracy": 0.9}
    ahead = {**content["progress"], "rows": [*rows, {**rows[-1], **later}]}
    plain_pickle.write(BEST, {**content, "progress": ahead, "epoch": 3, "step": 24})
    assert resume("resume=a", "epochs=3", "optimizer.lr=1e-20", "resume_changed=true") == 2
    told = "error: a/checkpoints/best.pkl: from epoch 3 of a different course of this run, the best is from epoch 1"
    assert capsys.readouterr().err.startswith(told)
    assert resume("resume=a", "epochs=3") in (0, 1)  # unchanged, the third epoch comes again


def test_the_run_that_weights_came_from_may_be_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("run_dir=first", "epochs=1") == 0
    assert run("run_dir=whole", "init_from=first") == 0
    with monkeypatch.context() as patch:
        stop_at(11, patch)
        assert run("run_dir=a", "init_from=first") == 143
    shutil.rmtree("first")
    assert resume("resume=a") == 0
    assert outcome("a") == outcome("whole")


@pytest.mark.parametrize("step", [8, 11])
def test_data_may_have_moved(step: int, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    folder = write_dataset(Path("data"))
    other = write_dataset(Path("other"), count=160)
    assert run("run_dir=whole", f"data.path={folder}") == 0
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        assert run("run_dir=a", f"data.path={folder}") == 143
    folder.rename("moved")
    capsys.readouterr()
    assert resume("resume=a") == 2
    assert capsys.readouterr().err == "error: data.path: there is no directory data\n"
    assert resume("resume=a", f"data.path={other}") == 2
    assert "not the files that this run used" in capsys.readouterr().err
    assert resume("resume=a", "data.path=moved") == 0
    assert outcome("a")["rows"] == outcome("whole")["rows"]
    assert outcome("a")["last"]["networks"] == outcome("whole")["last"]["networks"]


@pytest.mark.parametrize("step", [8, 11])
def test_other_data_come_between_epochs_only(step: int, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        assert run("run_dir=a", f"data.path={write_dataset(Path('data'))}") == 143
    other = write_dataset(Path("other"), count=160)
    capsys.readouterr()
    assert resume("resume=a", f"data.path={other}", "resume_changed=true") == 2
    told = (
        "error: data: can only change between epochs, but the run stopped after "
        f"step {(step - 1) % 8 + 1} of epoch {(step - 1) // 8 + 1}\n"
    )
    assert capsys.readouterr().err.startswith(told)


def test_both_broken(stopped: Run, capsys: Capture) -> None:
    for file in (LAST, PREVIOUS):
        file.write_bytes(b"torn")
    assert resume("resume=a") == 2
    told = capsys.readouterr().err
    assert told.startswith("error: a/checkpoints/last.pkl: ")
    assert told.endswith("; previous.pkl can't be used either\n")
    for file in (LAST, PREVIOUS):
        file.unlink()
    assert resume("resume=a") == 2
    assert capsys.readouterr().err == (
        "error: a: its checkpoints last and previous are gone; start a new run from its best weights with init_from=a\n"
    )


def test_a_folder_in_the_place_of_last(stopped: Run, capsys: Capture) -> None:
    LAST.unlink()
    (LAST / "more").mkdir(parents=True)
    assert resume("resume=a") == 2
    assert "error: a/checkpoints/previous.pkl: can't be written: Is a directory\n" in capsys.readouterr().err
    assert PREVIOUS.exists()


def test_a_config_that_nobody_can_read_is_passed_over(stopped: Run) -> None:
    Path("a/config.yaml").write_text("[" * 3000)
    assert resume("resume=a") == 0


def test_an_edited_config_is_told(stopped: Run, caplog: pytest.LogCaptureFixture) -> None:
    file = Path("a/config.yaml")
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**content, "epochs": 6}))
    caplog.clear()
    assert resume("resume=a") == 0
    [warning] = warnings(caplog)
    assert warning == (
        "warning: a/config.yaml: differs from the checkpoint's config, which a resume uses "
        "(epochs); give changes as arguments"
    )
    assert len(metrics_csv.read(Path("a/metrics.csv"))) == 3


def test_a_checkpoint_of_another_run_is_told(stopped: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert stopped("run_dir=b", "epochs=4", "seed=5") == 0
    shutil.copy("b/checkpoints/last.pkl", LAST)
    caplog.clear()
    assert resume("resume=a") == 2  # the best weights are those of the run itself
    assert "(epochs, seed, run_dir)" in warnings(caplog)[0] or "seed" in warnings(caplog)[0]


@pytest.mark.parametrize("content", ["", "[]", '{"versions": null, "resumed": null, "started": 5, "device": []}'])
def test_a_status_that_says_nothing_of_use(content: str, stopped: Run) -> None:
    Path("a/status.json").write_text(content)
    assert resume("resume=a") == 0
    told = json.loads(Path("a/status.json").read_text())
    assert (told["state"], len(told["resumed"])) == ("done", 1)


def test_states(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_of(Path("a")) == "interrupted"

    def refused(path: Path) -> bool:
        raise PermissionError

    with monkeypatch.context() as patch:  # of somebody else's run
        patch.setattr(status_file, "is_held", refused)
        assert state_of(Path("a")) == "interrupted"
        Path("a/status.json").write_text('{"state": "running"}')
        assert state_of(Path("a")) == "unknown"
    Path("a/status.json").unlink()
    assert state_of(Path("a")) == "unknown"
