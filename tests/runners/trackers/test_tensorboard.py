"""What TensorBoard reads back of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.optional import needs
from tests.runners.conftest import Run
from tests.runners.outcomes import status
from tests.runners.trackers.libraries import kill_and_resume, limit_files, rows, stop_and_resume
from tests.runners.trackers.test_failures import warnings

pytestmark = pytest.mark.optional
needs("tensorboard", extra="tensorboard")


def read(run: Path | str = "a") -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(Path(run, "tensorboard")), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def check_scalars(run: Path | str = "a") -> None:
    """Every column of metrics.csv reads back, as float32, which is what TensorBoard keeps."""
    found = read(run)
    for column in rows(run)[0]:
        expected = [(int(row["epoch"]), float(np.float32(row[column]))) for row in rows(run)]
        assert [(event.step, event.value) for event in found.Scalars(column)] == expected, column


@pytest.mark.figures
def test_what_is_written_is_read_back(run: Run) -> None:
    assert run("run_dir=a", "tracker=tensorboard", "name=first", "tags=[x]", "clip_grad_norm=0.5") == 0
    check_scalars()
    found = read()
    summary = json.loads(Path("a/summary.json").read_text())
    for tag, value in (("test/accuracy", summary["test"]["test/accuracy"]), ("parameters", summary["parameters"])):
        [event] = found.Scalars(f"summary/{tag}")
        assert (event.step, event.value) == (2, float(np.float32(value)))
    for figure in Path("a/figures").glob("*.png"):
        assert found.Images(f"figures/{figure.stem}")[0].encoded_image_string == figure.read_bytes()
    about = found.Tensors("about")[0].tensor_proto.string_val[0].decode()
    assert "**name**: `first`" in about
    assert "**commit**" in about


def test_hyperparameters_are_those_of_the_config(run: Run) -> None:
    from tensorboard.plugins.hparams import api_pb2, metadata

    assert run("run_dir=a", "epochs=1", "tracker=tensorboard") == 0
    tags = read().PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(tags["_hparams_/session_start_info"])
    assert start.hparams["optimizer.lr"].number_value == 0.01
    assert start.hparams["capture"].bool_value is True
    assert start.hparams["optimizer.name"].string_value == "adam"
    assert json.loads(start.hparams["optimizer.betas"].string_value) == [0.9, 0.999]
    assert start.hparams["patience"].string_value == "null"
    end = metadata.parse_session_end_info_plugin_data(tags["_hparams_/session_end_info"])
    assert end.status == api_pb2.STATUS_SUCCESS


def test_a_resumed_run_has_each_row_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_and_resume(run, monkeypatch, "tracker=tensorboard")
    check_scalars()
    assert len(list(Path("a/tensorboard").iterdir())) == 1


def test_rows_keep_the_time_at_which_they_were_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from runners.cli import train

    assert run("run_dir=a", "epochs=1", "schedule=constant", "tracker=tensorboard") == 0
    [before] = read().Scalars("epoch")
    assert train.main(["resume=a", "epochs=2"]) == 0
    assert read().Scalars("epoch")[0] == before


def test_a_killed_run_has_each_row_once(striped: Path, run: Run, tmp_path: Path) -> None:
    kill_and_resume(striped, tmp_path, "tracker=tensorboard")
    check_scalars()


def test_a_file_that_is_broken_does_not_matter(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from runners.cli import train

    assert run("run_dir=a", "epochs=1", "schedule=constant", "tracker=tensorboard") == 0
    [file] = Path("a/tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert train.main(["resume=a", "epochs=2"]) == 0
    check_scalars()


def test_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    limit_files(monkeypatch, 4)
    assert run("run_dir=a", "epochs=12", "tracker=tensorboard") == 0
    assert status("a")["state"] == "done"
    expected = ["the tracker tensorboard failed and is off: OSError: [Errno 27] File too large"]
    assert warnings(capsys.readouterr().err) == expected
    assert warnings(Path("a/run.log").read_text()) == expected
