"""The page of a real sweep in headless Chromium: what it shows is what the summaries say."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from runners.cli import report
from runners.config.saved import composed
from runners.training import experiment
from tests.runners.reports.view import cells, click, run_script
from tools import browser
from tools.small_runs import SMALL_MODEL
from tools.written_runs import write_sweep


@pytest.mark.long
@pytest.mark.figures
def test_3_optimizers_3_rates_and_3_seeds(
    driver: Any, striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    small = [
        "data=idx",
        f"data.path={striped}",
        "data.val_examples=30",
        SMALL_MODEL,
        "epochs=2",
        "batch_size=16",
        "threads=1",
    ]
    grid = [
        (name, rate, seed)
        for name in ("sgd", "adam", "rmsprop")
        for rate in ("0.001", "0.01", "0.1")
        for seed in range(3)
    ]
    jobs = {
        n: [f"optimizer={name}", f"optimizer.lr={rate}", f"seed={seed}"] for n, (name, rate, seed) in enumerate(grid)
    }
    for number, job in jobs.items():
        overrides = [*small, *job, f"run_dir={tmp_path / 'sweep' / str(number)}"]
        experiment.run(composed(overrides), overrides)
    write_sweep(tmp_path / "sweep", jobs)
    assert report.main([str(tmp_path / "sweep"), "--html", str(tmp_path / "page.html")]) == 0
    browser.console(driver), browser.requests(driver)
    browser.open_page(driver, tmp_path / "page.html")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, (name, rate, _) in enumerate(grid):
        summary = json.loads((tmp_path / "sweep" / str(number) / "summary.json").read_text())
        groups.setdefault((name, rate), []).append(summary)
    found = cells(driver)
    assert len(found) == 9
    for row in found:
        summaries = groups[row[1], row[2]]
        values = [summary["best"]["val/accuracy"] for summary in summaries]
        assert float(row[3]) == pytest.approx(statistics.fmean(values), abs=5e-5)
        assert float(row[4]) == pytest.approx(statistics.stdev(values), abs=5e-5)
        assert float(row[7]) == pytest.approx(
            statistics.fmean([s["test"]["test/accuracy"] for s in summaries]), abs=5e-5
        )
    exact = json.loads(run_script(driver, "document.getElementById('data').textContent"))
    for run in exact["runs"]:
        summary = json.loads(Path(run["path"], "summary.json").read_text())
        assert (run["value"], run["test"]) == (summary["best"]["val/accuracy"], summary["test"]["test/accuracy"])
    click(driver, ".result tbody tr:first-child td:nth-child(3)")
    assert run_script(driver, "[...document.querySelectorAll('#details img')].every((image) => image.naturalWidth > 0)")
    assert run_script(driver, "document.querySelectorAll('#details img').length") >= 3
    assert len(cells(driver, ".heat tbody tr")) == 3
    assert browser.console(driver) == []
    assert [address for address in browser.requests(driver) if not address.startswith("data:")] == [
        (tmp_path / "page.html").as_uri()
    ]
