"""Initial values of parameters: float64 tensors on the CPU, so that a seed gives the same numbers on every device and
in every precision. Derived in docs/initialisation.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cnn.layer import Shape

Scheme = Literal["kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform"]


def weights(
    scheme: Scheme, shape: Shape, generator: torch.Generator, *, fan_in: float, fan_out: float, gain: float
) -> Tensor:
    """Draw weights with mean 0 and deviation gain / sqrt(fan), so that activations keep their size through the layers.

    fan: `fan_in` for Kaiming, which preserves the forward pass; the mean of `fan_in` and `fan_out` for Xavier, a
    compromise between both directions. A uniform distribution with this deviation extends to sqrt(3) times it.
    gain: 1 / sqrt(E f(z)^2), z ~ N(0, 1), for the activation f that follows; sqrt(2) for ReLU (see `gain_of`).
    Source: He et al. 2015, "Delving Deep into Rectifiers", eq. 10; Glorot & Bengio 2010, "Understanding the difficulty
    of training deep feedforward neural networks", eq. 12 and 16.
    """
    fan = fan_in if scheme.startswith("kaiming") else (fan_in + fan_out) / 2
    deviation = gain / math.sqrt(fan)
    if scheme.endswith("uniform"):
        spread = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        return spread * (math.sqrt(3) * deviation)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * deviation


def gain_of(activation: Callable[[Tensor], Tensor]) -> float:
    """1 / sqrt(E f(z)^2) for z ~ N(0, 1): scales weights so that weights @ f(z) is as large as z.

    The expectation is a sum over a fine grid. In a deep stack of one f this is an equilibrium. If f(a z) = a f(z) for
    a > 0, as for ReLU, every size is preserved; other functions drift towards it, but GELU and SiLU away from it: very
    deep networks of these need a normalisation.
    """
    z = torch.arange(-8, 8, 1 / 256, dtype=torch.float64) + 1 / 512
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return 1 / math.sqrt(float((activation(z).square() * density).sum()) / 256)


def zeros(shape: Shape, generator: torch.Generator) -> Tensor:
    """All zeros: the initial value of every bias."""
    return torch.zeros(shape, dtype=torch.float64)


def ones(shape: Shape, generator: torch.Generator) -> Tensor:
    """All ones: the initial value of a normalisation's scale."""
    return torch.ones(shape, dtype=torch.float64)


def constant(shape: Shape, generator: torch.Generator, *, value: float) -> Tensor:
    """One value everywhere."""
    return torch.full(shape, value, dtype=torch.float64)


def normal(shape: Shape, generator: torch.Generator, *, zero_row: int | None = None) -> Tensor:
    """Values from N(0, 1); zeros in one row, if it is given."""
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    if zero_row is not None:
        values[zero_row] = 0
    return values
