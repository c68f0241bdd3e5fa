"""Optimizers: one step on the flat vector of all parameters, whatever the depth of the network.

step(parameters, gradients, lr)        both vectors [P]; `parameters` changes in place
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cnn import ops
from cnn.arguments import Fraction, PositiveFloat
from cnn.graph import FlatParameters


class Optimizer:
    """The base of every optimizer. `lr` is the learning rate that the schedule starts from."""

    kind: ClassVar[str]
    lr: float

    def step(self, flat: FlatParameters, lr: float) -> None:
        """Move `flat.data` against `flat.grad`."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor | int]:
        """What the next step depends on, beside the arguments."""
        return {}


class SGD(Optimizer):
    """Stochastic gradient descent.

    Step: p <- p - lr * g

    Shapes: p, g [P]. Source: Robbins & Monro 1951, "A stochastic approximation method".
    """

    kind = "sgd"

    def __init__(self, lr: PositiveFloat = 0.1) -> None:
        self.lr = lr

    def step(self, flat: FlatParameters, lr: float) -> None:
        flat.data.add_(flat.grad, alpha=-lr)


class Adam(Optimizer):
    """Steps of about lr in each coordinate, from running means of the gradient and of its square.

    Step t = 1, 2, ...:  m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,
                         p <- p - lr * mhat / (sqrt(vhat) + eps),   mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)

    Shapes: p, g, m, v [P]. Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
    """

    kind = "adam"

    def __init__(
        self,
        lr: PositiveFloat = 0.01,
        betas: Annotated[Sequence[Fraction], Field(min_length=2, max_length=2)] = (0.9, 0.999),
        eps: PositiveFloat = 1e-8,
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.steps = 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None

    def step(self, flat: FlatParameters, lr: float) -> None:
        if self.mean is None or self.square is None:
            self.mean, self.square = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
        b1, b2 = self.betas
        self.steps += 1
        self.mean.lerp_(flat.grad, 1 - b1)
        self.square.mul_(b2).addcmul_(flat.grad, flat.grad, value=1 - b2)
        deviation = torch.sqrt(self.square, out=ops.empty(tuple(self.square.shape), like=self.square))
        deviation.div_(math.sqrt(1 - b2**self.steps)).add_(self.eps)
        flat.data.addcdiv_(self.mean, deviation, value=-lr / (1 - b1**self.steps))

    def state(self) -> dict[str, Tensor | int]:
        moments = {"mean": self.mean, "square": self.square}
        return {"steps": self.steps, **{name: moment for name, moment in moments.items() if moment is not None}}


OPTIMIZERS: dict[str, type[Optimizer]] = {optimizer.kind: optimizer for optimizer in (SGD, Adam)}
