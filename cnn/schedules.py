"""Schedules: the learning rate of each optimizer step, starting from the optimizer's.

schedule(lr, step, run) -> learning rate        step = 0, 1, ..., run.steps - 1

Formulas use t, the elapsed steps or whole epochs, in the schedule's unit, and T, their total. With `warmup_steps` W the
rate first rises linearly, lr(0) (step + 1) / (W + 1) for step < W, as torch's `LinearLR` with start_factor 1 / (W + 1);
then t starts at 0, and T is what remains, as in torch's `SequentialLR`.
Source of warm-up: Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2.
A run that ends in its warm-up gets a part of that rise. docs/optimizers.md compares all schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cnn.arguments import FiniteFloat, Fraction, NonNegative, NonNegativeFloat, Positive, PositiveFloat, Text

Unit = Literal["steps", "epochs"]
Shrinking = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class RunLength:
    """The length of a run."""

    steps_per_epoch: int
    epochs: int

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs


class Schedule:
    """The base of every schedule. `unit`: what it counts. `monitor`: the name of the value that it observes."""

    kind: ClassVar[str]
    unit: Unit = "steps"
    monitor: str = "val/loss"

    def __init__(self, warmup_steps: NonNegative = 0) -> None:
        self.warmup_steps = warmup_steps

    def __call__(self, lr: float, step: int, run: RunLength) -> float:
        """The learning rate of a step, counted from 0; infinity if it overflows."""
        length = run.steps_per_epoch if self.unit == "epochs" else 1
        elapsed = max(0, step - self.warmup_steps) // length
        try:
            value = self.at(lr, elapsed, (run.steps - self.warmup_steps) / length)
        except OverflowError:
            return math.inf
        return value * (step + 1) / (self.warmup_steps + 1) if step < self.warmup_steps else value

    def at(self, lr: float, elapsed: int, total: float) -> float:
        """The learning rate after t = elapsed of T = total."""
        raise NotImplementedError

    def observe(self, value: float) -> None:
        """Receive the monitored value after an epoch, negated if higher is better; most schedules ignore it."""

    def state(self) -> dict[str, float]:
        """What the next learning rate depends on besides the arguments and the step."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Continue from a saved state. Raises ValueError if it is another schedule's."""
        if state.keys() != self.state().keys():
            raise ValueError(f"a saved state with {sorted(state)} doesn't fit {self.kind}")


class Constant(Schedule):
    """lr(t) = lr. Counts nothing."""

    kind = "constant"

    def at(self, lr: float, elapsed: int, total: float) -> float:
        return lr


class Exponential(Schedule):
    """lr(t) = max(min_lr, lr * exp(rate * t)); it decays for a negative rate, which is per unit.

    Counts epochs, or steps with unit: steps. As `torch.optim.lr_scheduler.ExponentialLR` with gamma = exp(rate).
    """

    kind = "exponential"

    def __init__(
        self,
        rate: FiniteFloat = -0.08,
        min_lr: NonNegativeFloat = 0.0,
        unit: Unit = "epochs",
        warmup_steps: NonNegative = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.rate = rate
        self.min_lr = min_lr
        self.unit = unit

    def at(self, lr: float, elapsed: int, total: float) -> float:
        return max(self.min_lr, lr * math.exp(self.rate * elapsed))


class Step(Schedule):
    """lr(t) = lr * gamma^floor(t / step_size), as `torch.optim.lr_scheduler.StepLR`.

    Counts epochs, or steps with unit: steps; `step_size` is in that unit.
    """

    kind = "step"

    def __init__(
        self,
        step_size: Positive = 3,
        gamma: PositiveFloat = 0.1,
        unit: Unit = "epochs",
        warmup_steps: NonNegative = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.step_size = step_size
        self.gamma = gamma
        self.unit = unit

    def at(self, lr: float, elapsed: int, total: float) -> float:
        return float(lr * self.gamma ** (elapsed // self.step_size))


class MultiStep(Schedule):
    """lr(t) = lr * gamma^(number of milestones <= t), as `torch.optim.lr_scheduler.MultiStepLR`.

    Counts epochs, or steps with unit: steps; milestones are in that unit.
    """

    kind = "multi_step"

    def __init__(
        self,
        milestones: Annotated[Sequence[Positive], Field(min_length=1)] = (5, 8),
        gamma: PositiveFloat = 0.1,
        unit: Unit = "epochs",
        warmup_steps: NonNegative = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.milestones = milestones
        self.gamma = gamma
        self.unit = unit

    def at(self, lr: float, elapsed: int, total: float) -> float:
        return float(lr * self.gamma ** sum(milestone <= elapsed for milestone in self.milestones))


class Cosine(Schedule):
    """lr(t) = min_lr + (lr - min_lr) (1 + cos(pi t / T)) / 2, as `torch.optim.lr_scheduler.CosineAnnealingLR`.

    Counts steps, or epochs with unit: epochs; T is the whole run. Source: Loshchilov & Hutter 2017, "SGDR: stochastic
    gradient descent with warm restarts", eq. 5, without restarts.
    """

    kind = "cosine"

    def __init__(
        self,
        min_lr: NonNegativeFloat = 0.0,
        unit: Unit = "steps",
        warmup_steps: NonNegative = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.min_lr = min_lr
        self.unit = unit

    def at(self, lr: float, elapsed: int, total: float) -> float:
        if total <= 0:  # the run ends in its warm-up
            return lr
        return self.min_lr + (lr - self.min_lr) * (1 + math.cos(math.pi * elapsed / total)) / 2


class OneCycle(Schedule):
    """From lr / div_factor up to lr at t = pct_start * T - 1, then down to lr / (div_factor * final_div_factor) at
    t = T - 1, as `torch.optim.lr_scheduler.OneCycleLR` with cycle_momentum=False and the optimizer's lr as max_lr.

    Between two rates a and b, with f from 0 to 1: cos: b + (a - b) (1 + cos(pi f)) / 2, linear: a + (b - a) f.

    Counts steps; T is the whole run. Source: Smith & Topin 2019, "Super-convergence: very fast training of neural
    networks using large learning rates".
    """

    kind = "one_cycle"

    def __init__(
        self,
        pct_start: Fraction = 0.3,
        div_factor: PositiveFloat = 25.0,
        final_div_factor: PositiveFloat = 1e4,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        warmup_steps: NonNegative = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.pct_start = pct_start
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.anneal_strategy = anneal_strategy

    def at(self, lr: float, elapsed: int, total: float) -> float:
        low = lr / self.div_factor
        if total <= 0:  # the run ends in its warm-up
            return low
        top = self.pct_start * total - 1
        if top > 0 and elapsed <= top:
            return self._between(low, lr, elapsed / top)
        return self._between(lr, low / self.final_div_factor, (elapsed - top) / (total - 1 - top))

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
        return start + (end - start) * fraction


class ReduceOnPlateau(Schedule):
    """Multiply lr by factor, down to min_lr, whenever the monitored value hasn't improved for more than `patience`
    epochs, as `torch.optim.lr_scheduler.ReduceLROnPlateau` with threshold_mode="rel" and eps=0.

    A value below best - threshold * |best| is an improvement; values of which higher is better are observed negated.
    For `cooldown` epochs after a reduction, no epoch counts as bad. Counts the epochs that have the value, including
    those of warm-up.
    """

    kind = "reduce_on_plateau"
    unit = "epochs"

    def __init__(
        self,
        factor: Shrinking = 0.1,
        patience: NonNegative = 10,
        threshold: Fraction = 1e-4,
        cooldown: NonNegative = 0,
        min_lr: NonNegativeFloat = 0.0,
        monitor: Text = "val/loss",
        warmup_steps: NonNegative = 0,
    ) -> None:
        super().__init__(warmup_steps)
        self.monitor = monitor
        self.factor = factor
        self.patience = patience
        self.margin = threshold
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.best = math.inf
        self.bad_epochs = 0
        self.cooling_epochs = 0
        self.reductions = 0

    def at(self, lr: float, elapsed: int, total: float) -> float:
        return max(min(lr, self.min_lr), lr * self.factor**self.reductions)

    def observe(self, value: float) -> None:
        if value < self.best * (1 - math.copysign(self.margin, self.best)):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.cooling_epochs:
            self.cooling_epochs -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            self.reductions += 1
            self.cooling_epochs, self.bad_epochs = self.cooldown, 0

    def state(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("best", "bad_epochs", "cooling_epochs", "reductions")}

    def load_state(self, state: Mapping[str, float]) -> None:
        super().load_state(state)
        vars(self).update(state)


SCHEDULES: dict[str, type[Schedule]] = {
    schedule.kind: schedule for schedule in (Constant, Exponential, Step, MultiStep, Cosine, OneCycle, ReduceOnPlateau)
}
