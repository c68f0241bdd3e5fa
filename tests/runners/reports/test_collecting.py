"""Runs and sweeps are found, and whatever is wrong with one of their files is named and ends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.errors import InputError
from runners.files.run_directory import RunDirectory
from runners.reports.cells import notes, outcome
from runners.reports.collecting import collect
from runners.reports.grouping import tables
from runners.reports.page import page
from runners.reports.runs import Monitor, Run, read_run
from runners.reports.spreadsheet import as_csv, as_markdown
from runners.reports.terminal import one_run, report
from tools.written_runs import config, rows, write_run, write_sweep


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_run(tmp_path / "whole", config(), rows([0.5, 0.9, 0.8]))


def test_a_run_is_what_its_files_say(whole: Path) -> None:
    run = read_run(whole)
    assert (run.state, run.value, run.test, run.seed) == ("done", 0.9, 0.9 - 0.01, 0)
    assert (run.best["epoch"], run.counts) == (2, True)
    assert run.config["optimizer.betas"] == [0.9, 0.999]


def test_runs_are_found_at_any_depth_in_a_natural_order_and_once(tmp_path: Path) -> None:
    names = ["s/1", "s/2", "s/10", "t/deep/er", "alone"]
    for name in names:
        write_run(tmp_path / "runs" / name, config(), rows([0.5]))
    (tmp_path / "runs/.hidden").mkdir()
    write_run(tmp_path / "runs/.hidden/x", config(), rows([0.5]))
    (tmp_path / "runs/loop").symlink_to(tmp_path / "runs", target_is_directory=True)
    (tmp_path / "runs/checkpoints").mkdir()  # somebody's folder, not a run
    found = collect([str(tmp_path / "runs"), str(tmp_path / "runs/s")]).runs
    assert [str(run.path.relative_to(tmp_path / "runs")) for run in found] == [
        "alone",
        "s/1",
        "s/2",
        "s/10",
        "t/deep/er",
    ]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("status.json", b"{", "status.json: Expecting property name"),
        ("status.json", b"[1]", "status.json: must be a mapping"),
        ("status.json", b"\xff\xfe", "status.json: not UTF-8 text"),
        ("status.json", b"[" * 100_000, "status.json: nested too deeply"),
        ("status.json", None, "status.json: missing"),
        ("config.yaml", None, "config.yaml: missing"),
        ("config.yaml", b"", "config.yaml: must be a mapping"),
        ("config.yaml", b"a: [1", "config.yaml: while parsing a flow sequence"),
        ("config.yaml", b"a: \xe9", "config.yaml: not UTF-8 text"),
        ("config.yaml", b"a: " + b"[" * 200_000, "config.yaml: more than 100,000 lists"),
        ("config.yaml", b"a: " + b"[" * 900 + b"]" * 900, "config.yaml: nested more than 60 levels deep"),
        ("config.yaml", b"a: 0x" + b"f" * 6000, "config.yaml: a whole number of more than 64 bits"),
        ("config.yaml", b"a: !!python/object:os.system {}", "config.yaml: could not determine a constructor"),
        ("config.yaml", b"a: 2026-99-99", "config.yaml: month must be in 1..12"),
        ("metrics.csv", None, "metrics.csv: it has no rows"),
        ("metrics.csv", b"", "metrics.csv: it has no rows"),
        ("metrics.csv", b"epoch,val/accuracy\n1,zero\n", "metrics.csv: could not convert string to float"),
        ("metrics.csv", b"epoch,val/accuracy\n1,0.5,7\n", "metrics.csv: "),
        ("metrics.csv", b"epoch\xff\n1\n", "metrics.csv: 'utf-8' codec can't decode"),
        ("metrics.csv", b"epoch\n\x00\n", "metrics.csv: "),
        ("summary.json", None, "summary.json: missing"),
        ("summary.json", b"nul", "summary.json: Expecting value"),
        ("summary.json", b"{}", "its summary names no best value"),
        ("summary.json", b'{"best": {"val/accuracy": NaN}}', "its summary names no best value"),
        ("summary.json", b'{"best": {"val/accuracy": 1' + b"0" * 400 + b"}}", "summary.json: a whole number"),
        ("summary.json", b'{"best": 3}', "its summary names no best value"),
        ("overrides.yaml", b"3", "overrides.yaml: must be a list"),
    ],
)
def test_a_broken_file_is_named(name: str, content: bytes | None, why: str, whole: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "other", config(seed=1), rows([0.4]))
    if content is None:
        (whole / name).unlink()
    else:
        (whole / name).write_bytes(content)
    collection = collect([str(tmp_path)])
    (other, broken) = collection.runs
    assert (other.state, broken.state) == ("done", "unreadable")
    assert (broken.reason or "").startswith(why)
    found, others = tables(collection.runs)
    assert others == [broken]
    assert f"whole  unreadable: {why}" in report(collection, found)


def test_aliases_that_repeat_each_other_do_not_fill_the_memory(whole: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (whole / "config.yaml").write_text("\n".join(lines))
    assert read_run(whole).reason == "config.yaml: more than 100,000 values"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["status.json", "config.yaml", "metrics.csv", "summary.json", "overrides.yaml"]),
    content=st.binary(max_size=60),
)
def test_any_bytes_in_any_file_leave_a_report(name: str, content: bytes, whole: Path) -> None:
    before = (whole / name).read_bytes()
    try:
        (whole / name).write_bytes(content)
        collection = collect([str(whole)])
        assert str(whole) in report(collection, tables(collection.runs)[0]) or collection.runs[0].counts
    finally:
        (whole / name).write_bytes(before)


def cut(path: Path, name: str, size: Callable[[int], int]) -> None:
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: size(len(content))])


@pytest.mark.parametrize("name", ["status.json", "summary.json"])
def test_a_file_that_a_killed_writer_left_is_named(name: str, whole: Path) -> None:
    cut(whole, name, lambda size: size // 2)
    assert (read_run(whole).reason or "").startswith(f"{name}: ")


def test_an_unfinished_run_has_its_best_row_so_far_and_does_not_count(tmp_path: Path) -> None:
    for state in ("failed", "interrupted", "running"):
        write_run(tmp_path / state, config(), rows([0.5, 0.9, 0.8]), state=state)
    with FileLock(tmp_path / "running/.lock"):
        run = read_run(tmp_path / "running")
    assert (run.state, run.value, run.best["epoch"], run.counts) == ("running", 0.9, 2, False)
    assert outcome(run) == "running; best so far val/accuracy 0.9000 in epoch 2"
    assert [read_run(tmp_path / name).state for name in ("failed", "interrupted", "running")] == [
        *("failed", "interrupted"),
        "died",
    ]


def test_a_pruned_run_counts_with_its_best_value(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", config(), rows([0.5, 0.9, 0.8]), state="pruned"))
    assert (run.value, run.counts) == (0.9, True)


def test_a_job_that_ended_before_it_had_a_config_is_named_with_its_overrides(tmp_path: Path) -> None:
    with RunDirectory.make(tmp_path / "0", ["epochs=0", "seed=1"]) as made:
        made.status("failed", reason="epochs: 0 is not allowed")
    (run,) = collect([str(tmp_path)]).runs
    assert outcome(run) == "failed: epochs: 0 is not allowed; epochs=0 seed=1"


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ({"val/accuracy": 0.5, "val/loss": 1.0}, Monitor("val/accuracy", "higher")),
        ({"val/loss": 1.0}, Monitor("val/loss", "lower")),
    ],
)
def test_the_monitor_of_an_older_run_follows_from_its_columns(
    best: dict[str, float], expected: Monitor, tmp_path: Path
) -> None:
    whole = write_run(tmp_path / "older", config(), rows([0.5], expected.column), monitor=vars(expected))
    for name, content in (("summary.json", {"best": best}), ("status.json", {"state": "done"})):
        (whole / name).write_text(json.dumps(content))
    assert read_run(whole).monitor == expected


def test_a_job_without_a_directory_has_not_started(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0: ["seed=0"], 1: ["seed=1"]})
    write_run(tmp_path / "0", config(), rows([0.5]))
    (tmp_path / "1").mkdir()  # it is about to start
    collection = collect([str(tmp_path)])
    assert collection.runs[1] == Run(tmp_path / "1", "not started", overrides=["seed=1"])
    assert [sweep.path for sweep in collection.sweeps] == [tmp_path]
    assert f"{tmp_path / '1'}  not started; seed=1" in report(collection, tables(collection.runs)[0])


@pytest.mark.parametrize("content", [b"", b"\xff", b"jobs: 3", b"jobs: {0: 3, x: [a], ../up: [b]}", b"- 1"])
def test_a_broken_sweep_file_ends_nothing(content: bytes, tmp_path: Path) -> None:
    write_run(tmp_path / "0", config(), rows([0.5]))
    (tmp_path / "sweep.yaml").write_bytes(content)
    collection = collect([str(tmp_path)])
    assert [run.state for run in collection.runs] == ["done"]
    assert bool(collection.sweeps[0].problem) == (b"jobs" not in content)
    assert len(notes(collection, [])) == (b"jobs" not in content)


def test_a_missing_folder_and_one_without_runs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        collect([str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="there are no runs below it"):
        collect([str(tmp_path)])


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
STATUS_KEYS = [
    "state",
    "reason",
    "resumed",
    "origin",
    "versions",
    "monitor",
    "name",
    "tags",
    "device",
    "started",
    "seed",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    status=st.dictionaries(st.sampled_from(STATUS_KEYS), JSON),
    origin=st.dictionaries(
        st.sampled_from(["commit", "branch", "dirty", "untracked", "patch_is_whole", "command"]), JSON
    ),
    summary=st.dictionaries(st.sampled_from(["best", "test", "seconds", "monitor"]), JSON),
)
def test_any_values_in_status_and_summary_leave_all_reports(
    status: dict[str, object], origin: dict[str, object], summary: dict[str, object], whole: Path, tmp_path: Path
) -> None:
    """JSON of any kind where a run has texts, numbers, lists and mappings."""
    before = {name: (whole / name).read_bytes() for name in ("status.json", "summary.json")}
    try:
        changed = {"origin": origin, **status}
        for name, changes in (("status.json", changed), ("summary.json", summary)):
            (whole / name).write_text(json.dumps({**json.loads(before[name]), **changes}))
        collection = collect([str(whole)])
        found, others = tables(collection.runs)
        assert one_run(collection.runs[0]).startswith(f"run {whole}: ")
        assert report(collection, found) + as_csv(found, others) + as_markdown(collection, found)
        assert page(collection, found, tmp_path / "page.html", "fit").endswith(b"</html>\n")
    finally:
        for name, content in before.items():
            (whole / name).write_bytes(content)
