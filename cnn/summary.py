"""A network layer by layer: shapes, parameters, operations and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from cnn.graphs.graph import Graph
from cnn.layer import Cache, Layer, Mode, Parameter, Shape
from cnn.ops.backend import kernels
from cnn.text import columns

EXAMPLES = 2  # batch norm can't train on one


@dataclass(frozen=True)
class Row:
    """A layer: its dotted name, its output's shape, its own parameters, and its cost per example.

    `flops`: floating-point operations of a forward pass. `cache_bytes`: what training keeps for the backward pass; a
    tensor that several layers keep counts for the first one. `frozen`: training leaves the parameters as they are.
    """

    name: str
    output_shape: Shape
    parameters: int
    flops: int
    cache_bytes: int
    frozen: bool = False


def summarise(network: Graph) -> list[Row]:
    """A row for each layer in the order of the forward pass, measured on two examples of zeros.

    The network has to be bound. Graphs that compute something themselves, such as a residual's sum, have a row after
    those of their layers. The reference keeps as much as compiled kernels do, of which those for two examples would be
    compiled and loaded for this alone.
    """
    device, dtype = network.flat.data.device, network.flat.data.dtype
    x = torch.zeros(*network.input_shape, EXAMPLES, device=device, dtype=dtype)
    generator = torch.Generator(device).manual_seed(0)
    with kernels("reference"):
        _, cache = network.dry_run(x, Mode(train=True, generator=generator))
    return list(_rows("", network, network.input_shape, cache, _Counted()))


def _rows(
    path: str, layer: Layer, input_shape: Shape, cache: Cache, counted: _Counted, frozen: bool = False
) -> Iterator[Row]:
    inner_flops = 0
    frozen = frozen or layer.frozen
    if isinstance(layer, Graph):
        shapes: dict[str, Shape] = {}

        def note(name: str, child: Layer, shape: Shape) -> Shape:
            shapes[name] = shape
            return child.output_shape(shape)

        layer.trace(input_shape, note)
        for (name, child), inner_cache in zip(layer.children().items(), cache.inner(), strict=True):
            inner_flops += child.flops(shapes[name])
            yield from _rows(f"{path}.{name}" if path else name, child, shapes[name], inner_cache, counted, frozen)
    own_flops = layer.flops(input_shape) - inner_flops
    if not isinstance(layer, Graph) or own_flops:
        yield Row(
            path,
            layer.output_shape(input_shape),
            counted.parameters_of(layer),
            own_flops,
            counted.bytes_of(cache) // EXAMPLES,
            frozen,
        )


class _Counted:
    """What has been counted: a parameter or tensor that is used several times counts for its first use."""

    def __init__(self) -> None:
        self.parameters: set[Parameter] = set()
        self.storages: set[int] = set()

    def parameters_of(self, layer: Layer) -> int:
        new = {value for value in vars(layer).values() if isinstance(value, Parameter)} - self.parameters
        self.parameters |= new
        return sum(parameter.numel for parameter in new)

    def bytes_of(self, cache: Cache) -> int:
        new = {address: size for address, size in cache.storages().items() if address not in self.storages}
        self.storages |= set(new)
        return sum(new.values())


def table(rows: Sequence[Row]) -> str:
    """The rows and their totals as a text table. Frozen layers are marked, and what is trained is counted as well."""
    parameters, flops, cache_bytes = (
        sum(getattr(row, key) for row in rows) for key in ("parameters", "flops", "cache_bytes")
    )
    cells = [("layer", "output", "parameters", "FLOPs", "cache")]
    cells += [
        (_marked(row), str(list(row.output_shape)), f"{row.parameters:,}", f"{row.flops:,}", _size(row.cache_bytes))
        for row in rows
    ]
    cells.append(("total per example", "", f"{parameters:,}", f"{flops:,}", _size(cache_bytes)))
    if any(row.frozen for row in rows):
        trained = sum(row.parameters for row in rows if not row.frozen)
        cells.append(("trained", "", f"{trained:,}", "", ""))
    lines = columns(cells, "<<>")
    rule, last = "-" * len(lines[0]), len(rows) + 1
    return "\n".join([lines[0], rule, *lines[1:last], rule, *lines[last:]])


def _marked(row: Row) -> str:
    return f"{row.name} (frozen)" if row.frozen else row.name


def _size(nbytes: int) -> str:
    return f"{nbytes / 1024:,.1f} KiB"
