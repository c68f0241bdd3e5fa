"""From configs to networks, and every mistake with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from cnn import ConfigError, Layer, Mode, build_model
from cnn.layers import LAYERS

CONV = {"out_channels": 4, "kernel_size": 3}


def problems(layers: object, input_shape: Sequence[int] = (1, 28, 28)) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_model({"layers": layers}, input_shape)
    return [str(fault) for fault in caught.value.faults]


def test_the_example_of_the_design() -> None:
    net = build_model(
        {"layers": [{"conv2d": {"out_channels": 4, "kernel_size": 3}}, "relu"]},
        input_shape=(1, 28, 28),
        seed=0,
        dtype=torch.float64,
        device="cpu",
    )
    x = torch.randn(1, 28, 28, 5, dtype=torch.float64)
    y, cache = net.forward(x, Mode(train=True))
    assert y.shape == (4, 26, 26, 5)
    dx = net.backward(torch.randn_like(y), cache)
    assert dx is not None
    assert dx.shape == x.shape
    for _, parameter in net.named_parameters():
        assert parameter.grad.any()


def test_names_are_counted_or_given() -> None:
    network = build_model(
        {"layers": [{"conv2d": {**CONV, "name": "stem"}}, "relu", {"conv2d": CONV}, {"relu": None}]}, (1, 9, 9)
    )
    assert list(network.layers) == ["stem", "relu_1", "conv2d_2", "relu_2"]


def test_sizes_for_each_axis() -> None:
    layers = [{"conv3d": {"out_channels": 2, "kernel_size": [1, 2, 3], "stride": [1, 1, 2], "padding": [0, 1, 0]}}]
    assert build_model({"layers": layers}, (1, 4, 5, 9)).output_shape((1, 4, 5, 9)) == (2, 4, 6, 4)


def test_all_faults_are_told_at_once() -> None:
    layers: list[Any] = [
        {"conv2dd": CONV},
        {"conv2d": {"out_chanels": 4, "kernel_size": 0, "bias": 1}},
        {"linear": {"out_features": True}},
        7,
        {"relu": 3},
        {"conv2d": {**CONV, "kernel_size": [3, 3, 3]}},
        {"max_pool2d": {"kernel_size": 2, "name": "a.b"}},
        {"batch_norm": {"eps": float("nan"), "momentum": 1.5}},
        {"relu": {}, "flatten": {}},
    ]
    told = problems(layers)
    assert [line.split(":")[0] for line in told] == [
        "layers.0",
        "layers.1.conv2d.out_channels",
        "layers.1.conv2d.kernel_size",
        "layers.1.conv2d.bias",
        "layers.1.conv2d.out_chanels",
        "layers.2.linear.out_features",
        "layers.3",
        "layers.4.relu",
        "layers.5.conv2d.kernel_size",
        "layers.6.max_pool2d.name",
        "layers.7.batch_norm.eps",
        "layers.7.batch_norm.momentum",
        "layers.8",
    ]
    assert "did you mean conv2d?" in told[0]
    assert told[1].endswith("missing, give a whole number >= 1")
    assert "did you mean out_channels?" in told[4]
    assert told[5].endswith("true is not allowed, give a whole number >= 1")
    assert told[8].endswith("[3, 3, 3] names 3 axes, give one number or 2")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            [{"conv2d": {**CONV, "kernel_size": 40}}],
            "layers.0.conv2d: conv2d_1 kernel 40x40 is larger than the input [1, 28, 28]",
        ),
        (
            ["relu", {"linear": {"out_features": 2}}],
            "layers.1.linear: linear_1 takes [features], got input [1, 28, 28]: put a flatten",
        ),
        (["flatten", {"conv2d": CONV}], "layers.1.conv2d: conv2d_1 takes [channels, height, width], got input [784]"),
        ([{"conv3d": CONV}], "layers.0.conv3d: conv3d_1 takes [channels, depth, height, width], got input [1, 28, 28]"),
        ([{"max_pool2d": {"kernel_size": 29, "name": "end"}}], "layers.0.max_pool2d: end kernel 29x29 is larger"),
    ],
)
def test_shape_errors_name_layer_shape_and_reason(layers: list[Any], expected: str) -> None:
    (line,) = problems(layers)
    assert line.startswith(expected)


@pytest.mark.parametrize("layers", [None, [], "relu", {"relu": {}}, 3])
def test_layers_must_be_a_list(layers: object) -> None:
    (line,) = problems(layers)
    assert line.startswith("layers: ")
    assert line.endswith("give a list of at least one layer")


def test_a_name_stands_once() -> None:
    (line,) = problems([{"relu": {"name": "a"}}, {"sigmoid": {"name": "a"}}])
    assert line == "layers.1.sigmoid.name: a is taken already"


def test_a_layer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Double(Layer):
        kind = "double"

        def forward(self, x, mode):  # type: ignore[no-untyped-def]
            return 2 * x, mode.keep()

        def backward(self, dy, cache, *, need_dx=True, need_dparams=True):  # type: ignore[no-untyped-def]
            cache.take()
            return 2 * dy if need_dx else None

    monkeypatch.setitem(LAYERS, "double", Double)
    network = build_model({"layers": ["double", {"double": {"name": "again"}}]}, (3,))
    y, cache = network.forward(torch.ones(3, 2), Mode(train=False))
    assert (y == 4).all()
    dx = network.backward(y, cache)
    assert dx is not None
    assert (dx == 16).all()
