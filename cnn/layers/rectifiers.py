"""Relatives of ReLU: activations that are x, or nearly x, where x is large. Derived in docs/activations.md."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.arguments import FiniteFloat, PositiveFloat
from cnn.layers.activation import Activation


class LeakyReLU(Activation):
    """Scale negative values down.

    Forward:  y = x where x > 0, else negative_slope * x
    Backward: dx = dy where x > 0, else negative_slope * dy

    Shapes: x, y [C, *S, N]. Source: Maas, Hannun & Ng 2013, "Rectifier nonlinearities improve neural network acoustic
    models", section 2.
    """

    kind = "leaky_relu"
    keeps = "x"

    def __init__(self, negative_slope: FiniteFloat = 0.01) -> None:
        self.negative_slope = negative_slope

    def function(self, x: Tensor, /) -> Tensor:
        return torch.where(x > 0, x, x * self.negative_slope)

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        return torch.where(x > 0, dy, dy * self.negative_slope)


class ELU(Activation):
    """Approach -alpha smoothly below zero.

    Forward:  y = x where x > 0, else alpha * (exp(x) - 1)
    Backward: dx = dy where x > 0, else dy * alpha * exp(x)

    Shapes: x, y [C, *S, N]. Source: Clevert, Unterthiner & Hochreiter 2016, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", eq. 16.
    """

    kind = "elu"
    keeps = "x"

    def __init__(self, alpha: PositiveFloat = 1.0) -> None:
        self.alpha = alpha

    def function(self, x: Tensor, /) -> Tensor:
        return torch.where(x > 0, x, self.alpha * torch.expm1(x))

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        return torch.where(x > 0, dy, dy * (self.alpha * torch.exp(x)))
