"""What of a run has to be the same in another one that computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from runners import checkpoint, metrics


def without_times(value: Any) -> Any:
    """Everything that a run wrote but what depends on the clock; arrays as their bytes."""
    if isinstance(value, dict):
        timed = ("seconds", "step_seconds", "images_per_second", "run_dir")
        return {key: without_times(item) for key, item in value.items() if key not in timed}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return (value.dtype.name, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def outcome(run: str | Path) -> dict[str, Any]:
    """Rows, summary and checkpoints."""
    return {
        "rows": without_times(metrics.read(Path(run, "metrics.csv"))),
        "summary": without_times(json.loads(Path(run, "summary.json").read_text())),
        **{
            which: without_times(checkpoint.load(Path(run, f"checkpoints/{which}.pkl")).model_dump())
            for which in ("last", "best")
        },
    }
