"""A user's own layers, with which a job of a sweep fails, or takes its time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torch import Tensor

from cnn import Cache, Layer, Mode


class Unlucky(Layer):
    """Fails in a training step, `times` times over all jobs: with the error `how`, or it is killed."""

    kind = "unlucky"

    def __init__(self, how: str, times: int = 1_000_000, step: int = 5) -> None:
        self.how, self.times, self.step = how, times, step

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        self.step -= mode.train
        if mode.train and self.step < 0 and self.how != "fine":
            self.fail()
        return x.clone(), mode.keep()

    def fail(self) -> None:
        file = Path("failures")
        failed = len(file.read_text()) if file.exists() else 0
        if failed < self.times:
            file.write_text("x" * (failed + 1))
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(self.how)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor:
        cache.take()
        return dy.clone()


class Slow(Unlucky):
    """Takes a while for each training step."""

    kind = "slow"

    def __init__(self, seconds: float) -> None:
        self.how, self.step, self.seconds = "slow", 0, seconds

    def fail(self) -> None:
        time.sleep(self.seconds)
