"""How far a run has come: all that its loop knows beside the weights, and all that a resume needs to go on with."""

from __future__ import annotations

from dataclasses import dataclass, field

from runners.files.metrics_csv import Row
from runners.tasks.classification import Totals


@dataclass
class Progress:
    """A row for each epoch that is done; of the one that isn't, its optimizer steps, its sums and its seconds.

    Random numbers are no part of it: each step draws from a seed that the run's seed, the epoch and the step give.
    """

    rows: list[Row] = field(default_factory=list)
    steps: int = 0
    totals: Totals = field(default_factory=Totals)
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.rows)

    @property
    def step(self) -> int:
        """Optimizer steps of all epochs."""
        return self.steps + (int(self.rows[-1]["step"]) if self.rows else 0)

    @property
    def best(self) -> Row:
        """The row of the highest val/accuracy, the earliest of several. Raises ValueError before the first epoch."""
        return max(self.rows, key=lambda row: row["val/accuracy"])

    @property
    def images_per_second(self) -> float:
        """Of all training steps together."""
        spent = sum(row["step_seconds"] for row in self.rows)
        return sum(row["images_per_second"] * row["step_seconds"] for row in self.rows) / spent

    def finish_epoch(self, row: Row) -> None:
        """Add an epoch's row; the next epoch has no step yet."""
        self.rows.append(row)
        self.steps, self.totals, self.seconds = 0, Totals(), 0.0

    def patience_is_over(self, patience: int | None) -> bool:
        """Whether so many epochs have passed without a better val/accuracy."""
        return patience is not None and bool(self.rows) and self.epoch - self.best["epoch"] >= patience
