"""What a page knows of the runs, as plain data for JSON: exact numbers for tables, rounded ones for curves."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_from_bytes

from cnn.text import printable
from runners.files.metrics_csv import Row
from runners.reports.cells import outcome
from runners.reports.facts import changes
from runners.reports.grouping import Group, Table, is_ignored
from runners.reports.runs import Run, number
from runners.reports.statistics import Statistic
from runners.reports.values import canonical, plain

MAX_POINTS = 400
"""Points of a run's curve: of a longer run, every second or third epoch and so on."""

DIGITS = 5
LEFT_OUT = "images_per_second", "seconds"


def page_data(found: Sequence[Table], file: Path) -> dict[str, Any]:
    """The tables, groups and runs of a page in this file. A group's number is its place in `groups`, a run's likewise.

    `common` is the part of the config that all groups share; a group has the rest, but for ignored keys, which are the
    runs' own.
    """
    groups = [group for table in found for group in table.groups]
    common = _common([group.config for group in groups])
    data: dict[str, Any] = {"common": common, "tables": [], "groups": [], "runs": []}
    for table in found:
        first = len(data["groups"])
        for group in table.groups:
            runs = range(len(data["runs"]), len(data["runs"]) + len(group.runs))
            data["runs"] += [_run(run, group, len(data["groups"]), file) for run in group.runs]
            data["groups"].append({"runs": [*runs], **_group(table, group, common)})
        data["tables"].append(
            {
                "column": table.monitor.column,
                "test": table.monitor.test,
                "better": table.monitor.better,
                "task": table.task,
                "columns": table.columns,
                "groups": [*range(first, len(data["groups"]))],
            }
        )
    return cast(dict[str, Any], plain(data))


def _common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values that all configs have, but for ignored keys."""
    first = configs[0] if configs else {}
    texts = {key: canonical(value) for key, value in first.items() if not is_ignored(key)}
    return {
        key: first[key]
        for key, text in texts.items()
        if all(key in config and canonical(config[key]) == text for config in configs[1:])
    }


def _group(table: Table, group: Group, common: Mapping[str, Any]) -> dict[str, Any]:
    values = table.settings(group)
    return {
        "settings": table.texts(group),
        "values": [value if number(value) is not None else None for value in values],
        "result": _statistic(group.result),
        "test": _statistic(group.test),
        "config": {key: value for key, value in group.config.items() if key not in common and not is_ignored(key)},
    }


def _statistic(found: Statistic | None) -> dict[str, Any] | None:
    return None if found is None else dict(vars(found))


def _run(run: Run, group: Group, place: int, file: Path) -> dict[str, Any]:
    origin = run.origin
    known = {
        "group": place,
        "path": printable(run.path),
        "link": link(run.path, file) + "/",
        "counted": any(run is counted for counted in group.counted),
        "state": run.state if run.counts else printable(outcome(run)),
        "seed": run.seed,
        "value": run.value,
        "epoch": number(run.best.get("epoch")),
        "test": run.test,
        "seconds": number(run.summary.get("seconds")),
        "parameters": number(run.summary.get("parameters")),
        "started": run.status.get("started"),
        "commit": origin.get("commit"),
        "branch": origin.get("branch"),
        "changes": printable(changes(run, Path())),
        "host": origin.get("host"),
        "device": run.status.get("device_name") or run.status.get("device"),
        "command": origin.get("command"),
        "config": {key: value for key, value in run.config.items() if is_ignored(key)},
        "curves": _curves(run.rows),
    }
    return {key: value for key, value in known.items() if value is not None}


def figures(run: Run, file: Path) -> Iterator[dict[str, str]]:
    """The name and the address of each figure, relative to the page."""
    for figure in run.figures:
        yield {"name": printable(figure.stem), "link": link(figure, file)}


def link(target: Path, file: Path) -> str:
    """The address of a file, relative to the page's folder."""
    relative = os.path.relpath(target.absolute(), file.absolute().parent)
    return f"./{quote_from_bytes(os.fsencode(relative))}"


def _curves(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """A list for each column, `time` in seconds since the start of the training."""
    every = math.ceil(len(rows) / MAX_POINTS) or 1
    chosen = [index for index in range(len(rows)) if index % every == 0 or index == len(rows) - 1]
    names = dict.fromkeys(name for row in rows for name in row if name not in LEFT_OUT)
    curves = {name: [_rounded(rows[index].get(name)) for index in chosen] for name in names}
    times, total = [], 0.0
    for row in rows:
        total += number(row.get("seconds")) or 0.0
        times.append(total)
    return curves | {"time": [_rounded(times[index]) for index in chosen]}


def _rounded(value: float | None) -> float | None:
    exact = number(value)
    return exact if exact is None or isinstance(exact, int) else float(f"{exact:.{DIGITS}g}")
