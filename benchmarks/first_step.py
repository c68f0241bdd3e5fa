"""run.py up to the end of its first training step: `python -m benchmarks.first_step [key=value ...]`.

Exits with code 0 after the step, leaving the run directory as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from runners.cli import train
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.sums import Sums
from runners.tasks.task import Step


class OneStep(Classification):
    """Ends the process after a training step, without the interpreter's shutdown."""

    kind = "one_step"

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        super().train_step(batches, step, sums)
        os._exit(0)


if __name__ == "__main__":
    sys.exit(train.main([f"extensions=['{__file__}']", f"task.name={OneStep.kind}", *sys.argv[1:]]))
