"""The base of layers with a weight and a bias: how these are declared and initialised."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from cnn import initializers
from cnn.initializers import Scheme
from cnn.layer import Buffer, Initializer, Layer, Parameter, Shape


class Weighted(Layer):
    """A layer with a weight, scaled for the activation that follows it, and a bias that starts at zero."""

    weight: Parameter
    bias: Parameter | None = None
    gain: float = 1.0
    fans: tuple[float, float]
    """The inputs of each output, and the outputs that each input is in."""

    def __init__(self, bias: bool, init: Scheme) -> None:
        self.has_bias = bias
        self.init = init

    def propagate_gain(self, gain: float) -> float:
        self.gain = gain
        self.weight.initializer = self._initializer()
        return 1.0

    def _add_bias_gradient(self, dy: Tensor) -> None:
        """dbias[o] += sum of dy over all positions and examples; dy [O, *So, N]."""
        if self.bias is not None:
            self.bias.grad += dy.flatten(1).sum(1)

    def _declare(self, shape: Shape, outputs: int, fan_in: float, fan_out: float) -> dict[str, Parameter | Buffer]:
        """A weight of this shape, and a bias for the outputs if the layer has one."""
        self.fans = fan_in, fan_out
        declared: dict[str, Parameter | Buffer] = {"weight": Parameter(shape, self._initializer(), decay=True)}
        if self.has_bias:
            declared["bias"] = Parameter((outputs,), initializers.zeros, decay=False)
        return declared

    def _initializer(self) -> Initializer:
        """Can be pickled, and doesn't refer to the layer: in a circle, its tensors would wait for a collection."""
        fan_in, fan_out = self.fans
        return partial(initializers.weights, self.init, fan_in=fan_in, fan_out=fan_out, gain=self.gain)
