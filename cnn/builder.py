"""From a config to a network: names become layers, shapes are inferred, mistakes are reported with their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

import torch
from pydantic import BaseModel

from cnn.arguments import STRICT, Name, check, construct, model_of
from cnn.faults import MAX_FAULTS, ConfigError, Fault, join
from cnn.graphs import GRAPHS
from cnn.graphs.concat import Branches
from cnn.graphs.graph import MAX_LAYERS, Layers, name_layers
from cnn.graphs.sequential import Sequential
from cnn.initializers import Scheme
from cnn.layer import Layer, ShapeError, check_size
from cnn.layers import LAYERS
from cnn.text import nearest, show

MAX_DEPTH = 20
"""Levels of graphs within graphs. YAML parsers give up not much later."""
MAX_OPERATIONS = 2**40
"""Of a forward pass of one example, which then takes a minute or more."""


def build_model(
    model: Mapping[str, Any],
    input_shape: Sequence[int],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Sequential:
    """The network that `model["layers"]` describes, for inputs [*input_shape, N], with initial weights.

    Raises ConfigError as `plan_model` does, and if the parameters don't fit in memory.
    """
    network = plan_model(model, input_shape)
    count = sum(parameter.numel for _, parameter in network.named_parameters())
    try:
        network.bind(seed=seed, dtype=dtype, device=device)
    except (RuntimeError, MemoryError):
        raise ConfigError([Fault("layers", f"{count:,} parameters don't fit in memory")]) from None
    return network


def plan_model(model: Mapping[str, Any], input_shape: Sequence[int]) -> Sequential:
    """The network with all shapes known and nothing allocated.

    Raises ConfigError with every wrong name and argument at once, or with the first layer that can't take its input.
    """
    network = make_network(model)
    shape = tuple(input_shape)
    try:
        check_size(shape, "the input has")
        network.build(shape)
    except ShapeError as error:
        raise ConfigError([Fault(_place(network, error.path), f"{error.path} {error.reason}".strip())]) from None
    operations = network.flops(shape)
    if operations > MAX_OPERATIONS:
        problem = f"{operations:.1e} operations per example, at most {MAX_OPERATIONS:.1e} are allowed"
        raise ConfigError([Fault("layers", problem)])
    return network


class _Model(BaseModel):
    """The keys of a model other than its layers."""

    model_config = STRICT
    init: Scheme | None = None


def make_network(model: Mapping[str, Any], place: str = "") -> Sequential:
    """The layers of a model, not built yet. Raises ConfigError with all faults that don't depend on the input."""
    faults: list[Fault] = []
    init = None
    try:
        init = check(_Model, {"init": model["init"]} if "init" in model else {}, place).init
    except ConfigError as error:
        faults += error.faults
    try:
        layers = _make_layers(model.get("layers"), join(place, "layers"), init)
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from None
    if faults:
        raise ConfigError(faults)
    return Sequential(layers)


def _make_layers(entries: object, place: str, init: Scheme | None, depth: int = 0) -> dict[str, Layer]:
    """The layers of a list, by name. Raises ConfigError with all of their faults."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ConfigError([Fault(place, f"{show(entries)} is not allowed, give a list of at least one layer")])
    if depth > MAX_DEPTH:
        raise ConfigError([Fault(place, f"layers are nested more than {MAX_DEPTH} deep")])
    layers: list[Layer] = []
    names: list[str | None] = []
    faults: list[Fault] = []
    count = 0
    for index, entry in enumerate(entries):
        try:
            kind, arguments, name = _parse(entry, f"{place}.{index}")
            layers.append(_make_layer(kind, arguments, f"{place}.{index}.{kind}", init, depth))
            names.append(name)
        except ConfigError as error:
            faults += error.faults
        else:
            count += sum(1 for _ in layers[-1].named_layers())
        if count > MAX_LAYERS:
            faults.append(Fault(f"{place}.{index}", f"the model has more than {MAX_LAYERS:,} layers"))
        if count > MAX_LAYERS or len(faults) > MAX_FAULTS:
            break
    if faults:
        raise ConfigError(faults)
    named: dict[str, Layer] = {}
    for layer, name, automatic in zip(layers, names, name_layers(layers), strict=True):
        if (name or automatic) in named:
            raise ConfigError([Fault(f"{layer.place}.name", f"{name or automatic} is already taken")])
        named[name or automatic] = layer
    return named


def _make_layer(kind: str, arguments: Mapping[str, Any], place: str, init: Scheme | None, depth: int) -> Layer:
    """One layer. If it is a graph, its own layers are made first."""
    constructor: Any = known()[kind]
    hints = get_type_hints(constructor.__init__, include_extras=True)
    own = dict(arguments)
    if init and hints.get("init") == Scheme:  # and not prelu's, which is a number
        own.setdefault("init", init)
    faults: list[Fault] = []

    def make(entries: object, where: str) -> dict[str, Layer]:
        try:
            return _make_layers(entries, where, init, depth + 1)
        except ConfigError as error:
            faults.extend(error.faults)
            return {}  # check the other arguments all the same

    for name, value in arguments.items():
        where, hint = f"{place}.{name}", hints.get(name)
        if hint == Branches and isinstance(value, list):
            own[name] = [make(branch, f"{where}.{index}") for index, branch in enumerate(value)]
        elif (hint == Layers or Layers in get_args(hint)) and not isinstance(value, str):
            own[name] = make(value, where)
    if faults:
        try:
            check(model_of(constructor), own, place)
        except ConfigError as error:
            raise ConfigError([*error.faults, *faults]) from None
        raise ConfigError(faults)
    layer: Layer = construct(constructor, own, place)
    layer.place = place
    return layer


def known() -> dict[str, type[Layer]]:
    """Every name that a list of layers may use."""
    return {**LAYERS, **GRAPHS}


class _Named(BaseModel):
    """What any layer accepts besides its own arguments."""

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
    if kind not in known():
        raise ConfigError([Fault(place, f"unknown layer {show(kind)}, {nearest(kind, known())}")])
    if not isinstance(arguments, Mapping):
        raise ConfigError([Fault(f"{place}.{kind}", f"{show(arguments)} is not allowed, give arguments by name")])
    own = {name: value for name, value in arguments.items() if name != "name"}
    named = {name: value for name, value in arguments.items() if name == "name"}
    return kind, own, check(_Named, named, f"{place}.{kind}").name


def _place(network: Sequential, path: str) -> str:
    """The place in the config of the layer with this path, or of the nearest enclosing one that has a place."""
    layer: Layer = network
    place = "layers"
    for name in path.split(".") if path else ():
        layer = layer.children()[name]
        place = layer.place or place
    return place
