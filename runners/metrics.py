"""metrics.csv: one row an epoch."""

from __future__ import annotations

import csv
from pathlib import Path

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


def start(file: Path) -> None:
    """Write the header."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerow(COLUMNS)


def append(file: Path, row: Row) -> None:
    """Add a row. Numbers are written so that reading them gives the same bits."""
    with file.open("a", newline="", encoding="utf-8") as stream:
        csv.DictWriter(stream, COLUMNS, lineterminator="\n").writerow({name: repr(row[name]) for name in COLUMNS})


def read(file: Path) -> list[dict[str, float]]:
    """All rows, epoch and step as whole numbers."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: int(text) if name in ("epoch", "step") else float(text) for name, text in row.items()}
            for row in csv.DictReader(stream)
        ]
