"""Layers of one's own that compute with numpy, read values or keep something, and why they can't be replayed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Cache, Layer, Mode, ops


class Own(Layer):
    """A layer of one's own, whose output and gradient are scaled by what `factor` gives."""

    kind = "own"

    def factor(self, x: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        scale = self.factor(x)
        return x * scale, mode.keep(scale)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (scale,) = cache.take()
        return dy * scale if need_dx else None


class Sound(Own):
    def factor(self, x: Tensor) -> Any:
        return 1 + x.square().mean()


class Growing(Own):
    """Its factor depends on how many steps there were, which it declares."""

    def __init__(self) -> None:
        self.steps = 0
        self.scale = torch.ones(())

    def factor(self, x: Tensor) -> Any:
        ops.live(self._grow, None)
        return self.scale.clone()

    def _grow(self, _: object) -> None:
        self.steps += 1
        self.scale.fill_(1 + self.steps / 10)


class ByNumpy(Own):
    def factor(self, x: Tensor) -> Any:
        return float(1 + np.abs(x.numpy()).mean())


class ByList(Own):
    def factor(self, x: Tensor) -> Any:
        return 1 + max(x.flatten().tolist())


class Reading(Own):
    def factor(self, x: Tensor) -> Any:
        return 1 + x.mean().item()


class Masking(Own):
    def factor(self, x: Tensor) -> Any:
        return 1 + x[x > 0].sum() / 100


class Counting(Own):
    """Its calls are counted, and only matter after many of them."""

    calls = 0

    def factor(self, x: Tensor) -> Any:
        self.calls += 1
        return 1.0 if self.calls < 6 else 0.5


class Annealing(Own):
    calls = 0

    def factor(self, x: Tensor) -> Any:
        self.calls += 1
        return 1 / self.calls


class Remembering(Own):
    """Keeps a mean of all inputs: not in a buffer but in a tensor of its own that it replaces."""

    mean: Any = 0.0

    def factor(self, x: Tensor) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * x.mean()
        return 1 + self.mean


class Drawing(Own):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def factor(self, x: Tensor) -> Any:
        return 1 + torch.rand((), generator=self.generator)


class Locked(Own):
    """Keeps what can't be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def factor(self, x: Tensor) -> Any:
        return 2.0


class DrawingByNumpy(Own):
    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def factor(self, x: Tensor) -> Any:
        return 1 + float(self.generator.random())


OWN: dict[type[Own], str] = {
    ByNumpy: "a replay gives other values",
    ByList: "a replay gives other values",
    Reading: "a value is read by Python (_local_scalar_dense)",
    Masking: "a shape depends on values (index)",
    Counting: "a replay gives other values",
    Annealing: "a replay gives other values",
    Remembering: "a replay gives other values",
    Locked: "the task can't be copied (cannot pickle '_thread.lock' object)",
    DrawingByNumpy: "a replay gives other values",
}
