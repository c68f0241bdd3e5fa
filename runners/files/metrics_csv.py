"""metrics.csv: one row an epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from runners.files import atomic

COLUMNS = [
    "epoch",
    "step",
    "lr",
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "images_per_second",
    "seconds",
]
TIMING = ["images_per_second", "seconds"]
"""The columns that differ between two runs of one config."""

Row = dict[str, float]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Write all rows, the file being whole at any time. Reading the numbers gives the same bits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: repr(row[name]) for name in COLUMNS} for row in rows)
    atomic.write(file, text.getvalue().encode())


def read(file: Path) -> list[dict[str, float]]:
    """All rows, epoch and step as whole numbers."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: int(text) if name in ("epoch", "step") else float(text) for name, text in row.items()}
            for row in csv.DictReader(stream)
        ]
