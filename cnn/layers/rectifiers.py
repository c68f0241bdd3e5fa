"""Relatives of ReLU: activations that are x, or nearly x, where x is large. Derived in docs/activations.md."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from cnn import initializers, ops
from cnn.arguments import FiniteFloat, Positive, PositiveFloat
from cnn.initializers import gain_of
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, Shape, ShapeError
from cnn.layers.activation import Activation, logistic


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
        return ops.leaky_relu(x, float(self.negative_slope))

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        return ops.leaky_relu_backward(dy, x, float(self.negative_slope))


class PReLU(Layer):
    """Scale negative values by a learned slope, as `torch.nn.PReLU` does.

    Forward:  y = x where x > 0, else weight * x
    Backward: dx = dy where x > 0, else weight * dy,
              dweight = sum of dy * x over all values with x <= 0 that share the slope

    There is one slope for all channels (`num_parameters: 1`), or one for each of C (`num_parameters: C`). Slopes start
    at `init`, and weight decay, which would turn them into ReLU, doesn't apply to them.
    Shapes: x, y [C, *S, N], weight [num_parameters]. Raises ShapeError if num_parameters is neither 1 nor C.
    Source: He et al. 2015, "Delving deep into rectifiers", eq. 1, 2 and 3.
    """

    kind = "prelu"
    weight: Parameter

    def __init__(self, num_parameters: Positive = 1, init: FiniteFloat = 0.25) -> None:
        self.num_parameters = num_parameters
        self.init = init

    def output_shape(self, input_shape: Shape) -> Shape:
        if self.num_parameters not in (1, input_shape[0]):
            raise ShapeError(f"has {self.num_parameters} slopes for {input_shape[0]} channels: give 1 or one for each")
        return input_shape

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        start = partial(initializers.constant, value=self.init)
        return {"weight": Parameter((self.num_parameters,), start, decay=False)}

    def propagate_gain(self, gain: float) -> float:
        return gain_of(lambda z: torch.where(z > 0, z, z * self.init))

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return torch.where(x > 0, x, x * self._slopes(x)), mode.keep(x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            terms = (dy * x).masked_fill_(x > 0, 0).flatten(1).sum(1)  # [C]
            self.weight.grad += terms if len(self.weight.grad) > 1 else terms.sum()
        return torch.where(x > 0, dy, dy * self._slopes(x)) if need_dx else None

    def _slopes(self, x: Tensor) -> Tensor:
        """The weight in a shape that broadcasts with x."""
        return self.weight.data.view(-1, *(1,) * (x.dim() - 1))


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


class Softplus(Activation):
    """A smooth ReLU, sharper for a larger `beta`, as `torch.nn.Softplus`.

    Forward:  y = log(1 + exp(beta * x)) / beta, or x where beta * x > threshold
    Backward: dx = dy / (1 + exp(-beta * x)), or dy where beta * x > threshold

    Computed as (max(z, 0) + log(1 + exp(-|z|))) / beta with z = beta * x, which can't overflow.
    Shapes: x, y [C, *S, N]. Source: Dugas et al. 2001, "Incorporating second-order functional knowledge for better
    option pricing", section 3.
    """

    kind = "softplus"
    keeps = "x"

    def __init__(self, beta: PositiveFloat = 1.0, threshold: FiniteFloat = 20.0) -> None:
        self.beta = beta
        self.largest = threshold

    def function(self, x: Tensor, /) -> Tensor:
        z = x * self.beta
        return torch.where(z > self.largest, x, (z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))) / self.beta)

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        z = x * self.beta
        return torch.where(z > self.largest, dy, dy * logistic(z))


class HardSwish(Activation):
    """SiLU with a piecewise linear function in place of the sigmoid, as `torch.nn.Hardswish`.

    Forward:  y = x * min(max(x + 3, 0), 6) / 6
    Backward: dx = 0 where x <= -3, dy where x >= 3, else dy * (x / 3 + 1 / 2)

    Shapes: x, y [C, *S, N]. Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """

    kind = "hard_swish"
    keeps = "x"

    def function(self, x: Tensor, /) -> Tensor:
        return x * (x + 3).clamp(0, 6) / 6

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        return torch.where(x < 3, dy * (x / 3 + 0.5), dy).masked_fill_(x <= -3, 0)
