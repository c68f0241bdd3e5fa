"""Activations: elementwise, and softmax over the features."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn import ops
from cnn.layer import Cache, Layer, Mode


class ReLU(Layer):
    """Cut off below zero.

    Forward:  y = max(x, 0)
    Backward: dx = dy where y > 0, else 0

    Shapes: x, y [C, *S, N]. Source: Nair & Hinton 2010, "Rectified linear units improve restricted Boltzmann machines".
    """

    kind = "relu"

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y = ops.relu(x)
        return y, mode.keep(y)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (y,) = cache.take()
        return ops.relu_backward(dy, y) if need_dx else None


class Sigmoid(Layer):
    """Squash into (0, 1).

    Forward:  y = 1 / (1 + exp(-x))
    Backward: dx = dy * y * (1 - y)

    Shapes: x, y [C, *S, N]. Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating
    errors", eq. 2 and 5.
    """

    kind = "sigmoid"

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y = 1 / (1 + torch.exp(-x))
        return y, mode.keep(y)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (y,) = cache.take()
        return dy * y * (1 - y) if need_dx else None


class Softmax(Layer):
    """Turn the features of each example (and position) into probabilities: positive, and 1 in sum.

    Forward:  y_c = exp(x_c) / sum over k of exp(x_k), computed from x - max x, which changes nothing and can't overflow
    Backward: dx_c = y_c * (dy_c - sum over k of dy_k * y_k)

    Shapes: x, y [C, *S, N]; the sums run over C. Source: Bridle 1990, "Probabilistic interpretation of feedforward
    classification network outputs", eq. 2.
    """

    kind = "softmax"

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y = torch.exp(x - x.amax(0))
        y /= y.sum(0)
        return y, mode.keep(y)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (y,) = cache.take()
        return y * (dy - (dy * y).sum(0)) if need_dx else None
