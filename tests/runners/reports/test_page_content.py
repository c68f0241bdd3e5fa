"""The page as a file: what it may contain, what it links to, how large it is."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runners.reports.collecting import collect
from runners.reports.grouping import tables
from runners.reports.page import ASSETS, MAX_PAGE, SCRIPTS, embedded, page
from runners.reports.page_data import MAX_POINTS, link
from tools.written_runs import config, rows, write_many, write_run

HOSTILE = "</script><img src=x onerror=alert(1)><!--\u2028{{data}}"


def make(folder: Path, file: Path, include: str = "fit") -> str:
    collection = collect([str(folder)])
    return page(collection, tables(collection.runs)[0], file, include).decode()


class Elements(HTMLParser):
    """The elements of a page with their attributes and, of scripts and styles, their content."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.content: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in ("script", "style"):  # whose content is no markup
            self.content.append(data)


def data(text: str) -> Any:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[0])


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_embedded_data_are_read_back_and_end_no_script(value: Any) -> None:
    text = embedded(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_hostile_names_are_text(tmp_path: Path) -> None:
    for number, seed in enumerate([0, 1]):
        changed = config(name=HOSTILE, seed=seed, tags=[HOSTILE], data={"path": HOSTILE + str(number)})
        write_run(
            tmp_path / "runs" / f"{number}<b>", changed, rows([0.5]), origin={"command": HOSTILE, "commit": HOSTILE}
        )
    write_run(tmp_path / "runs/lost", config(), rows([0.5]), state="failed", reason=HOSTILE)
    text = make(tmp_path / "runs", tmp_path / "page.html")
    elements = Elements(text)
    assert [tag for tag, _ in elements.found if tag in ("img", "b")] == []
    assert sum(tag == "script" for tag, _ in elements.found) == 2
    runs = data(text)["runs"]
    assert {run["config"].get("name") for run in runs} >= {HOSTILE}
    assert runs[0]["command"] == HOSTILE


def test_the_policy_allows_what_is_in_the_page_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", config(), rows([0.5]))
    elements = Elements(make(tmp_path / "runs", tmp_path / "page.html"))
    (policy,) = [attributes["content"] for _, attributes in elements.found if attributes.get("http-equiv")]
    style, _, script = elements.content
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert "src" not in attributes
        assert (attributes.get("href") or "data:").startswith("data:")


def test_every_script_is_in_the_page_and_its_licence_too(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", config(), rows([0.5]))
    text = make(tmp_path / "runs", tmp_path / "page.html")
    assert {f"{name}.js" for name in SCRIPTS} == {file.name for file in ASSETS.glob("*.js")} - {"uPlot.iife.min.js"}
    for file in ASSETS.iterdir():
        if file.name != "page.html":
            assert file.read_text(encoding="utf-8") in text
    for file in ASSETS.glob("*.js"):
        content = file.read_text(encoding="utf-8")
        assert "</script" not in content
        if not file.name.startswith("uPlot"):
            assert len(content.splitlines()) <= 300
            assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval\\(", content)


def test_numbers_of_tables_are_exact_and_those_of_curves_rounded(tmp_path: Path) -> None:
    value = 0.98765432109876
    write_run(tmp_path / "runs/a", config(), rows([0.1, value]))
    found = data(make(tmp_path / "runs", tmp_path / "page.html"))
    assert found["runs"][0]["value"] == value
    assert found["groups"][0]["result"]["mean"] == value
    assert found["runs"][0]["curves"]["val/accuracy"] == [0.1, 0.98765]
    assert found["runs"][0]["curves"]["time"] == [1.5, 3]


def test_long_runs_are_thinned_with_their_ends(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", config(), rows([0.5] * 1000))
    epochs = data(make(tmp_path / "runs", tmp_path / "page.html"))["runs"][0]["curves"]["epoch"]
    assert (epochs[0], epochs[-1]) == (1, 1000)
    assert len(epochs) <= MAX_POINTS + 1


def test_values_that_json_lacks_are_text(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs/a", config(), rows([0.5]))
    (path / "config.yaml").write_text("a: .inf\nb: 2026-01-02\nc: !!binary aGk=\nd: [{1: .nan}]\n")
    common = data(make(tmp_path / "runs", tmp_path / "page.html"))["common"]
    assert (common["a"], common["b"], common["d"]) == ("inf", "2026-01-02", [{"1": "nan"}])


def test_thumbnails_while_they_fit_and_links_for_all(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs/a b", config(), rows([0.5]))
    noise = random.Random(0).randbytes(360 * 360 * 3)
    (path / "figures").mkdir()
    for number in range(40):
        Image.frombytes("RGB", (360, 360), noise).save(path / f"figures/{number:02d}#.png", compress_level=0)
    (path / "figures/broken.png").write_bytes(b"no picture")
    (path / "figures/notes.txt").write_text("no figure")
    file = tmp_path / "pages/page.html"
    file.parent.mkdir()
    texts = {include: make(tmp_path / "runs", file, include) for include in ("fit", "all", "none")}
    found = {include: data(text)["runs"][0]["figures"] for include, text in texts.items()}
    small = {include: sum("small" in figure for figure in figures) for include, figures in found.items()}
    assert (small["all"], small["none"]) == (40, 0)
    assert 0 < small["fit"] < 40
    assert MAX_PAGE * 0.9 < len(texts["fit"].encode()) <= MAX_PAGE
    assert [len(figures) for figures in found.values()] == [41, 41, 41]
    assert found["none"][0] == {"name": "00#", "link": "./../runs/a%20b/figures/00%23.png"}
    assert found["all"][0]["small"].startswith("data:image/webp;base64,")


def test_a_link_is_an_address_whatever_the_name(tmp_path: Path) -> None:
    assert link(tmp_path / "javascript:alert(1)", tmp_path / "page.html") == "./javascript%3Aalert%281%29"


def test_200_runs_of_30_epochs_are_below_a_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m benchmarks.report_page` has the time as well."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # of a thousand files
    write_many(tmp_path / "runs", [10.0 ** (-1 - index / 4) for index in range(10)], 5, 30)
    text = make(tmp_path / "runs", tmp_path / "page.html")
    assert len(data(text)["runs"]) == 200
    assert len(text.encode()) < MAX_PAGE


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_page_without_a_result_has_its_list(state: str, tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", config(), [], state=state)
    assert "Not counted" in make(tmp_path / "runs", tmp_path / "page.html")
