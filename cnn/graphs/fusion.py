"""The same network in fewer passes over memory: consecutive layers that are computed as one operation.

A batch norm is fused with the max pool and the ReLU after it, in either order: a maximum commutes with a monotonic
function. The values in between are never written to memory (docs/normalisation.md). So is the sum of a residual graph
with the ReLU after it.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor

from cnn import ops
from cnn.graphs.graph import Graph, mode_of
from cnn.graphs.residual import Residual
from cnn.graphs.sequential import Repeat, Sequential
from cnn.layer import Cache, Layer, Mode
from cnn.layers.activation import ReLU
from cnn.layers.norm import BatchNorm
from cnn.layers.pool import MaxPool, MaxPool1d, MaxPool2d, MaxPool3d

G = TypeVar("G", bound=Graph)


def fuse(graph: G) -> G:
    """A graph of the same layers, and so the same parameters, that computes the same with less memory traffic.

    The given graph isn't changed. Derived classes of these layers are not fused: they may compute something else.
    """
    fused = copy.copy(graph)
    fused.layers = {name: fuse(layer) if isinstance(layer, Graph) else layer for name, layer in graph.layers.items()}
    if type(graph) in (Sequential, Repeat):
        fused.layers = _joined(fused.layers)
    return fused


def _joined(layers: dict[str, Layer]) -> dict[str, Layer]:
    """The layers, with each batch norm or residual graph and what is fused with it as one."""
    joined: dict[str, Layer] = {}
    waiting = list(layers)
    while waiting:
        names = [waiting.pop(0)]
        if type(layers[names[0]]) is BatchNorm:
            while waiting and _follows(layers[waiting[0]], [layers[name] for name in names[1:]]):
                names.append(waiting.pop(0))
        elif type(layers[names[0]]) is Residual and waiting and type(layers[waiting[0]]) is ReLU:
            names.append(waiting.pop(0))
        together = {name: layers[name] for name in names}
        fused = ResidualReLU if type(layers[names[0]]) is Residual else NormPoolReLU
        joined["+".join(names)] = fused(together) if len(names) > 1 else layers[names[0]]
    return joined


def _follows(layer: Layer, taken: list[Layer]) -> bool:
    """Whether the layer is a pool or a ReLU, and the first of its kind."""
    return any(type(layer) in kinds and not any(type(other) in kinds for other in taken) for kinds in (POOLS, (ReLU,)))


POOLS = (MaxPool1d, MaxPool2d, MaxPool3d)


class NormPoolReLU(Sequential):
    """A batch_norm with the max pool, the ReLU, or both, that follow it.

    Forward:  y = relu(pool(norm(x)))
    Backward: g = dy where y > 0, at the place that won its window, and 0 elsewhere; then batch_norm's with dy = g

    In evaluation with a cache, which only input gradients need, the layers run one by one.
    Shapes: x [C, *S, N], y as the last layer's.
    """

    is_fused = True

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__(layers)
        (self.norm,) = (layer for layer in layers.values() if isinstance(layer, BatchNorm))
        self.pool = next((layer for layer in layers.values() if isinstance(layer, MaxPool)), None)
        self.frozen = self.norm.frozen  # the others compute the same in both modes
        self.rectify = any(isinstance(layer, ReLU) for layer in layers.values())

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        if mode.keep_cache and not mode.train:
            y, cache = super().forward(x, mode)
            return y, mode.keep(False, cache)
        running, training = self.norm.running(x, mode)
        after = ops.PoolReLU(self.pool.window_on(tuple(x.shape[1:-1])) if self.pool else None, self.rectify)
        scale_and_shift = self.norm.scale_and_shift(x)
        y, statistics, route = ops.norm_pool_relu(x, *scale_and_shift, running, after, training=training)
        return y, mode.keep(True, x, statistics, *route, mode)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        fused, *kept = cache.take()
        if not fused:
            (cache,) = kept
            return super().backward(dy, cache, need_dx=need_dx, need_dparams=need_dparams)
        x, statistics, values, window, mode = kept
        route = ops.Route(values, window)
        if mode.reduce is None:
            weight, _ = self.norm.scale_and_shift(x)
            gradients = self.norm.gradients(need_dparams)
            dx = ops.norm_pool_relu_backward(dy, x, statistics, weight, gradients, route)
        else:
            g = ops.pool_relu_backward(dy, route, tuple(x.shape[1:-1]))
            dx = self.norm.differentiate(g, x, statistics, mode, need_dparams=need_dparams)
        return dx if need_dx else None


class ResidualReLU(Sequential):
    """A residual graph with the ReLU after it.

    Forward:  y = relu(body(x) + shortcut(x))
    Backward: the residual graph's with dy where y > 0, and 0 elsewhere

    Shapes: as the residual graph's.
    """

    is_fused = True

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__(layers)
        (self.residual,) = (layer for layer in layers.values() if isinstance(layer, Residual))

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        body, shortcut, cache = self.residual.branches(x, mode_of(self.residual, mode))
        y = ops.add_relu(body, shortcut)
        return y, mode.keep(y, cache)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        y, inner_cache = cache.take()
        gradient = ops.relu_backward(dy, y)
        trained = need_dparams and not self.residual.frozen
        return self.residual.backward(gradient, inner_cache, need_dx=need_dx, need_dparams=trained)
