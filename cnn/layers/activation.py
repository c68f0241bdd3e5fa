"""Activations: elementwise functions, and softmax over the features. Derived in docs/activations.md."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cnn import ops
from cnn.initializers import gain_of
from cnn.layer import Cache, Layer, Mode, Shape


class Activation(Layer):
    """The base of layers without parameters: a subclass writes `function`, which is y, and `gradient`, which is dx.

    `gradient` gets dy and one tensor, the output y, or the input x for `keeps = "x"`. The gain for the weights before
    the layer is computed from its forward pass.
    """

    keeps: ClassVar[Literal["x", "y"]] = "y"

    def function(self, x: Tensor, /) -> Tensor:
        raise NotImplementedError

    def gradient(self, dy: Tensor, kept: Tensor, /) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y = self.function(x)
        return y, mode.keep(y if self.keeps == "y" else x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (kept,) = cache.take()
        return self.gradient(dy, kept) if need_dx else None

    def propagate_gain(self, gain: float) -> float:
        quiet = Mode(train=False, keep_cache=False)
        with ops.kernels("reference"):  # don't compile anything for this one number
            return gain_of(lambda z: self.forward(z[None], quiet)[0][0])


class ReLU(Activation):
    """Set negative values to zero.

    Forward:  y = max(x, 0)
    Backward: dx = dy where y > 0, else 0

    Shapes: x, y [C, *S, N]. Source: Nair & Hinton 2010, "Rectified linear units improve restricted Boltzmann machines".
    """

    kind = "relu"

    def function(self, x: Tensor, /) -> Tensor:
        return ops.relu(x)

    def gradient(self, dy: Tensor, y: Tensor, /) -> Tensor:
        return ops.relu_backward(dy, y)


class Sigmoid(Activation):
    """Squash into (0, 1).

    Forward:  y = 1 / (1 + exp(-x))
    Backward: dx = dy * y * (1 - y)

    Shapes: x, y [C, *S, N]. Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating
    errors", eq. 2 and 5.
    """

    kind = "sigmoid"

    def function(self, x: Tensor, /) -> Tensor:
        return logistic(x)

    def gradient(self, dy: Tensor, y: Tensor, /) -> Tensor:
        return dy * y * (1 - y)


class Tanh(Activation):
    """Squash into (-1, 1).

    Forward:  y = tanh(x) = -sign(x) * t / (t + 2),  t = exp(-2 |x|) - 1, which can't overflow and is exact near 0
    Backward: dx = dy * (1 - y^2)

    Shapes: x, y [C, *S, N]. Source: LeCun et al. 1998, "Efficient backprop", section 4.4.
    """

    kind = "tanh"

    def function(self, x: Tensor, /) -> Tensor:
        return hyperbolic_tangent(x)

    def gradient(self, dy: Tensor, y: Tensor, /) -> Tensor:
        return dy * (1 - y * y)


class SiLU(Activation):
    """Multiply each value by its own sigmoid; also called swish.

    Forward:  y = x * s,  s = 1 / (1 + exp(-x))
    Backward: dx = dy * s * (1 + x * (1 - s))

    Shapes: x, y [C, *S, N]. Source: Elfwing, Uchibe & Doya 2018, "Sigmoid-weighted linear units", eq. 7 and 8.
    """

    kind = "silu"
    keeps = "x"

    def function(self, x: Tensor, /) -> Tensor:
        return x * logistic(x)

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        s = logistic(x)
        return dy * s * (1 + x * (1 - s))


class GELU(Activation):
    """Multiply each value by the probability that a standard normal variable is smaller.

    Forward:  y = x * P,  P = (1 + erf(x / sqrt(2))) / 2;
              with `approximate: tanh`, P = (1 + tanh u) / 2,  u = sqrt(2 / pi) * (x + 0.044715 x^3)
    Backward: dx = dy * (P + x * P'),  P' = exp(-x^2 / 2) / sqrt(2 pi);
              with `approximate: tanh`, P' = (1 - tanh^2 u) / 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 x^2)

    Below zero, where these sums and differences cancel, from 1 + erf z = erfc(-z) and 1 + tanh u = 2 sigmoid(2 u).
    Shapes: x, y [C, *S, N]. Source: Hendrycks & Gimpel 2016, "Gaussian error linear units (GELUs)", section 2.
    """

    kind = "gelu"
    keeps = "x"
    SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    def function(self, x: Tensor, /) -> Tensor:
        return x * self._probability(x)

    def gradient(self, dy: Tensor, x: Tensor, /) -> Tensor:
        dx: Tensor = dy * (self._probability(x) + x * self._density(x))
        return dx

    def _probability(self, x: Tensor) -> Tensor:
        """P."""
        if self.approximate == "none":
            return torch.where(x < 0, torch.erfc(x / -math.sqrt(2)), 1 + torch.erf(x / math.sqrt(2))) / 2
        u = self._argument(x)
        return torch.where(x < 0, logistic(2 * u), (1 + hyperbolic_tangent(u)) / 2)

    def _density(self, x: Tensor) -> Tensor:
        """P', the derivative of P."""
        if self.approximate == "none":
            return torch.exp(x.square() / -2) / math.sqrt(2 * math.pi)
        u = self._argument(x)
        slope = torch.where(x < 0, 2 * logistic(2 * u) * logistic(-2 * u), (1 - hyperbolic_tangent(u).square()) / 2)
        return slope * self.SCALE * (1 + 3 * self.CUBIC * x.square())

    def _argument(self, x: Tensor) -> Tensor:
        """u."""
        return self.SCALE * (x + self.CUBIC * x**3)


class Softmax(Activation):
    """Turn the features of each example (and position) into probabilities: positive, with sum 1.

    Forward:  y_c = exp(x_c) / sum over k of exp(x_k), computed from x - max x, which is the same and can't overflow
    Backward: dx_c = y_c * (dy_c - sum over k of dy_k * y_k)

    Shapes: x, y [C, *S, N]; the sums run over C. Source: Bridle 1990, "Probabilistic interpretation of feedforward
    classification network outputs", eq. 2.
    """

    kind = "softmax"

    def propagate_gain(self, gain: float) -> float:
        return 1.0

    def flops(self, input_shape: Shape) -> int:
        return 4 * math.prod(input_shape)

    def function(self, x: Tensor, /) -> Tensor:
        y = torch.exp(x - x.amax(0))
        y /= y.sum(0)
        return y

    def gradient(self, dy: Tensor, y: Tensor, /) -> Tensor:
        return y * (dy - (dy * y).sum(0))


class LogSoftmax(Activation):
    """The logarithm of softmax, computed directly, without taking the logarithm of 0.

    Forward:  y_c = x_c - max x - log sum over k of exp(x_k - max x)
    Backward: dx_c = dy_c - exp(y_c) * sum over k of dy_k

    Shapes: x, y [C, *S, N]; the sums run over C. Source: Goodfellow, Bengio & Courville 2016, "Deep Learning", section
    6.2.2.3.
    """

    kind = "log_softmax"

    def propagate_gain(self, gain: float) -> float:
        return 1.0

    def flops(self, input_shape: Shape) -> int:
        return 4 * math.prod(input_shape)

    def function(self, x: Tensor, /) -> Tensor:
        y = x - x.amax(0)
        y -= torch.log(torch.exp(y).sum(0))
        return y

    def gradient(self, dy: Tensor, y: Tensor, /) -> Tensor:
        return dy - torch.exp(y) * dy.sum(0)


def logistic(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return 1 / (1 + torch.exp(-x))


def hyperbolic_tangent(x: Tensor) -> Tensor:
    """tanh x = -sign(x) * t / (t + 2), t = exp(-2 |x|) - 1, elementwise."""
    t = torch.expm1(-2 * x.abs())
    return -x.sign() * t / (t + 2)
