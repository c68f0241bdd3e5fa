"""Graphs: layers made of layers. The root of a graph owns the two flat vectors that hold all parameters.

How gradients pass through graphs is derived in docs/graphs.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import WithJsonSchema
from torch import Tensor

from cnn import ops
from cnn.layer import Layer, Parameter, Shape, ShapeError

Layers = Annotated[Mapping[str, Layer] | Sequence[Layer], WithJsonSchema({"description": "a list of layers"})]
"""Layers by name, or layers to be named after their kind; a list in configs."""

MAX_LAYERS = 10_000
"""Of a whole model. With nested repetitions, a typo could fill the memory."""

Visit = Callable[[str, Layer, Shape], Shape]
"""Takes a layer's name, the layer and its input's shape, and returns its output's shape."""


class FlatParameters:
    """All parameters of a network in one vector `data`, their gradients in another, `grad`, in the same order.

    Parameters with weight decay come first, so that `data[:decayed]` is exactly these.
    """

    def __init__(self, parameters: list[Parameter], dtype: torch.dtype, device: torch.device | str) -> None:
        ordered = self.parameters = sorted(parameters, key=lambda parameter: not parameter.decay)
        self.decayed = sum(parameter.numel for parameter in ordered if parameter.decay)
        self.data = torch.zeros(sum(parameter.numel for parameter in ordered), dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.data)
        start = 0
        for parameter in ordered:
            piece = slice(start, start + parameter.numel)
            parameter.data = self.data[piece].view(parameter.shape)
            parameter.grad = self.grad[piece].view(parameter.shape)
            start = piece.stop

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold the parameters' values once, and their views are made again."""
        return _with_values, (self.parameters, self.data.dtype, self.data.device)


def _with_values(parameters: list[Parameter], dtype: torch.dtype, device: torch.device) -> FlatParameters:
    """Flat vectors with the values that the parameters have on their own."""
    values = [(parameter.data, parameter.grad) for parameter in parameters]
    flat = FlatParameters(parameters, dtype, device)
    for parameter, (data, grad) in zip(parameters, values, strict=True):
        parameter.data.copy_(data)
        parameter.grad.copy_(grad)
    return flat


class Graph(Layer):
    """A layer made of named layers. As the root it is a network: `build`, then `bind`, then train.

    Its cache holds those of its layers, in their order.
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

    def state(self) -> dict[str, Tensor]:
        """The state of the network: parameters and buffers by dotted name (views, no copies)."""
        tensors = {name: parameter.data for name, parameter in self.named_parameters()}
        return tensors | {name: buffer.data for name, buffer in self.named_buffers()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy saved tensors into the network. Raises ValueError and changes nothing if names or shapes differ."""
        own = self.state()
        faults = [f"{name} is missing" for name in own if name not in state]
        faults += [f"{name} is unknown" for name in state if name not in own]
        faults += [
            f"{name} has shape {list(state[name].shape)}, wanted {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ]
        if faults:
            more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise ValueError("the saved weights don't fit this network: " + "; ".join(faults[:3]) + more)
        for name, tensor in own.items():
            tensor.copy_(state[name])


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


def add(a: Tensor, b: Tensor) -> Tensor:
    """a + b in a new tensor: both may be in use elsewhere."""
    return torch.add(a, b, out=ops.empty(tuple(a.shape), like=a))
