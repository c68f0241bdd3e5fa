"""Check the gradients of a configured network, layer by layer and from the input to the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn.gradients.finite_differences import contract, directional
from cnn.graphs.fusion import fuse
from cnn.graphs.graph import Graph
from cnn.graphs.sequential import Sequential
from cnn.layer import Cache, Layer, Mode, Shape
from cnn.layers.shape import Identity
from cnn.layers.weighted import Weighted
from cnn.losses import Loss

LAYER_TOLERANCE = 1e-6
GRAPH_TOLERANCE = 1e-5
"""For graphs, in which the inputs of inner layers can't be chosen away from kinks and ties."""

EXAMPLES = 4
MORE_EXAMPLES = 17
"""For layers that are linear in x and so have no kinks: two of the widest vectors in double precision and one example
more, so that both the fast paths for whole vectors and those for the remainder are checked."""


@dataclass(frozen=True)
class Finding:
    """The largest relative error of a layer's gradients, in training or evaluation, and the gradient with it."""

    name: str
    input_shape: Shape
    gradient: str
    error: float
    tolerance: float

    @property
    def wrong(self) -> bool:
        return not self.error <= self.tolerance  # NaN is wrong too


def diagnose(network: Graph, scored: Graph, loss: Loss, target: Tensor, *, seed: int = 0) -> Iterator[Finding]:
    """Check each layer, then the loss, then everything together. Yields findings as they are made.

    The network has to be bound in float64. Its parameters and buffers are overwritten with random values, because
    initial constants, such as a scale of 1, hide mistakes. `scored` is the part of the network before the loss, checked
    as it is trained, fused; `target` is the loss's target for `EXAMPLES` examples. Raises DiagnosisFailed if a forward
    or backward pass fails.
    """
    _randomise(network, seed)
    device = network.flat.data.device
    for name, layer, shape in network.walk(network.input_shape):
        if layer.place or not isinstance(layer, Sequential):  # bodies and branches are checked as part of their graph
            yield _check(name, layer, shape, device, seed)
    output_shape = scored.output_shape(network.input_shape)
    yield _check("loss", _Scored(None, loss, target), output_shape, device, seed)
    yield _check("network and loss", _Scored(fuse(scored), loss, target), network.input_shape, device, seed)


def _randomise(network: Graph, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def noise(shape: Shape) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    for _, parameter in network.named_parameters():
        size = float(parameter.data.square().mean().sqrt()) or 1.0
        parameter.data.add_((0.3 * size * noise(parameter.shape)).to(parameter.data.device))
    for _, buffer in network.named_buffers():  # keep variances positive
        buffer.data.add_((0.3 * noise(buffer.shape).abs()).to(buffer.data.device))
    for _, layer in network.named_layers():
        layer.settle()


class _Scored(Graph):
    """A network with its loss as one layer, whose output is the loss of a batch."""

    kind = "scored"

    def __init__(self, network: Graph | None, loss: Loss, target: Tensor) -> None:
        super().__init__({"network": network or Identity()})
        self.loss = loss
        self.target = target

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        y, cache = self.layers["network"].forward(x, mode)
        value, loss_cache = self.loss.forward(y, self.target)
        return value, mode.keep(cache, loss_cache)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        network_cache, loss_cache = cache.take()
        gradient = dy * self.loss.backward(loss_cache)
        return self.layers["network"].backward(gradient, network_cache, need_dx=need_dx, need_dparams=need_dparams)


def _check(name: str, layer: Layer, shape: Shape, device: torch.device, seed: int) -> Finding:
    """The worst of a layer's gradients in both modes."""
    examples = MORE_EXAMPLES if isinstance(layer, Weighted) else EXAMPLES
    x = layer.example(away_from_kinks((*shape, examples), seed)).to(device)
    kinks = isinstance(layer, Graph)
    errors: dict[str, float] = {}
    for train in (True, False):
        mode = Mode(train, generator=torch.Generator(device).manual_seed(seed))
        try:
            found = directional(layer, x, mode, seed=seed, kinks=kinks) | contract(layer, x, mode, seed=seed)
        except Exception as error:
            raise DiagnosisFailed(f"{name}: {type(error).__name__}: {error}") from error
        errors |= {f"{gradient}, {'training' if train else 'evaluation'}": value for gradient, value in found.items()}
    gradient = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    return Finding(name, shape, gradient, errors[gradient], GRAPH_TOLERANCE if kinks else LAYER_TOLERANCE)


class DiagnosisFailed(Exception):
    """A forward or backward pass raised an exception."""


def away_from_kinks(shape: Shape, seed: int) -> Tensor:
    """Evenly spaced values from -2 to 2 in random order: no two are equal, none is zero."""
    count = math.prod(shape)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ((order.double() + 0.5) * (4 / count) - 2).view(shape)
