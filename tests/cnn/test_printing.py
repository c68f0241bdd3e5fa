"""`print(net)` shows a network as a config would, and building what it shows gives the same network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn import Layer, Mode, Residual, Sequential, build_model
from cnn.graphs.fusion import fuse
from cnn.layers import LAYERS
from cnn.layers.activation import ReLU
from cnn.layers.conv import Conv2d
from cnn.layers.rectifiers import ELU
from cnn.text import yaml as to_yaml
from tests.cnn.cases import FAMILIES
from tests.cnn.test_models import CLIP, MODELS
from tests.cnn.test_trajectory import shipped


def shapes(network: Sequential) -> list[tuple[str, Any]]:
    return [(name, parameter.shape) for name, parameter in network.named_parameters()]


def check(network: Sequential) -> None:
    """Names, arguments and shapes are the same after printing and building, and so is every value."""
    again = build_model(yaml.safe_load(str(network)), network.input_shape, dtype=network.flat.data.dtype)
    assert str(again) == str(network)
    assert shapes(again) == shapes(network)
    assert [name for name, _ in again.named_layers()] == [name for name, _ in network.named_layers()]
    assert torch.equal(again.flat.data, network.flat.data)


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models(name: str) -> None:
    shape = CLIP if name == "conv3d" else (1, 28, 28)
    network = build_model(shipped(name), shape)
    check(network)
    assert yaml.safe_load(str(network))["layers"] == shipped(name)["layers"]  # which say no defaults


@pytest.mark.parametrize("kind", [kind for family in FAMILIES.values() for kind in family])
@settings(max_examples=10)
@given(data=st.data())
def test_every_layer_with_any_arguments(kind: str, data: st.DataObject) -> None:
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    network = build_model({"layers": [case.entry], "init": "xavier_normal"}, case.input_shape)
    check(network)
    (layer,) = network.layers.values()
    (entry,) = build_model({"layers": [yaml.safe_load(to_yaml(layer.entry()))]}, case.input_shape).layers.values()
    assert entry.entry() == layer.entry()


def test_what_is_shown() -> None:
    layers: list[Any] = [
        {"conv2d": {"out_channels": 4, "kernel_size": [3, 1], "bias": False, "stride": 1, "name": "stem"}},
        {"batch_norm": {"eps": 1e-12}},
        "relu",
        {"residual": {"body": ["tanh"], "shortcut": "identity"}},
        {"concat": {"branches": [["identity"], [{"elu": {"alpha": 0.5}}, {"relu": {"name": "on"}}]]}},
        {"repeat": {"times": 2, "layers": ["flatten", {"linear": {"out_features": 3}}]}},
    ]
    assert str(build_model({"layers": layers}, (1, 5, 5))) == (
        "layers:\n"
        "  - conv2d: {out_channels: 4, kernel_size: [3, 1], bias: false, name: stem}\n"
        "  - batch_norm: {eps: 1.0e-12}\n"
        "  - relu\n"
        "  - residual: {body: [tanh], shortcut: identity}\n"
        "  - concat:\n"
        "      branches:\n"
        "        - [identity]\n"
        "        - - elu: {alpha: 0.5}\n"
        "          - relu: {name: 'on'}\n"
        "  - repeat:\n"
        "      times: 2\n"
        "      layers:\n"
        "        - flatten\n"
        "        - linear: {out_features: 3}"
    )


def test_layers_made_by_hand() -> None:
    assert repr(ReLU()) == "relu"
    assert repr(ELU(0.5)) == "elu: {alpha: 0.5}"
    assert repr(ELU(alpha=1.0)) == "elu"
    assert repr(Conv2d(4, 3, padding="same")) == "conv2d: {out_channels: 4, kernel_size: 3, padding: same}"
    assert repr(Residual([ELU(2.0)])) == "residual:\n  body:\n    - elu: {alpha: 2.0}"
    assert str(Sequential({"first": ReLU(), "relu_2": ReLU()})) == "layers:\n  - relu: {name: first}\n  - relu"


def test_a_layer_of_ones_own_and_its_copies() -> None:
    class Scale(Layer):
        kind = "scale"

        def __init__(self, power: int = 1) -> None:
            self.power = power

    class Square(Scale):
        kind = "square"

        def __init__(self, name_of_it: str = "x") -> None:
            super().__init__(2)

    assert repr(Scale()) == "scale"
    assert repr(Scale(3)) == "scale: {power: 3}"
    assert repr(Square("it's")) == "square: {name_of_it: 'it''s'}"
    for copied in (copy.copy(Scale(3)), copy.deepcopy(Scale(3))):
        assert repr(copied) == "scale: {power: 3}"


def test_a_fused_network_is_shown_as_it_was_written() -> None:
    network = build_model(shipped("resnet13"), (1, 28, 28))
    assert str(fuse(network)) == str(network)
    network.forward(torch.zeros(1, 28, 28, 2), Mode(train=True))  # the layers run as before
    assert str(copy.deepcopy(network)) == str(network)


def test_constructors_keep_their_signatures() -> None:
    with pytest.raises(TypeError, match="kernel_size"):
        LAYERS["conv2d"](4)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "value",
    [
        *(1, -3, 2.5, 1e-7, -1e-300, 1e30, float("inf"), -float("inf"), True, False, None),
        *("none", "no", "null", "kaiming_normal", "a b", "it's", "", "1", "[x", "a: b", "#", "~", "-"),
        *([], {}, [1, [2, 3]], {"a": [1.0, "off"]}, [{"a": 1}, "b", [["c"], [{"d": {}}]]], {"a": {"b": {"c": []}}}),
    ],
    ids=str,
)
def test_yaml_is_read_as_it_was_meant(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value
    assert type(yaml.safe_load(to_yaml(value))) is type(value)
