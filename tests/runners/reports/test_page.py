"""The page in headless Chromium. Needs the extra `browser` and Chromium, and is skipped without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from runners.cli import report
from tests.runners.reports.view import cells, click, ink, listed, run_script
from tools import browser
from tools.written_runs import config, rows, write_run

HOSTILE = "</script><img src=x onerror=console.error(1)>"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 2 optimizers x 3 rates x 2 seeds, a failed run, and three runs of another metric."""
    folder = tmp_path_factory.mktemp("written")
    for number in range(12):
        name, rate, seed = ("adam", "sgd")[number // 6], (0.001, 0.01, 0.1)[number // 2 % 3], number % 2
        value = 0.9 + rate / 2 + (0.01 if name == "sgd" else 0) + seed / 500
        changed = config(seed=seed, name=HOSTILE, optimizer={"name": name, "lr": rate})
        path = write_run(folder / "runs" / str(number), changed, rows([0.5, 0.8, value]))
        (path / "figures").mkdir()
        Image.new("RGB", (60, 40), (20 * number, 0, 0)).save(path / "figures/curves.png")
    write_run(folder / "runs/12", config(seed=9, optimizer={"lr": 0.01}), rows([0.1]), state="failed", reason=HOSTILE)
    write_run(folder / "runs/13", config(optimizer={"name": "sgd", "lr": 1.0}), state="failed")  # in its first epoch
    for seed in range(3):
        changed = config(seed=seed, task={"name": "vae"})
        metric = {"column": "val/loss", "better": "lower"}
        write_run(folder / "runs" / f"vae{seed}", changed, rows([3.0, 2.0 - seed / 10], "val/loss"), monitor=metric)
    assert report.main([str(folder / "runs"), "--html", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture
def page(driver: Any, written: Path) -> Any:
    """A fresh view of that page, after which the console is empty and nothing else was requested."""
    browser.colors(driver, "light")
    browser.size(driver, 1280, 900)
    browser.open_page(driver, written)
    yield driver
    assert browser.console(driver) == []
    assert [address for address in browser.requests(driver) if not address.startswith("data:")] == [written.as_uri()]


def box(column: int, value: int) -> str:
    return f"#filters fieldset:nth-of-type({column}) label:nth-of-type({value}) input"


def test_tables_are_sorted_and_have_what_differs(page: Any) -> None:
    found = cells(page)
    assert [row[1:3] for row in found] == [
        *(
            ["sgd", "0.1"],
            ["adam", "0.1"],
            ["sgd", "0.01"],
            ["sgd", "0.001"],
            ["adam", "0.01"],
            ["adam", "0.001"],
            ["sgd", "1.0"],
        ),
    ]
    assert found[0][3:7] == ["0.9610", "0.0014", "0.9483 .. 0.9737", "2"]
    assert found[4][8] == "1 failed"


def test_a_filter_hides_rows_curves_and_effects(page: Any) -> None:
    before = ink(page)
    assert len(listed(page)) == 6
    click(page, box(1, 1))
    assert {row[1] for row in cells(page)} == {"sgd"}
    assert listed(page) == ["sgd · 0.1", "sgd · 0.01", "sgd · 0.001"]
    assert ink(page) < before
    assert run_script(page, "document.querySelectorAll('#strips svg').length") == 1
    click(page, box(2, 1))
    click(page, box(2, 2))
    click(page, box(2, 3))
    assert [row[2] for row in cells(page)] == ["1.0"]
    assert "Nothing to draw" in page.find_element("id", "chart").text
    click(page, box(2, 3))
    assert listed(page) == ["sgd · 0.1"]


def test_a_row_s_box_hides_its_curve(page: Any) -> None:
    click(page, ".result tbody tr:first-child input")
    assert "sgd · 0.1" not in listed(page)
    assert len(cells(page)) == 7
    click(page, ".result thead input")
    assert len(listed(page)) == 6
    click(page, ".result thead input")
    assert listed(page) == []


def test_a_search_looks_at_folders_and_settings(page: Any) -> None:
    page.find_element("css selector", "input[type=search]").send_keys("ADAM 0.1")
    assert [row[1:3] for row in cells(page)] == [["adam", "0.1"]]


def test_a_click_shows_figures_config_and_origin(page: Any) -> None:
    assert not page.find_element("id", "details").is_displayed()
    click(page, ".result tbody tr:first-child td:nth-child(3)")
    assert page.find_element("id", "details-title").text == "sgd · 0.1"
    pictures = run_script(
        page, "[...document.querySelectorAll('#details img')].map((image) => [image.naturalWidth, image.alt])"
    )
    assert pictures == [[60, "curves"]]
    assert (
        run_script(page, "document.querySelector('#details figure a').getAttribute('href')")
        == "./runs/10/figures/curves.png"
    )
    assert "python run.py optimizer=adam" in page.find_element("id", "run").text
    click(page, "#details summary")
    config_text = page.find_element("css selector", "#details .config").text
    assert "optimizer.lr 0.1" in config_text
    assert HOSTILE in config_text
    assert "optimizer.betas [0.9,0.999]" in config_text
    click(page, "#details tbody tr:nth-child(2) button.link")
    assert run_script(page, "document.querySelector('#run h3').innerText").endswith("runs/11")


def test_what_differs_between_two_runs(page: Any) -> None:
    keys = [row[0] for row in cells(page, "#comparison tbody tr")]
    assert keys == ["val/accuracy", "test/accuracy", "optimizer.name"]
    click(page, ".result tbody tr:nth-child(5) .choose")
    click(page, "#details tbody tr:nth-child(3) button[aria-label$='as B']")
    rows_now = {row[0]: row[1:] for row in cells(page, "#comparison tbody tr")}
    assert rows_now["state"][0] == "done"
    assert rows_now["state"][1].startswith(f"failed: {HOSTILE}")
    assert rows_now["seed"] == ["0", "9"]


def test_keys_choose_rows_and_move_the_cursor(page: Any) -> None:
    from selenium.webdriver import Keys

    button = page.find_element("css selector", ".result tbody tr:first-child .choose")
    run_script(page, "arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert page.find_element("id", "details").is_displayed()
    chart = page.find_element("id", "chart")
    run_script(page, "arguments[0].focus()", chart)
    for key, where in ((Keys.HOME, "1"), (Keys.ARROW_RIGHT, "2"), (Keys.END, "3"), (Keys.ARROW_LEFT, "2")):
        chart.send_keys(key)
        assert page.find_element("css selector", "#values .where").text == f"val/accuracy at epoch {where}"
    assert {row[1] for row in cells(page, "#values tbody tr")} == {"0.8000"}


def test_axes_metrics_and_single_runs(page: Any) -> None:
    def choose(label: int, option: int) -> None:
        click(page, f"#curve-controls label:nth-of-type({label}) option:nth-child({option})")

    choose(2, 3)
    assert page.find_element("css selector", "#chart").get_attribute("aria-label") == "val/accuracy over time, 7 groups"
    assert len(listed(page)) == 6
    for check in (3, 4):
        click(page, f"#curve-controls label:nth-of-type({check}) input")
        assert ink(page) > 500
    assert len(listed(page)) == 12
    choose(1, 2)
    assert page.find_element("css selector", "#values .where").text.startswith("train/loss")


def test_effects(page: Any) -> None:
    labels = run_script(
        page, "[...document.querySelectorAll('#strips svg')].map((svg) => svg.getAttribute('aria-label'))"
    )
    assert labels[0].startswith("optimizer.name. adam: mean 0.9195 of 6; sgd: mean 0.9295 of 6")
    assert run_script(page, "document.querySelectorAll('#strips circle').length") == 24
    assert cells(page, ".heat tbody tr") == [
        ["0.001", "0.9015", "0.9115"],
        ["0.01", "0.9060", "0.9160"],
        ["0.1", "0.9510", "0.9610"],
    ]


def test_another_metric_has_its_own_table(page: Any) -> None:
    assert run_script(page, "document.querySelectorAll('.result:not([hidden])').length") == 1
    click(page, "#choice option:nth-child(2)")
    assert [row[1] for row in cells(page)] == ["1.9000"]
    assert page.find_element("css selector", "#values .where").text == "val/loss at the end"
    assert not page.find_element("id", "effects").is_displayed()


def test_a_column_sorts(page: Any) -> None:
    click(page, ".result thead th:nth-child(3) .sort")
    assert [row[2] for row in cells(page)] == ["0.001", "0.001", "0.01", "0.01", "0.1", "0.1", "1.0"]
    click(page, ".result thead th:nth-child(3) .sort")
    assert [row[2] for row in cells(page)] == ["1.0", "0.1", "0.1", "0.01", "0.01", "0.001", "0.001"]


def test_dark_narrow_and_printed(page: Any, tmp_path: Path) -> None:
    light = run_script(page, "getComputedStyle(document.body).backgroundColor")
    browser.colors(page, "dark")
    dark = run_script(page, "getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
    assert ink(page) > 500
    for width in (1280, 700, 380):
        browser.size(page, width, 900)
        assert run_script(page, "document.documentElement.scrollWidth") <= width
    browser.print_page(page, tmp_path / "x.pdf")
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_without_javascript_the_tables_are_there(driver: Any, written: Path) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open_page(driver, written)
        shown = driver.find_element("css selector", "body").text
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for text in ("sgd 0.1 0.9610 0.0014", "val/loss (lower is better)", "Not counted", "Without JavaScript"):
        assert text in shown
    assert "Curves" not in shown


def test_a_random_search_has_ranges_and_scatter_plots(driver: Any, tmp_path: Path) -> None:
    """Settings with many values have places by their size."""
    for number in range(16):
        lr, decay = 10 ** (-1 - number / 5), 0.1 + number
        changed = config(optimizer={"lr": lr, "weight_decay": decay}, batch_size=(16, 32)[number % 2])
        write_run(tmp_path / "runs" / str(number), changed, rows([0.9 - number / 100]))
    assert report.main([str(tmp_path / "runs"), "--html", str(tmp_path / "page.html")]) == 0
    browser.console(driver)
    browser.open_page(driver, tmp_path / "page.html")
    labels = run_script(
        driver, "[...document.querySelectorAll('#strips svg')].map((svg) => svg.getAttribute('aria-label'))"
    )
    assert labels[:2] == ["optimizer.lr: 16 runs, each a point", "optimizer.weight_decay: 16 runs, each a point"]
    assert run_script(driver, "document.querySelectorAll('#together path').length") == 16
    driver.find_element("css selector", "input[aria-label='optimizer.lr from']").send_keys("0.01")
    assert len(cells(driver)) == 6
    driver.find_element("css selector", "input[aria-label='optimizer.weight_decay to']").send_keys("2.1")
    assert len(cells(driver)) == 3
    assert browser.console(driver) == []
