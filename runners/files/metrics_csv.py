"""metrics.csv: one row an epoch. Which columns there are depends on the task."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from runners.files import atomic

TIMING = ["images_per_second", "seconds"]
"""The columns that differ between two runs of one config."""

Row = dict[str, float]


def write(file: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write all rows, the file being whole at any time. Reading the numbers gives the same bits.

    A column may be empty in a row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: repr(row[name]) for name in columns if name in row} for row in rows)
    atomic.write(file, text.getvalue().encode())


def read(file: Path) -> list[Row]:
    """All rows without their empty columns, epoch and step as whole numbers."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: int(text) if name in ("epoch", "step") else float(text) for name, text in row.items() if text}
            for row in csv.DictReader(stream)
        ]
