"""One HTML page that needs no other file: tables that need no script, and curves, effects and figures that do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cnn.text import printable
from runners.files.status import now
from runners.reports.cells import cells, counted, heading, not_counted, notes, outcome, titles
from runners.reports.collecting import Collection
from runners.reports.facts import commit, facts
from runners.reports.grouping import Table
from runners.reports.page_data import figures, page_data
from runners.reports.runs import Run
from runners.reports.thumbnails import thumbnail

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = "common", "state", "charts", "curves", "table", "filters", "effects", "details", "comparison", "main"
"""Our scripts, in the order in which the page has them: together they are one function."""

MAX_PAGE = 1_000_000
"""Bytes of a page with the thumbnails that fit."""

FIGURES = "fit", "all", "none"


def page(collection: Collection, found: Sequence[Table], file: Path, include: str) -> bytes:
    """The page of these tables, which will be in `file`: links to figures are relative to it.

    `include`: which figures have thumbnails, those that fit, all or none.
    """
    data = page_data(found, file)
    runs = [run for table in found for run in table.runs]
    for place, run in enumerate(runs):
        if pictures := list(figures(run, file)):
            data["runs"][place]["figures"] = pictures
    if include != "none":
        room = MAX_PAGE - len(_page(collection, found, data)) if include == "fit" else None
        _add_thumbnails(data, runs, room)
    return _page(collection, found, data)


def _add_thumbnails(data: dict[str, Any], runs: Sequence[Run], room: int | None) -> None:
    """Add the thumbnails for which there is room, in bytes: of a run of each group first, from the best group on."""
    firsts = {group["runs"][0] for group in data["groups"]}
    for place in sorted(range(len(runs)), key=lambda place: place not in firsts):
        for picture, figure in zip(data["runs"][place].get("figures", ()), runs[place].figures, strict=False):
            if (small := thumbnail(figure)) is None:
                continue
            if room is not None:
                room -= len(small) + len('"small":"",')
                if room < 0:
                    return
            picture["small"] = small


def _page(collection: Collection, found: Sequence[Table], data: dict[str, Any]) -> bytes:
    style = "".join(_asset(name) for name in ("uPlot.min.css", "page.css"))
    ours = "".join(_asset(f"{name}.js") for name in SCRIPTS)
    script = f'{_asset("uPlot.iife.min.js")}\n(() => {{\n"use strict";\n{ours}}})();\n'
    names = ", ".join(printable(path) for path in collection.paths)
    values: dict[str, Callable[[], str]] = {
        "policy": lambda: (
            f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'"
        ),
        "title": lambda: escape(f"Runs in {names}"),
        "style": lambda: style,
        "licence": lambda: _asset("LICENSE.uPlot.txt"),
        "facts": lambda: "".join(f"<p>{escape(line)}</p>" for line in _facts(collection)),
        "tables": lambda: "".join(_table(table, found, place) for place, table in enumerate(found)),
        "rest": lambda: "".join(_rest(collection, found)),
        "data": lambda: embedded(data),
        "script": lambda: script,
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda name: values[name[1]](), _asset("page.html"))
    return text.encode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a content security policy names what may be in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded(data: object) -> str:
    """JSON that can be within a script element, whatever the strings in it are."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _facts(collection: Collection) -> Iterator[str]:
    missing = len(not_counted(collection.runs))
    runs = counted(len(collection.runs), "run")
    yield f"{runs}{f', {missing} of them not counted' if missing else ''}. Made {now()}."
    for sweep in collection.sweeps:
        where = f", commit {commit(sweep.origin)}" if sweep.origin.get("commit") else ""
        if sweep.command:
            yield printable(f"Sweep {sweep.path}: {sweep.command}{where}")


def _table(table: Table, among: Sequence[Table], place: int) -> str:
    """A table as HTML, to which the script adds what can be clicked."""
    width = len(table.columns)
    kinds = ["setting"] * width + ["number"] * (len(titles(table)) - width - 1) + ["state"]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(text)}</th>' for kind, text in zip(kinds, titles(table), strict=True)
    )
    lines = []
    for rank, group in enumerate(table.groups):
        texts = zip(kinds, cells(table, group), strict=True)
        line = "".join(f'<td class="{kind}">{escape(text)}</td>' for kind, text in texts)
        lines.append(f'<tr data-rank="{rank}">{line}</tr>')
    return (
        f'<section class="result" data-table="{place}"><h2>{escape(heading(table, among))}</h2>'
        f'<div class="scrolls" tabindex="0" role="region" aria-label="{escape(heading(table, among))}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></section>"
    )


def _rest(collection: Collection, found: Sequence[Table]) -> Iterator[str]:
    """What isn't counted and why, notes, and where a single run comes from."""
    if missing := not_counted(collection.runs):
        lines = (f"<tr><td>{escape(printable(run.path))}</td><td>{escape(outcome(run))}</td></tr>" for run in missing)
        head = '<tr><th scope="col">run</th><th scope="col">state</th></tr>'
        yield f'<section id="missing"><h2>Not counted</h2><div class="scrolls"><table><thead>{head}</thead>'
        yield f"<tbody>{''.join(lines)}</tbody></table></div></section>"
    if texts := notes(collection, found):
        yield f"<section><h2>Notes</h2><ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul></section>"
    if len(collection.runs) == 1:
        pairs = (
            f"<dt>{name}</dt><dd>{escape(printable(text))}</dd>" for name, text in facts(collection.runs[0]) if text
        )
        yield f"<section><h2>Where it comes from</h2><dl>{''.join(pairs)}</dl></section>"
