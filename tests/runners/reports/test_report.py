"""The command: what it prints of real runs, and how it refuses."""

from __future__ import annotations

import csv
import io
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from runners.cli import report
from runners.reports.collecting import collect
from tests.runners.conftest import Run
from tools.written_runs import ORIGIN, config, rows, write_run, write_sweep

ROOT = Path(__file__).parents[3]
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028"


@pytest.fixture
def three(run: Run, capsys: pytest.CaptureFixture[str]) -> list[Path]:
    """Two seeds with one learning rate, and a run with another."""
    for number, (rate, seed) in enumerate([("0.01", 0), ("0.01", 1), ("0.0001", 0)]):
        assert run(f"run_dir=runs/{number}", f"optimizer.lr={rate}", f"seed={seed}", "optimizer=sgd") == 0
    capsys.readouterr()
    return [Path("runs", str(number)) for number in range(3)]


def summary(path: Path) -> dict[str, dict[str, float]]:
    content: dict[str, dict[str, float]] = json.loads((path / "summary.json").read_text())
    return content


def test_numbers_are_those_of_the_summaries(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["runs", "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    by_rate = {line["optimizer.lr"]: line for line in lines}
    values = [summary(path)["best"]["val/accuracy"] for path in three]
    tests = [summary(path)["test"]["test/accuracy"] for path in three]
    first, second = by_rate["0.01"], by_rate["0.0001"]
    assert float(first["mean"]) == statistics.fmean(values[:2])
    assert float(first["spread"]) == statistics.stdev(values[:2])
    assert (float(first["test_mean"]), first["count"]) == (statistics.fmean(tests[:2]), "2")
    assert first["runs"] == "runs/0\nruns/1"
    assert (float(second["mean"]), second["spread"], second["count"]) == (values[2], "", "1")
    assert [float(line["mean"]) for line in lines] == sorted((float(line["mean"]) for line in lines), reverse=True)
    assert {line["better"] for line in lines} == {"higher"}


def test_the_table_for_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in enumerate([0.90, 0.92]):
        write_run(tmp_path / f"a{seed}", config(seed=seed), rows([0.5, value]))
    write_run(
        tmp_path / "b", config(optimizer={"lr": 0.1}), rows([0.95]), state="failed", reason="the loss\nisn't finite"
    )
    write_sweep(tmp_path, {7: ["optimizer.lr=1", "seed=3"]})
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.replace(str(tmp_path), "X").splitlines() == [
        "val/accuracy (higher is better): 3 runs in 2 groups",
        "optimizer.lr  val/accuracy  spread     95 % interval  runs  test/accuracy  not counted",
        "0.01                0.9100  0.0141  0.7829 .. 1.0371     2         0.9000  -",
        "0.1                      -       -                 -     0              -  1 failed",
        "",
        "not counted:",
        "  X/b  failed: the loss isn't finite; best so far val/accuracy 0.9500 in epoch 1",
        "  X/7  not started; optimizer.lr=1 seed=3",
    ]


def test_markdown_shows_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, kernel in enumerate(["a|b", "c_d*"]):
        write_run(tmp_path / str(number), config(data={"path": kernel}), rows([0.5]))
    assert report.main([str(tmp_path), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "**val/accuracy (higher is better): 2 runs in 2 groups**"
    assert lines[3] == "| --- | --- | --- | --- | --- | --- | --- |"
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| a\\|b", "| c\\_d\\*"]


def test_one_run_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(
        tmp_path / "a",
        config(name="mine", tags=["x", "y"], seed=7),
        rows([0.5, 0.9]),
        origin={**ORIGIN, "dirty": True, "untracked": ["new.py"]},
    )
    (path / "changes.patch").write_text("diff")
    assert report.main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"run {path}: done",
        "  result       val/accuracy 0.9000 in epoch 2, test/accuracy 0.8900",
        "  called       mine x y",
        "  seed         7",
        "  started      2026-01-02T03:04:05Z",
        f"  commit       {ORIGIN['commit']} on branch main",
        f"  changes      dirty: in {path}/changes.patch; files that git doesn't know: new.py",
        "  repeat with  python run.py optimizer=adam",
        "  host         here",
        "  device       cpu",
        "  versions     python 3.11.7",
    ]
    (path / "changes.patch").unlink()
    (path / "metrics.csv").write_text("")
    assert report.main([str(path)]) == 0
    assert capsys.readouterr().out == f"run {path}: unreadable: metrics.csv: it has no rows\n"


def test_a_real_run_says_where_it_comes_from(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    capsys.readouterr()
    assert report.main(["a"]) == 0
    out = capsys.readouterr().out
    origin = json.loads(Path("a/status.json").read_text())["origin"]
    for text in (origin["command"], origin["host"], origin["commit"] or "unknown", "versions     python "):
        assert text in out


def test_wrong_paths_and_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs/a", config(), rows([0.5]))
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([f"{tmp_path}/no"], f"{tmp_path}/no: there is no such folder"),
        ([f"{tmp_path}/runs/a/status.json"], f"{tmp_path}/runs/a/status.json: there is no such folder"),
        ([f"{tmp_path}/empty"], f"{tmp_path}/empty: there are no runs below it"),
        ([f"{tmp_path}/runs", f"--html={tmp_path}"], f"--html {tmp_path}: it is a folder, give a file"),
        (
            [f"{tmp_path}/runs", f"--html={tmp_path}/no/x.html"],
            f"--html {tmp_path}/no/x.html: there is no folder {tmp_path}/no",
        ),
    ):
        assert report.main(arguments) == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"error: {message}\n")


def test_the_page_is_written_at_once_and_its_size_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs/a", config(), rows([0.5]))
    file = tmp_path / "page.html"
    file.write_text("old")
    assert report.main([f"{tmp_path}/runs", "--html", str(file)]) == 0
    assert capsys.readouterr().out == f"wrote {file}: 1 run, {file.stat().st_size / 1e6:.2f} MB\n"
    assert file.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "runs"]


def test_names_cannot_drive_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a\x1b[2J", config(name="\x1b[31m"), rows([0.5]), state="failed", reason="\x1b]0;x\x07")
    for arguments in ([], ["--markdown"], ["--csv"]):
        assert report.main([str(tmp_path), *arguments]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_reading_runs_writes_nothing_into_them_and_they_may_be_read_only(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", config(), rows([0.5]))
    before = {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    collect([str(tmp_path)])
    assert {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()} == before


def test_it_starts_without_torch_and_hydra(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config(), rows([0.5]))
    code = (
        "import sys; from runners.cli.report import main; main(sys.argv[1:]);"
        "slow = {'torch', 'hydra', 'omegaconf', 'numba', 'numpy', 'scipy', 'PIL'}; print(sorted(slow & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), f"--html={tmp_path}/x.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    entry = subprocess.run([sys.executable, "-m", "runners.report", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert entry.stdout.startswith("usage: python -m runners.report")
