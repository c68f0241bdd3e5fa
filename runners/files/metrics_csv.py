"""metrics.csv: one row per epoch. Its columns depend on the task."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from runners.files import atomic

TIMING = ["images_per_second", "seconds"]
"""The columns that differ between two runs of the same config."""

Row = dict[str, float]


def write(file: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write all rows atomically. Numbers are read back to the same bits; a row may lack a column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: repr(row[name]) for name in columns if name in row} for row in rows)
    atomic.write(file, text.getvalue().encode())


def read(file: Path) -> list[Row]:
    """All rows, without empty columns; `epoch` and `step` are ints."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: int(text) if name in ("epoch", "step") else float(text) for name, text in row.items() if text}
            for row in csv.DictReader(stream)
        ]
