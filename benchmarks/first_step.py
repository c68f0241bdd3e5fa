"""run.py up to the end of its first training step: `python -m benchmarks.first_step [key=value ...]`.

Exits with code 0 after the step, leaving the run directory as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from cnn.optimizers import Optimizer
from runners import commands
from runners.data.batches import Batch
from runners.tasks import TASKS, Classification
from runners.tasks.classification import Totals


class OneStep(Classification):
    """Ends the process after a training step, without the interpreter's shutdown."""

    def train_step(
        self, batches: Sequence[Batch], optimizer: Optimizer, lr: float, totals: Totals, **others: Any
    ) -> None:
        super().train_step(batches, optimizer, lr, totals, **others)
        os._exit(0)


if __name__ == "__main__":
    TASKS["classification"] = OneStep
    sys.exit(commands.train(sys.argv[1:]))
