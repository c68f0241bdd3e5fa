"""Schedules: the learning rate of each epoch, from the one that the optimizer starts with."""

from __future__ import annotations

import math
from typing import ClassVar

from cnn.arguments import FiniteFloat, NonNegativeFloat


class Schedule:
    """The base of every schedule; epochs are counted from 0."""

    kind: ClassVar[str]

    def __call__(self, lr: float, epoch: int) -> float:
        raise NotImplementedError


class Constant(Schedule):
    """lr_e = lr."""

    kind = "constant"

    def __call__(self, lr: float, epoch: int) -> float:
        return lr


class Exponential(Schedule):
    """lr_e = max(min_lr, lr * exp(rate * e)); a negative rate makes it fall. The unit of `rate` is 1 / epoch."""

    kind = "exponential"

    def __init__(self, rate: FiniteFloat = -0.08, min_lr: NonNegativeFloat = 0.0) -> None:
        self.rate = rate
        self.min_lr = min_lr

    def __call__(self, lr: float, epoch: int) -> float:
        try:
            return max(self.min_lr, lr * math.exp(self.rate * epoch))
        except OverflowError:
            return math.inf


SCHEDULES: dict[str, type[Schedule]] = {schedule.kind: schedule for schedule in (Constant, Exponential)}
