"""run.py up to the end of its first training step: `python -m benchmarks.first_step [key=value ...]`.

Exits with code 0 after the step, leaving the run directory as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from runners.cli import train
from runners.data.batches import Batch
from runners.tasks.task import Step
from runners.training.capturing import Steps

take = Steps.take


def take_one(steps: Steps, batches: Sequence[Batch], step: Step) -> NoReturn:
    """Ends the process after a training step, without the interpreter's shutdown."""
    take(steps, batches, step)
    os._exit(0)


if __name__ == "__main__":
    Steps.take = take_one  # type: ignore[assignment]
    sys.exit(train.main(sys.argv[1:]))
