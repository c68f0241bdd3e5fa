"""The contract of a layer: Parameter, Buffer, Mode, Cache, Layer. Everything else in `cnn/` follows this page.

    forward(x, mode) -> (y, cache)
    backward(dy, cache, *, need_dx=True, need_dparams=True) -> dx

A layer owns parameters and buffers, never activations: what backward needs travels in the cache. So a layer can be used
twice in a network, and several forward passes can be in flight. `x` and `dy` are read-only; gradients of parameters are
added to `Parameter.grad`, never assigned.

Activations are [C, *spatial, N]: features first, the batch last and contiguous. docs/how-a-batch-flows.md follows one
batch through a whole training step.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cnn.text import yaml

Shape = tuple[int, ...]
Initializer = Callable[[Shape, torch.Generator], Tensor]

MAX_VALUES = 2**28
"""Largest tensor per example (1 GiB in float32)."""


class Tensors:
    """Something with a shape, whose tensors are allocated later, when the root of the graph is bound."""

    shape: Shape

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this {type(self).__name__.lower()} has no {name!r} before the graph's root is bound")


class Parameter(Tensors):
    """A trained tensor and its gradient: two views into the flat vectors that the root of the graph owns.

    `decay`: whether weight decay applies to it (to weights, not to biases and norms).
    """

    data: Tensor
    grad: Tensor

    def __init__(self, shape: Shape, initializer: Initializer, *, decay: bool) -> None:
        self.shape = shape
        self.initializer = initializer
        self.decay = decay
        self.numel = math.prod(shape)

    def __getstate__(self) -> dict[str, Any]:
        """Copies of the views, for copy and pickle, which would take the whole of the flat vectors with each."""
        views = ("data", "grad")
        return {name: value.clone() if name in views else value for name, value in vars(self).items()}


class Buffer(Tensors):
    """A tensor that is part of a layer's state but not trained, such as a running mean."""

    data: Tensor

    def __init__(self, shape: Shape, fill: float) -> None:
        self.shape = shape
        self.fill = fill


class Cache:
    """What a forward pass keeps for its backward pass. It can be taken once, and is freed as it is used."""

    def __init__(self, values: tuple[Any, ...] | None) -> None:
        self._values = values
        self._missing = "this forward pass kept no cache: it ran with Mode(keep_cache=False)"

    def take(self) -> tuple[Any, ...]:
        """The values. Raises RuntimeError on a second call, and if nothing was kept."""
        if self._values is None:
            raise RuntimeError(self._missing)
        values, self._values = self._values, None
        self._missing = "this cache was consumed by an earlier backward; run forward again"
        return values

    def inner(self) -> list[Cache]:
        """The caches inside this one: those of a graph's layers, in their order."""
        return [value for value in self._values or () if isinstance(value, Cache)]

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor, including those of inner caches."""
        for value in self._values or ():
            if isinstance(value, Cache):
                yield from value.tensors()
            elif isinstance(value, Tensor):
                yield value

    @property
    def nbytes(self) -> int:
        """Bytes in use; a storage shared by several tensors counts once."""
        return sum(self.storages().values())

    def storages(self) -> dict[int, int]:
        """The bytes of each storage, by its address."""
        storages = [tensor.untyped_storage() for tensor in self.tensors()]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}


@dataclass(frozen=True)
class Mode:
    """How a forward pass runs: `train` turns on batch statistics and noise, `keep_cache` allows a backward pass.

    Noise is drawn from `generator`, which is on the device of x, or else from torch's default. If several processes
    share a batch, `reduce` sums a tensor over all of them in place, and batch statistics are those of the whole batch;
    for a single process it is None.
    """

    train: bool
    keep_cache: bool = True
    generator: torch.Generator | None = None
    reduce: Callable[[Tensor], None] | None = None

    def keep(self, *values: Any) -> Cache:
        """A cache with these values, or an empty one if no backward pass follows."""
        return Cache(values if self.keep_cache else None)


class ShapeError(ValueError):
    """A layer can't take its input. `path` is the layer's name from the root, as in `residual_2.body.conv2d_1`."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def inside(self, name: str) -> ShapeError:
        """The same error, with its path relative to the next outer level."""
        return ShapeError(self.reason, f"{name}.{self.path}" if self.path else name)


def check_size(shape: Shape, verb: str) -> None:
    """Raise ShapeError if an example of this shape has more than MAX_VALUES values."""
    if math.prod(shape) > MAX_VALUES:
        raise ShapeError(f"{verb} {list(shape)}, more than {MAX_VALUES:,} values per example")


def _remembering(constructor: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor so that the layer remembers its arguments, those of the outermost of nested calls."""

    @functools.wraps(constructor)
    def remember(self: Layer, *args: Any, **kwargs: Any) -> None:
        vars(self).setdefault("_given", (args, kwargs))
        constructor(self, *args, **kwargs)

    return remember


class Layer:
    """The base of every layer. The constructor takes the arguments of a config; the input's shape follows in `build`.

    `print(layer)` shows the layer as it would be written in a config.
    """

    kind: ClassVar[str]
    """The name in configs, and the stem of automatic names: `conv2d` gives `conv2d_1`, `conv2d_2`."""

    place: str = ""
    """The place in the config, such as `layers.3.conv2d`; empty for layers that aren't in one."""

    frozen: bool = False
    """Whether training leaves the layer as it is: a graph runs it in evaluation mode, without gradients of parameters.

    `Graph.freeze` sets it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that differ from its defaults."""
        args, kwargs = vars(self).get("_given", ((), {}))
        signature = inspect.signature(type(self).__init__)
        given = [*signature.bind(self, *args, **kwargs).arguments.items()][1:]
        return {name: value for name, value in given if value != signature.parameters[name].default}

    def entry(self, name: str | None = None) -> Any:
        """The layer's entry in a config's list of layers: its kind, or its kind with arguments and a name."""
        arguments = self.arguments() | ({} if name is None else {"name": name})
        kind = getattr(self, "kind", type(self).__name__)
        return {kind: arguments} if arguments else kind

    def __repr__(self) -> str:
        return yaml(self.entry())

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output's shape for this input shape, both without the batch. Raises ShapeError for an unfit input."""
        return input_shape

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        """The parameters and buffers that this input shape requires, by attribute name."""
        return {}

    def build(self, input_shape: Shape) -> Shape:
        """Create the parameters and buffers for this input shape, and return the output's shape.

        A layer that is used twice in a network is built twice: it keeps its parameters, and raises ShapeError if the
        second use requires other shapes.
        """
        shape = self.output_shape(input_shape)
        check_size(shape, "gives")
        for name, declared in self.declare(input_shape).items():
            own = vars(self).setdefault(name, declared)
            if own.shape != declared.shape:
                raise ShapeError(
                    f"has a {name} of shape {list(own.shape)} from its first use in the network, "
                    f"but input {list(input_shape)} requires {list(declared.shape)}"
                )
        return shape

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        raise NotImplementedError

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        """dL/dx from dL/dy, or None unless `need_dx`. Adds the gradients of parameters to theirs if `need_dparams`."""
        raise NotImplementedError

    def propagate_gain(self, gain: float) -> float:
        """Take the gain of the activation after this layer, and return the gain for the layer before it.

        Weights are drawn with the gain that follows them. Layers without weights and nonlinearity pass it on.
        """
        return gain

    def is_trained(self) -> bool:
        """Whether the layer has parameters that aren't frozen."""
        return not self.frozen and any(self.named_parameters())

    def flops(self, input_shape: Shape) -> int:
        """Floating-point operations of a forward pass per example; a multiply-add counts as two."""
        return math.prod(self.output_shape(input_shape))

    def dry_run(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        """A forward pass that leaves buffers and the mode's generator as they were."""
        buffers = [(buffer.data, buffer.data.clone()) for _, buffer in self.named_buffers()]
        noise = None if mode.generator is None else mode.generator.get_state()
        try:
            return self.forward(x, mode)
        finally:
            for data, before in buffers:
                data.copy_(before)
            if mode.generator is not None and noise is not None:
                mode.generator.set_state(noise)

    def settle(self) -> None:
        """Compute buffers that depend on the initial values of parameters, when the root of the graph is bound."""

    def example(self, x: Tensor) -> Tensor:
        """Inputs for a check of gradients, made of values from -2 to 2: these, unless the layer takes others."""
        return x

    def children(self) -> dict[str, Layer]:
        """The layers that this one is made of, by name."""
        return {}

    def named_layers(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all layers in it, depth first, with dotted paths; the root's own path is empty."""
        yield path, self
        for name, child in self.children().items():
            yield from child.named_layers(f"{path}.{name}" if path else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, under the first path that leads to it."""
        return self._named(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Every buffer once, under the first path that leads to it."""
        return self._named(Buffer)

    def _named(self, wanted: type[Any]) -> Iterator[tuple[str, Any]]:
        seen = set()
        for path, layer in self.named_layers():
            for name, value in vars(layer).items():
                if isinstance(value, wanted) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value
