"""Optimizers: one step on the flat vector of all parameters, whatever the depth of the network.

step(flat, lr)        changes flat.data [P] in place, leaves flat.grad [P] as it is

Without a schedule, lr is the optimizer's own.
Weight decay applies to `flat.data[:flat.decayed]`, the weights; with `decay_all` also to biases and norms. Temporary
vectors come from the pool, so a step allocates nothing. Explained in docs/optimizers.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cnn import ops
from cnn.arguments import Fraction, NonNegativeFloat, PositiveFloat
from cnn.faults import ConfigError, Fault
from cnn.graphs.graph import FlatVectors

Betas = Annotated[Sequence[Fraction], Field(min_length=2, max_length=2)]


class Optimizer:
    """The base of every optimizer. `lr` is the learning rate that the schedule starts from.

    `vectors`: the names of the vectors [P] that the rule keeps between steps, with their initial values.
    """

    kind: ClassVar[str]

    def __init__(self, lr: float, weight_decay: float, decay_all: bool, vectors: Mapping[str, float]) -> None:
        self.lr = lr
        self.weight_decay = weight_decay
        self.decay_all = decay_all
        self.vectors = vectors
        self.steps = 0
        self.kept: dict[str, Tensor] = {}
        self.factors: Tensor | None = None
        """The numbers of the next move that change from step to step, in the order in which `changing` gives them."""

    def step(self, flat: FlatVectors, lr: float | None = None) -> None:
        """Move `flat.data` against `flat.grad`, at the rate of a schedule or else at the optimizer's own."""
        self.advance(flat, lr)
        self.update(flat)

    def advance(self, flat: FlatVectors, lr: float | None = None) -> None:
        """Count a step, and compute the numbers that depend on it. `update` then is tensor operations alone."""
        if not self.kept:
            self.kept = {name: torch.full_like(flat.data, start) for name, start in self.vectors.items()}
        self.steps += 1
        numbers = torch.tensor(self.changing(self.lr if lr is None else lr), dtype=flat.data.dtype)
        if self.factors is None or self.factors.dtype != numbers.dtype:
            self.factors = torch.empty_like(numbers, device=flat.data.device)
        ops.write(self.factors, numbers)

    def changing(self, lr: float) -> list[float]:
        """What `move` takes in step `steps`, if it isn't the learning rate alone."""
        return [lr]

    def update(self, flat: FlatVectors) -> None:
        """Decay weights, and apply the rule."""
        assert self.factors is not None
        self.move(flat.data, self._decay(flat), *self.factors)

    def move(self, data: Tensor, gradient: Tensor, *factors: Tensor) -> None:
        """The rule itself, after weight decay. `factors`: the numbers of `changing`, as tensors without axes."""
        raise NotImplementedError

    def _decay(self, flat: FlatVectors) -> Tensor:
        """The gradient with that of an L2 penalty, g + weight_decay * p; `flat.grad` itself without weight decay."""
        if not self.weight_decay:
            return flat.grad
        decayed = self._decayed(flat)
        gradient = _scratch(flat.grad).copy_(flat.grad)
        gradient[: len(decayed)].add_(decayed, alpha=self.weight_decay)
        return gradient

    def _decayed(self, flat: FlatVectors) -> Tensor:
        return flat.data if self.decay_all else flat.data[: flat.decayed]

    def state(self) -> dict[str, Tensor | int]:
        """What the next step depends on besides the arguments (no copies)."""
        return {"steps": self.steps, **self.kept}

    def load_state(self, state: Mapping[str, Tensor | int]) -> None:
        """Continue from a saved state, whose tensors are copied. Raises ValueError if it is another rule's."""
        steps = state.get("steps")
        kept = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
        fits = kept.keys() == (self.vectors.keys() if steps else set()) and len(state) == len(kept) + 1
        if not isinstance(steps, int) or not fits:
            raise ValueError(f"a saved state with {sorted(state)} doesn't fit {self.kind}")
        self.steps = steps
        if self.kept.keys() != kept.keys() or any(self.kept[name].shape != kept[name].shape for name in kept):
            self.kept = kept
        for name, value in kept.items():  # in place: recorded steps know where these are
            self.kept[name].copy_(value)


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum.

    Step t = 1, 2, ...:  g <- g + weight_decay * p
                         v <- momentum * v + (1 - dampening) g,   v = g in the first step
                         p <- p - lr * v,   with nesterov p <- p - lr * (g + momentum * v)

    Shapes: p, g, v [P]. Source: Robbins & Monro 1951, "A stochastic approximation method"; momentum: Polyak 1964, "Some
    methods of speeding up the convergence of iteration methods"; nesterov: Sutskever et al. 2013, "On the importance of
    initialization and momentum in deep learning".
    """

    kind = "sgd"

    def __init__(
        self,
        lr: PositiveFloat = 0.1,
        momentum: Fraction = 0.0,
        dampening: Fraction = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegativeFloat = 0.0,
        decay_all: bool = False,
    ) -> None:
        if nesterov and (not momentum or dampening):
            raise ConfigError([Fault("nesterov", "true requires a momentum above 0 and a dampening of 0")])
        super().__init__(lr, weight_decay, decay_all, {"velocity": 0.0} if momentum else {})
        self.momentum = momentum
        self.dampening = dampening
        self.nesterov = nesterov

    def changing(self, lr: float) -> list[float]:
        share = 1.0 if self.steps == 1 else 1 - self.dampening
        return [lr, share, lr * self.momentum]

    def move(self, data: Tensor, gradient: Tensor, *factors: Tensor) -> None:
        lr, share, momentum_lr = factors
        if not self.momentum:
            data.addcmul_(gradient, -lr)
            return
        velocity = self.kept["velocity"].mul_(self.momentum).addcmul_(gradient, share)
        if self.nesterov:
            data.addcmul_(gradient, -lr).addcmul_(velocity, -momentum_lr)
        else:
            data.addcmul_(velocity, -lr)


class Adam(Optimizer):
    """Steps of about lr in each coordinate, from running means of the gradient and its square.

    Step t = 1, 2, ...:  g <- g + weight_decay * p
                         m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,
                         p <- p - lr * mhat / (sqrt(vhat) + eps),   mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)

    Shapes: p, g, m, v [P]. Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
    """

    kind = "adam"

    def __init__(
        self,
        lr: PositiveFloat = 0.01,
        betas: Betas = (0.9, 0.999),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        decay_all: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay, decay_all, {"mean": 0.0, "square": 0.0})
        self.betas = betas
        self.eps = eps

    def changing(self, lr: float) -> list[float]:
        b1, b2 = self.betas
        return [lr / (1 - b1**self.steps), 1 / math.sqrt(1 - b2**self.steps)]

    def move(self, data: Tensor, gradient: Tensor, *factors: Tensor) -> None:
        (step, correction), (b1, b2) = factors[:2], self.betas
        ops.adam(data, gradient, self.kept["mean"], self.kept["square"], (b1, b2), self.eps, step, correction)


class AdamW(Adam):
    """Adam with a weight decay that doesn't enter the running means.

    Step: p <- p - lr * weight_decay * p, then Adam's without weight decay

    Shapes: p [P]. Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """

    kind = "adamw"

    def __init__(
        self,
        lr: PositiveFloat = 0.01,
        betas: Betas = (0.9, 0.999),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.01,
        decay_all: bool = False,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, decay_all)

    def changing(self, lr: float) -> list[float]:
        return [*super().changing(lr), 1 - lr * self.weight_decay]

    def _decay(self, flat: FlatVectors) -> Tensor:
        assert self.factors is not None
        self._decayed(flat).mul_(self.factors[-1])
        return flat.grad


class Adagrad(Optimizer):
    """Steps that shrink in each coordinate with the squares of all gradients so far.

    Step t = 1, 2, ...:  g <- g + weight_decay * p,   s <- s + g^2,   s = initial_accumulator_value before the first
                         p <- p - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)

    Shapes: p, g, s [P]. Source: Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and
    stochastic optimization".
    """

    kind = "adagrad"

    def __init__(
        self,
        lr: PositiveFloat = 0.01,
        lr_decay: NonNegativeFloat = 0.0,
        eps: PositiveFloat = 1e-10,
        initial_accumulator_value: NonNegativeFloat = 0.0,
        weight_decay: NonNegativeFloat = 0.0,
        decay_all: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay, decay_all, {"squares": initial_accumulator_value})
        self.lr_decay = lr_decay
        self.eps = eps

    def changing(self, lr: float) -> list[float]:
        return [lr / (1 + (self.steps - 1) * self.lr_decay)]

    def move(self, data: Tensor, gradient: Tensor, *factors: Tensor) -> None:
        (lr,) = factors
        squares = self.kept["squares"].addcmul_(gradient, gradient)
        root = torch.sqrt(squares, out=_scratch(squares)).add_(self.eps)
        data.addcmul_(torch.div(gradient, root, out=root), -lr)


class RMSprop(Optimizer):
    """The gradient divided by the root of the running mean of its square.

    Step: g <- g + weight_decay * p,   s <- alpha s + (1 - alpha) g^2
          centered: m <- alpha m + (1 - alpha) g,   d = sqrt(s - m^2) + eps,   else d = sqrt(s) + eps
          v <- momentum * v + g / d,   p <- p - lr * v

    Shapes: p, g, s, m, v [P]. Source: Tieleman & Hinton 2012, "Neural networks for machine learning", lecture 6.5;
    centered: Graves 2013, "Generating sequences with recurrent neural networks", eq. 38 to 41 (eps under the root).
    """

    kind = "rmsprop"

    def __init__(
        self,
        lr: PositiveFloat = 0.01,
        alpha: Fraction = 0.99,
        eps: PositiveFloat = 1e-8,
        momentum: Fraction = 0.0,
        centered: bool = False,
        weight_decay: NonNegativeFloat = 0.0,
        decay_all: bool = False,
    ) -> None:
        names = ["square", *(["mean"] if centered else []), *(["velocity"] if momentum else [])]
        super().__init__(lr, weight_decay, decay_all, dict.fromkeys(names, 0.0))
        self.alpha = alpha
        self.eps = eps
        self.momentum = momentum
        self.centered = centered

    def move(self, data: Tensor, gradient: Tensor, *factors: Tensor) -> None:
        (lr,) = factors
        square = self.kept["square"].mul_(self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
        deviation = _scratch(square).copy_(square)
        if self.centered:
            mean = self.kept["mean"].lerp_(gradient, 1 - self.alpha)
            deviation.addcmul_(mean, mean, value=-1).clamp_(min=0)  # rounding may make it negative
        deviation.sqrt_().add_(self.eps)
        if self.momentum:
            velocity = self.kept["velocity"].mul_(self.momentum).addcdiv_(gradient, deviation)
            data.addcmul_(velocity, -lr)
        else:
            data.addcmul_(torch.div(gradient, deviation, out=deviation), -lr)


def _scratch(like: Tensor) -> Tensor:
    return ops.empty(tuple(like.shape), like=like)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    optimizer.kind: optimizer for optimizer in (SGD, Adam, AdamW, Adagrad, RMSprop)
}
