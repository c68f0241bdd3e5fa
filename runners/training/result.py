"""The result of a run, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.tasks.task import Task


@dataclass(frozen=True)
class NothingLeft:
    """A finished run that a resume leaves as it is: its directory, and the patience that stopped it, if one did."""

    directory: Path
    patience: int | None

    def as_text(self) -> str:
        """Why no epochs are left to train, and what gives it more."""
        if self.patience is None:
            return f"{self.directory}: already finished; give a larger epochs=N to train further"
        more = "give a larger patience=N, or patience=null, to train further"
        return f"{self.directory}: already finished, patience={self.patience} has run out; {more}"


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, the content of its summary.json, and its task, which has the metrics."""

    directory: Path
    summary: Mapping[str, Any]
    task: type[Task]
    validated_on_test: bool

    def as_text(self) -> str:
        """The result in a few lines."""
        summary = self.summary
        lines = []
        if self.validated_on_test:
            biased = f"the test {self.task.metric(self.task.monitor).name} is optimistic"
            lines.append(f"note: the best weights were chosen on test examples, so {biased}")
        lines += [
            f"{self._test()}, with the weights of epoch {summary['best']['epoch']} ({self._best()}, {self._why()})",
            f"{summary['parameters']:,} parameters, {summary['steps']:,} steps in {summary['seconds']:.1f} s, "
            f"{summary['images_per_second']:,.0f} images/s in training{self._memory()}",
            *([f"judged by the classifier with weights sha256 {summary['judge'][:12]}"] if "judge" in summary else []),
            f"run directory {self.directory}",
        ]
        return "\n".join(lines)

    def as_line(self) -> str:
        note = " (weights chosen on test examples)" if self.validated_on_test else ""
        return f"{self._best()}, {self._test(only_monitored=True)}{note}"

    def _best(self) -> str:
        """The monitored value of the best epoch: `val accuracy 98.50%`."""
        column = self.task.monitor
        metric, value = self.task.metric(column), self.summary["best"].get(column)
        return f"{column.partition('/')[0]} {metric.name} {'not measured' if value is None else metric.show(value)}"

    def _why(self) -> str:
        return "the best" if self.task.monitor in self.summary["best"] else "so the last"

    def _memory(self) -> str:
        """The memory that tensors took at most, if that was a GPU's: `, 312 MB of GPU memory`."""
        used = self.summary.get("gpu_memory_bytes")
        return "" if used is None else f", {used / 1e6:,.0f} MB of GPU memory"

    def _test(self, *, only_monitored: bool = False) -> str:
        """The test metrics: `test accuracy 98.47%, loss 0.0512`."""
        test = self.summary["test"]
        metrics = self.task.monitored_first()[: 1 if only_monitored else None]
        shown = [f"{m.name} {m.show(test[f'test/{m.name}'])}" for m in metrics if f"test/{m.name}" in test]
        return f"test {', '.join(shown) or 'not measured'}"
