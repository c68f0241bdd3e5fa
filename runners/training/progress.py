"""The progress of a run: the state of its loop besides the networks, as a resume needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from runners.files.metrics_csv import Row
from runners.tasks.sums import Sums
from runners.tasks.task import Task

LOOP_COLUMNS = ("epoch", "step", "images_per_second", "seconds", "step_seconds")
"""The columns that the loop fills, whatever the task."""


def check_row(row: Row, task: Task) -> None:
    """Raise ValueError if no epoch of this task can end with this row."""
    number = int(row["epoch"])
    rates = task.rate_columns().values()
    for column in (*task.columns(), *rates):
        if column not in row and (column in rates or not task.metric(column).optional):
            raise ValueError(f"row {number} has no {column}")
    for column in task.columns():
        low, high = task.metric(column).range
        if not low <= row.get(column, low) <= high:
            raise ValueError(f"row {number} can't be the row of an epoch: its {column} is {row[column]:g}")
    unknown = sorted(row.keys() - {*task.columns(), *rates, *LOOP_COLUMNS})
    if unknown:
        raise ValueError(f"row {number} has a column {unknown[0]}, which its task doesn't have")


@dataclass
class Progress:
    """A row for each finished epoch; for the current one, its optimizer steps, examples, sums and seconds.

    `monitor` is the column that determines the best epoch. There is no random state: the seed of each step is derived
    from the run's seed, the epoch and the step.
    """

    monitor: str
    higher_is_better: bool = False
    rows: list[Row] = field(default_factory=list)
    steps: int = 0
    examples: int = 0
    sums: Sums = field(default_factory=Sums)
    seconds: float = 0.0

    @classmethod
    def of(cls, task: Task) -> Progress:
        """The progress of a new run."""
        return cls(task.monitor, task.metric(task.monitor).better == "higher")

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.rows)

    @property
    def step(self) -> int:
        """The number of optimizer steps, over all epochs."""
        return self.steps + (int(self.rows[-1]["step"]) if self.rows else 0)

    @property
    def best(self) -> Row:
        """The earliest row with the best monitored value; if no row has one, the last row.

        Raises IndexError before the first epoch.
        """
        monitored = [row for row in self.rows if self.monitor in row] or self.rows[-1:]
        return (max if self.higher_is_better else min)(monitored, key=lambda row: row.get(self.monitor, 0.0))

    @property
    def images_per_second(self) -> float:
        """The mean over all training steps."""
        spent = sum(row["step_seconds"] for row in self.rows)
        return sum(row["images_per_second"] * row["step_seconds"] for row in self.rows) / spent

    def finish_epoch(self, row: Row) -> None:
        """Add an epoch's row, and start the next epoch."""
        self.rows.append(row)
        self.steps, self.examples, self.sums, self.seconds = 0, 0, Sums(), 0.0

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Whether this many epochs have passed without a better monitored value, of those that have one."""
        if patience is None or not self.rows:
            return False
        best = self.best["epoch"]
        return sum(row["epoch"] > best and self.monitor in row for row in self.rows) >= patience
