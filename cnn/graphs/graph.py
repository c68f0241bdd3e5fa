"""Graphs: layers made of layers. The root of a graph owns the two flat vectors that hold all parameters.

How gradients pass through graphs is derived in docs/graphs.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import WithJsonSchema
from torch import Tensor

from cnn.layer import Layer, Mode, Parameter, Shape, ShapeError
from cnn.text import first_of, nearest

Layers = Annotated[Mapping[str, Layer] | Sequence[Layer], WithJsonSchema({"description": "a list of layers"})]
"""Layers by name, or layers to be named after their kind; a list in configs."""

MAX_LAYERS = 10_000
"""Of a whole model. With nested repetitions, a typo could fill the memory."""

Visit = Callable[[str, Layer, Shape], Shape]
"""Takes a layer's name, the layer and its input's shape, and returns its output's shape."""


@dataclass
class FlatVectors:
    """What an optimizer changes: values `data` and their gradients `grad`, the first `decayed` with weight decay."""

    data: Tensor
    grad: Tensor
    decayed: int


class FlatParameters(FlatVectors):
    """All parameters of a network in one vector `data`, their gradients in another, `grad`, in the same order.

    Parameters with weight decay come first, frozen ones last: `trained` is the part of both vectors without these.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        dtype: torch.dtype,
        device: torch.device | str,
        frozen: Collection[Parameter] = (),
    ) -> None:
        self.frozen = set(frozen)
        trained = [parameter for parameter in parameters if parameter not in self.frozen]
        decayed = [parameter for parameter in trained if parameter.decay]
        others = [parameter for parameter in trained if not parameter.decay]
        ordered = self.parameters = [*decayed, *others, *(each for each in parameters if each in self.frozen)]
        data = torch.zeros(_count(ordered), dtype=dtype, device=device)
        super().__init__(data, torch.zeros_like(data), _count(decayed))
        count = _count(trained)
        self.trained = FlatVectors(self.data[:count], self.grad[:count], self.decayed)
        start = 0
        for parameter in ordered:
            piece = slice(start, start + parameter.numel)
            parameter.data = self.data[piece].view(parameter.shape)
            parameter.grad = self.grad[piece].view(parameter.shape)
            start = piece.stop

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold the parameters' values once, and their views are made again."""
        return _with_values, (self.parameters, self.data.dtype, self.data.device, [*self.frozen])


def _count(parameters: Sequence[Parameter]) -> int:
    return sum(parameter.numel for parameter in parameters)


def _with_values(
    parameters: list[Parameter], dtype: torch.dtype, device: torch.device, frozen: Collection[Parameter]
) -> FlatParameters:
    """Flat vectors with the values that the parameters have on their own."""
    values = [(parameter.data, parameter.grad) for parameter in parameters]
    flat = FlatParameters(parameters, dtype, device, frozen)
    for parameter, (data, grad) in zip(parameters, values, strict=True):
        parameter.data.copy_(data)
        parameter.grad.copy_(grad)
    return flat


class Graph(Layer):
    """A layer made of named layers. As the root it is a network: `build`, then `bind`, then train.

    Its cache holds those of its layers, in their order. It runs a layer in `mode_of(layer, mode)`, and asks it for no
    gradients of parameters if it is frozen.
    """

    flat: FlatParameters
    input_shape: Shape
    is_fused: ClassVar[bool] = False
    """Whether the layers run as one operation."""

    def __init__(self, layers: Layers) -> None:
        self.layers = dict(layers if isinstance(layers, Mapping) else name_layers(layers))

    def children(self) -> dict[str, Layer]:
        return self.layers

    def entries(self) -> list[Any]:
        """The layers as a config's list, with names where these aren't automatic."""
        layers = self.written()
        return [
            layer.entry(None if name == automatic else name)
            for automatic, (name, layer) in zip(name_layers([*layers.values()]), layers.items(), strict=True)
        ]

    def written(self) -> dict[str, Layer]:
        """The layers that a config lists: those that are fused are listed one by one."""
        found: dict[str, Layer] = {}
        for name, layer in self.layers.items():
            found |= layer.written() if isinstance(layer, Graph) and layer.is_fused else {name: layer}
        return found

    def arguments(self) -> dict[str, Any]:
        return {"layers": self.entries()}

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        """Call `visit` for each layer in the order of a forward pass; returns the output's shape."""
        raise NotImplementedError

    def walk(self, input_shape: Shape, path: str = "") -> Iterator[tuple[str, Layer, Shape]]:
        """Every layer in the graph with its dotted name and input shape, in order; graphs come after their layers."""
        found: list[tuple[str, Layer, Shape]] = []

        def note(name: str, layer: Layer, shape: Shape) -> Shape:
            inner = f"{path}.{name}" if path else name
            if isinstance(layer, Graph):
                found.extend(layer.walk(shape, inner))
            found.append((inner, layer, shape))
            return layer.output_shape(shape)

        self.trace(input_shape, note)
        yield from found

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.trace(input_shape, lambda _, layer, shape: layer.output_shape(shape))

    def build(self, input_shape: Shape) -> Shape:
        self.input_shape = input_shape
        return self.trace(input_shape, lambda _, layer, shape: layer.build(shape))

    def flops(self, input_shape: Shape) -> int:
        total = 0

        def count(_: str, layer: Layer, shape: Shape) -> Shape:
            nonlocal total
            total += layer.flops(shape)
            return layer.output_shape(shape)

        self.trace(input_shape, count)
        return total

    def bind(self, *, seed: int = 0, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        """Allocate the flat vectors and the buffers, make every parameter a view of them, and draw initial values.

        Only the root of a graph is bound. A parameter that is used several times is there once.
        """
        for _, layer in self.named_layers():
            vars(layer).pop("flat", None)  # of a graph that was a root before it became part of this one
        self.propagate_gain(gain=1.0)
        parameters = [parameter for _, parameter in self.named_parameters()]
        self.flat = FlatParameters(parameters, dtype, device)
        generator = torch.Generator().manual_seed(seed)
        for parameter in parameters:
            parameter.data.copy_(parameter.initializer(parameter.shape, generator))
        for _, buffer in self.named_buffers():
            buffer.data = torch.full(buffer.shape, buffer.fill, dtype=dtype, device=device)
        for _, layer in self.named_layers():
            layer.settle()

    def example(self, x: Tensor) -> Tensor:
        """Inputs for the first of the layers that takes others than most."""
        examples = (layer.example(x) for layer in self.layers.values())
        return next((example for example in examples if example is not x), x)

    def entered(self, tensor: Tensor) -> Tensor:
        """The input of a network, [*input_shape, N], outside of autograd; of graphs in a network as it is.

        Raises ValueError for another shape or dtype.
        """
        own = vars(self)
        if "flat" not in own or "input_shape" not in own:
            return tensor
        if tensor.shape[:-1] != self.input_shape or not tensor.dim():
            wanted = ", ".join(map(str, (*self.input_shape, "N")))
            raise ValueError(f"x is {list(tensor.shape)}, but this network takes [{wanted}]: the N examples are last")
        weights = self.flat.data
        if tensor.dtype != weights.dtype and len(weights):
            raise ValueError(f"the weights are {weights.dtype}, x is {tensor.dtype}: use one dtype")
        return tensor.detach()

    def is_trained(self) -> bool:
        return not self.frozen and any(layer.is_trained() for layer in self.children().values())

    def freeze(self, names: Collection[str]) -> None:
        """Freeze the layers with these dotted names: training leaves their parameters and buffers as they are.

        Only the root of a graph is frozen, after `bind` and before it is fused. A layer that is used several times is
        frozen in all of its uses. Raises ValueError for a name that no layer has.
        """
        unknown = sorted(set(names) - {name for name, _ in self.named_layers()})
        if unknown:
            raise ValueError(f"there is no layer {unknown[0]}: {nearest(unknown[0], dict(self.named_layers()))}")
        for name, layer in self.named_layers():
            layer.frozen = layer.frozen or name in names
        layers = [layer for _, layer in self.named_layers() if layer.frozen]
        frozen = {parameter for layer in layers for _, parameter in layer.named_parameters()}
        parameters = [parameter for _, parameter in self.named_parameters()]
        self.flat = _with_values(parameters, self.flat.data.dtype, self.flat.data.device, frozen)

    def state(self) -> dict[str, Tensor]:
        """The state of the network: parameters and buffers by dotted name (views, no copies)."""
        tensors = {name: parameter.data for name, parameter in self.named_parameters()}
        return tensors | {name: buffer.data for name, buffer in self.named_buffers()}

    def mismatches(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """What of a saved state doesn't fit this network, by name: why it can't be loaded."""
        own = self.state()
        faults = {name: f"{name} is missing" for name in own if name not in state}
        faults |= {name: f"{name} is unknown" for name in state if name not in own}
        return faults | {
            name: f"{name} has shape {list(state[name].shape)}, wanted {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy saved tensors into the network. Raises ValueError and changes nothing if names or shapes differ."""
        faults = [*self.mismatches(state).values()]
        if faults:
            raise ValueError(f"the saved weights don't fit this network: {first_of(faults)}")
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def mode_of(layer: Layer, mode: Mode) -> Mode:
    """The mode in which a graph runs one of its layers: evaluation, if it is frozen."""
    return replace(mode, train=False) if layer.frozen and mode.train else mode


def inside(name: str, visit: Visit, layer: Layer, shape: Shape) -> Shape:
    """Visit a layer of a graph; adds its name to a ShapeError."""
    try:
        return visit(name, layer, shape)
    except ShapeError as error:
        raise error.inside(name) from None


def name_layers(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Name layers after their kind, numbered: conv2d_1, relu_1, conv2d_2, ..."""
    counts: Counter[str] = Counter()
    named = {}
    for layer in layers:
        counts[layer.kind] += 1
        named[f"{layer.kind}_{counts[layer.kind]}"] = layer
    return named
