"""Graphs whose layers run one after another. How gradients pass through them is derived in docs/graphs.md."""

from __future__ import annotations

import copy
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from cnn.faults import ConfigError, Fault
from cnn.graphs.graph import MAX_LAYERS, Graph, Layers, Visit, inside, mode_of
from cnn.layer import Cache, Layer, Mode, Shape
from cnn.text import yaml

Times = Annotated[int, Field(ge=1, le=1000)]

KEEPING_RANGES = {
    *("identity", "flatten", "reshape", "pixel_shuffle", "upsample", "global_avg_pool"),
    *("dropout", "dropout2d", "dropout3d"),
    *(f"{pool}_pool{axes}d" for pool in ("max", "avg") for axes in (1, 2, 3)),
}
"""Kinds of layers whose outputs are their inputs or means of them (of dropout, but for a scale)."""

RESHAPING = {"identity", "flatten", "reshape", "pixel_shuffle"}
"""Kinds of layers that change no value."""

ELEMENTWISE = {"sigmoid"}
"""Kinds of activations that a loss may contain and that commute with any change of shape."""


class Sequential(Graph):
    """Layers one after another: y = f_k(...f_2(f_1(x))), and backward dx = f_1'(f_2'(...f_k'(dy))).

    `layers` is a mapping from names to layers, or layers to be named after their kind: `conv2d_1`, `relu_1`, ...
    """

    kind = "sequential"

    def __init__(self, layers: Layers) -> None:
        super().__init__(layers)

    def __repr__(self) -> str:
        """The whole model, as in a config."""
        return yaml({"layers": self.entries()})

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        shape = input_shape
        for name, layer in self.layers.items():
            shape = inside(name, visit, layer, shape)
        return shape

    def propagate_gain(self, gain: float) -> float:
        for layer in reversed(self.layers.values()):
            gain = layer.propagate_gain(gain)
        return gain

    def example(self, x: Tensor) -> Tensor:
        """Inputs for the first layer, or for the next one where it only reshapes."""
        for layer in self.layers.values():
            x = layer.example(x)
            if layer.kind not in RESHAPING:
                break
        return x

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        caches = []
        x = self.entered(x)
        for layer in self.layers.values():
            x, cache = layer.forward(x, mode_of(layer, mode))
            caches.append(cache)
        return x, mode.keep(*caches)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        caches = list(cache.take())
        layers = list(self.layers.values())
        first = 0 if need_dx else self._first_trained(layers, need_dparams)
        gradient: Any = dy
        for index in reversed(range(first, len(layers))):
            layer, wanted = layers[index], need_dx or index > first
            trained = need_dparams and not layer.frozen
            gradient = layer.backward(gradient, caches.pop(), need_dx=wanted, need_dparams=trained)
        return gradient if need_dx else None

    def without_last(self, kind: str | None) -> Sequential:
        """The same layers, without the last one if it is of this kind, also inside a sequence at the end.

        Layers that only reshape may follow it, if it then is the same function of their output. The graph has to be
        built.
        """
        channels = self.output_shape(self.input_shape)[0]
        for path, layer, shape in reversed([*self.walk(self.input_shape)]):
            if layer.kind == kind:
                same = layer.kind in ELEMENTWISE or shape[0] == channels  # a softmax runs over the channels
                return self._without(path) if same else self
            if layer.kind not in RESHAPING and not isinstance(layer, Sequential):
                break
        return self

    def _without(self, path: str) -> Sequential:
        """The same layers, without the one with this dotted path, which leads through sequences only."""
        name, _, inner = path.partition(".")
        rest = dict(self.layers)
        last = rest.pop(name)
        if inner and isinstance(last, Sequential):
            rest[name] = last._without(inner)
        shortened = Sequential(rest)
        shortened.place, shortened.frozen = self.place, self.frozen
        shortened.input_shape = self.input_shape
        return shortened

    @staticmethod
    def _first_trained(layers: list[Layer], need_dparams: bool) -> int:
        """Layers before this index need no gradient."""
        trained = (i for i, layer in enumerate(layers) if need_dparams and layer.is_trained())
        return next(trained, len(layers))


def origins(layer: Layer) -> list[Layer]:
    """The layers that computed a layer's outputs, up to layers after them that keep the range of values.

    In a sequence this is the last one, in other graphs the last one of each branch.
    """
    if not isinstance(layer, Graph):
        return [] if layer.kind in KEEPING_RANGES else [layer]
    if isinstance(layer, Sequential):
        return next((found for inner in reversed(layer.layers.values()) if (found := origins(inner))), [])
    return [found for branch in layer.layers.values() for found in origins(branch)]


class Repeat(Sequential):
    """The same layers several times in a row, each time with their own parameters: names `1`, `2`, ...

    Forward and backward as in a sequence. Shapes: those of the layers, applied repeatedly.
    """

    kind = "repeat"

    def __init__(self, times: Times, layers: Layers) -> None:
        once = Sequential(layers)
        count = sum(1 for _ in once.named_layers())
        if times * count > MAX_LAYERS:
            raise ConfigError([Fault("times", f"{times} times {count} layers are more than {MAX_LAYERS:,}")])
        super().__init__({str(number): copy.deepcopy(once) for number in range(1, times + 1)})

    def arguments(self) -> dict[str, Any]:
        once: Any = self.layers["1"]
        return {"times": len(self.layers), "layers": once.entries()}

    __repr__ = Layer.__repr__
