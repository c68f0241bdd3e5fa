"""From a config to a network: names become layers, shapes are inferred, and mistakes are told with their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel

from cnn.arguments import STRICT, ConfigError, Fault, Name, check, construct, nearest, show
from cnn.graph import Sequential, name_layers
from cnn.layer import Layer, ShapeError
from cnn.layers import LAYERS


def build_model(
    model: Mapping[str, Any],
    input_shape: Sequence[int],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Sequential:
    """The network that `model["layers"]` describes, for inputs [*input_shape, N], with its first weights drawn.

    Raises ConfigError as `plan_model` does, and where the parameters don't fit into memory.
    """
    network = plan_model(model, input_shape)
    count = sum(parameter.numel for _, parameter in network.named_parameters())
    try:
        network.bind(seed=seed, dtype=dtype, device=device)
    except (RuntimeError, MemoryError):
        raise ConfigError([Fault("layers", f"{count:,} parameters don't fit into memory")]) from None
    return network


def plan_model(model: Mapping[str, Any], input_shape: Sequence[int]) -> Sequential:
    """The network with all shapes known and nothing allocated.

    Raises ConfigError with every wrong name and argument at once, or with the first layer whose input doesn't fit.
    """
    network = make_network(model.get("layers"))
    try:
        network.build(tuple(input_shape))
    except ShapeError as error:
        raise ConfigError([Fault(_place(network, error.path), f"{error.path} {error.reason}")]) from None
    return network


def make_network(entries: object, place: str = "layers") -> Sequential:
    """The layers of a config in a row, not yet built. Raises ConfigError with all faults that show without an input."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ConfigError([Fault(place, f"{show(entries)} is not allowed, give a list of at least one layer")])
    layers: list[Layer] = []
    names: list[str | None] = []
    faults: list[Fault] = []
    for index, entry in enumerate(entries):
        try:
            kind, arguments, name = _parse(entry, f"{place}.{index}")
            layers.append(construct(LAYERS[kind], arguments, f"{place}.{index}.{kind}"))
            names.append(name)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    named: dict[str, Layer] = {}
    for index, (layer, name, automatic) in enumerate(zip(layers, names, name_layers(layers), strict=True)):
        if (name or automatic) in named:
            raise ConfigError([Fault(f"{place}.{index}.{layer.kind}.name", f"{name or automatic} is taken already")])
        named[name or automatic] = layer
    return Sequential(named)


class _Named(BaseModel):
    """What any layer may be given beside its own arguments."""

    model_config = STRICT
    name: Name | None = None


def _parse(entry: object, place: str) -> tuple[str, dict[str, Any], str | None]:
    """`relu`, or `conv2d: {out_channels: 4, name: stem}`, as kind, arguments and name."""
    kind: Any
    arguments: Any
    if isinstance(entry, str):
        kind, arguments = entry, {}
    elif isinstance(entry, Mapping) and len(entry) == 1:
        kind, arguments = next(iter(entry.items()))
        arguments = {} if arguments is None else arguments
    else:
        raise ConfigError([Fault(place, f"{show(entry)} is not a layer, give a name, or one name with its arguments")])
    if kind not in LAYERS:
        raise ConfigError([Fault(place, f"unknown layer {show(kind)}, {nearest(kind, LAYERS)}")])
    if not isinstance(arguments, Mapping):
        raise ConfigError([Fault(f"{place}.{kind}", f"{show(arguments)} is not allowed, give arguments by name")])
    own = {name: value for name, value in arguments.items() if name != "name"}
    named = {name: value for name, value in arguments.items() if name == "name"}
    return kind, own, check(_Named, named, f"{place}.{kind}").name


def _place(network: Sequential, path: str) -> str:
    """Where in the config the layer with this path stands."""
    name = path.split(".")[0]
    index = list(network.layers).index(name)
    return f"layers.{index}.{network.layers[name].kind}"
