"""The keys of a config that aren't sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cnn.arguments import Positive, PositiveFloat, Text
from cnn.ops import Precision
from cnn.schedules import RunLength

VALUES = ConfigDict(strict=True, extra="forbid", frozen=True)
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Checkpoints(BaseModel):
    """When `last` is saved, in addition to the end of each epoch."""

    model_config = VALUES

    every_steps: Positive | None = None


class Settings(BaseModel):
    """The top-level keys of a config that aren't sections."""

    model_config = VALUES

    epochs: Positive
    batch_size: Positive
    seed: Seed
    dtype: Literal["float32", "float64"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    kernels: Literal["compiled", "reference"]
    precision: Precision = "float32"
    name: Text | None = None
    tags: Text | Sequence[Text] = ()
    debug: Literal["summary", "gradcheck", "overfit", "fast"] | None = None
    threads: Positive | None = None
    threads_fixed: bool = False
    capture: bool = True
    run_dir: Text | None = None
    sweep_dir: Text | None = None
    init_from: Text | None = None
    init_missing: Literal["refuse", "new"] = "refuse"
    freeze: Text | Sequence[Text] = ()
    accumulate: Positive = 1
    clip_grad_norm: PositiveFloat | None = None
    patience: Positive | None = None
    checkpoint: Checkpoints = Checkpoints()
    extensions: Text | Sequence[Text] = ()
    tracker: Any = None
    """Checked by `runners.trackers.registry.chosen`."""

    @property
    def frozen(self) -> list[str]:
        """The patterns of `freeze`."""
        return [self.freeze] if isinstance(self.freeze, str) else list(self.freeze)

    def run_length(self, examples: int) -> RunLength:
        """The run's length with this many training examples."""
        return RunLength(-(-examples // (self.batch_size * self.accumulate)), self.epochs)
