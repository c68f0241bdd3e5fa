"""Spectral normalisation of one layer's weight. Derived in docs/normalisation.md."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from cnn import ops
from cnn.arguments import Positive, PositiveFloat
from cnn.faults import ConfigError, Fault
from cnn.graphs.graph import Graph, Layers, Visit, inside, mode_of
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, Shape
from cnn.layers.conv_transpose import ConvTranspose
from cnn.layers.weighted import Weighted

MAX_ITERATIONS = {torch.float32: 200, torch.float64: 20_000}
"""Of the power method, when a network is bound. In double precision, which checks of gradients use, it has to converge:
only then the gradient, for which u and v are constants, is the derivative of a forward pass in training."""

CONVERGED = 4
"""Rounding errors by which u changes in an iteration when the power method has converged."""


class SpectralNorm(Graph):
    """Divide the weight of one layer by its largest singular value: `torch.nn.utils.parametrizations.spectral_norm`.

    Forward:  y = layer(x) with the weight Wn = W / sigma,  sigma = u^T W v, with W as a matrix; in training,
              u = W v / |W v|, v = W^T u / |W^T u| come before, `n_power_iterations` times, with norms of at least `eps`
    Backward: dx and dbias as the layer's with the weight Wn, and with its dWn, where u and v are taken as constants,
              dW = (dWn - (sum of dWn * Wn) * u v^T) / sigma

    `layers` has one layer with a weight: conv*, conv_transpose* or linear. Rows of the matrix are output features, so
    of a transposed convolution's weight [C, O / groups, *K] they are the second axis.
    u and v are buffers. They start from the same vectors in every network and are iterated to the singular vectors of
    the initial weight, if that takes at most 200 iterations (20,000 in double precision).
    Shapes: x, y as the layer's; u [rows], v [columns]. Raises ConfigError for other layers, or another number of them.
    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks", eq. 8 and algorithm 1.
    """

    kind = "spectral_norm"
    u: Buffer
    v: Buffer

    def __init__(self, layers: Layers, n_power_iterations: Positive = 1, eps: PositiveFloat = 1e-12) -> None:
        super().__init__(layers)
        kinds = [layer.kind for layer in self.layers.values()]
        if len(kinds) != 1 or not isinstance(self._layer, Weighted):
            problem = f"{', '.join(kinds) or 'nothing'} is not allowed, give one layer with a weight, such as conv2d"
            raise ConfigError([Fault("layers", problem)])
        self.n_power_iterations = n_power_iterations
        self.eps = eps

    def arguments(self) -> dict[str, Any]:
        return Layer.arguments(self) | {"layers": self.entries()}

    @property
    def _layer(self) -> Any:
        (layer,) = self.layers.values()
        return layer

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        ((name, layer),) = self.layers.items()
        return inside(name, visit, layer, input_shape)

    def build(self, input_shape: Shape) -> Shape:
        shape = super().build(input_shape)
        weight: Shape = self._layer.weight.shape
        rows = weight[self._axis]
        columns = self._layer.weight.numel // rows
        vars(self).setdefault("u", Buffer((rows,), fill=0.0))
        vars(self).setdefault("v", Buffer((columns,), fill=0.0))
        return shape

    def propagate_gain(self, gain: float) -> float:
        inner: float = self._layer.propagate_gain(gain)
        return inner

    def settle(self) -> None:
        start = torch.randn(self.v.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.v.data.copy_(start)
        matrix = self._as_matrix(self._layer.weight.data)
        tolerance = CONVERGED * torch.finfo(matrix.dtype).eps
        for _ in range(MAX_ITERATIONS.get(matrix.dtype, MAX_ITERATIONS[torch.float32])):
            before = self.u.data.clone()
            self._iterate(matrix)
            if float((self.u.data - before).abs().max()) <= tolerance:
                break

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        mode = mode_of(self._layer, mode)
        weight = self._layer.weight.data
        matrix = self._as_matrix(weight)
        if mode.train:
            for _ in range(self.n_power_iterations):
                self._iterate(matrix)
        u, v = self.u.data.clone(), self.v.data.clone()  # the next forward pass may change the buffers
        sigma = u @ (matrix @ v)
        normalised = torch.div(weight, sigma, out=ops.empty(tuple(weight.shape), like=weight))
        y, cache = self._with_weight(normalised).forward(x, mode)
        return y, mode.keep(cache, normalised, sigma, u, v)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        inner_cache, normalised, sigma, u, v = cache.take()
        need_dparams = need_dparams and not self._layer.frozen
        layer = self._with_weight(normalised)
        if need_dparams:
            layer.weight.grad = ops.empty(tuple(normalised.shape), like=normalised).zero_()
        dx: Tensor | None = layer.backward(dy, inner_cache, need_dx=need_dx, need_dparams=need_dparams)
        if need_dparams:
            gradient = layer.weight.grad
            along = (gradient * normalised).sum()
            gradient.sub_(self._as_weight((along * u)[:, None] * v)).div_(sigma)
            self._layer.weight.grad += gradient
        return dx

    def _iterate(self, matrix: Tensor) -> None:
        """One iteration of the power method."""
        self.u.data.copy_(self._unit(matrix @ self.v.data))
        self.v.data.copy_(self._unit(matrix.t() @ self.u.data))

    def _unit(self, vector: Tensor) -> Tensor:
        return vector / vector.square().sum().sqrt().clamp(min=self.eps)

    def _with_weight(self, normalised: Tensor) -> Any:
        """The layer with this weight: a copy, which has the same bias."""
        layer = copy.copy(self._layer)
        own: Parameter = layer.weight
        layer.weight = Parameter(own.shape, own.initializer, decay=own.decay)
        layer.weight.data = normalised
        return layer

    @property
    def _axis(self) -> int:
        """The axis of the weight that has the output features."""
        return 1 if isinstance(self._layer, ConvTranspose) else 0

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.transpose(0, self._axis).flatten(1)

    def _as_weight(self, matrix: Tensor) -> Tensor:
        """The reverse of `_as_matrix`."""
        shape = list(self._layer.weight.shape)
        shape[0], shape[self._axis] = shape[self._axis], shape[0]
        return matrix.view(shape).transpose(0, self._axis)
