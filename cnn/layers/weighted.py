"""The base of layers with a weight and a bias: how these are declared and initialised."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from cnn import initializers
from cnn.initializers import Scheme
from cnn.layer import Buffer, Layer, Parameter, Shape


class Weighted(Layer):
    """A layer with a weight, scaled for the activation that follows it, and a bias that starts at zero."""

    weight: Parameter
    bias: Parameter | None = None
    gain: float = 1.0

    def __init__(self, bias: bool, init: Scheme) -> None:
        self.has_bias = bias
        self.init = init

    def propagate_gain(self, gain: float) -> float:
        self.gain = gain
        return 1.0

    def _add_bias_gradient(self, dy: Tensor) -> None:
        """dbias[o] += sum of dy over all positions and examples; dy [O, *So, N]."""
        if self.bias is not None:
            self.bias.grad += dy.flatten(1).sum(1)

    def _declare(self, shape: Shape, outputs: int, fan_in: float, fan_out: float) -> dict[str, Parameter | Buffer]:
        """A weight of this shape, and a bias for the outputs if the layer has one."""

        draw = partial(self._draw, fan_in=fan_in, fan_out=fan_out)  # which can be pickled
        declared: dict[str, Parameter | Buffer] = {"weight": Parameter(shape, draw, decay=True)}
        if self.has_bias:
            declared["bias"] = Parameter((outputs,), initializers.zeros, decay=False)
        return declared

    def _draw(self, shape: Shape, generator: torch.Generator, *, fan_in: float, fan_out: float) -> Tensor:
        return initializers.weights(self.init, shape, generator, fan_in=fan_in, fan_out=fan_out, gain=self.gain)
