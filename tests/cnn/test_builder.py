"""From configs to networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cnn import Layer, Mode, Residual, build_model
from cnn.layers import LAYERS

CONV = {"out_channels": 4, "kernel_size": 3}


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


def test_graphs_inside_of_graphs() -> None:
    block = {"residual": {"body": [{"conv2d": {**CONV, "padding": 1}}, "batch_norm", "relu"], "name": "block"}}
    layers = [
        block,
        {"repeat": {"times": 2, "layers": [{"concat": {"branches": [["identity"], ["relu"]]}}]}},
        "flatten",
    ]
    network = build_model({"layers": layers}, (1, 6, 6))
    assert network.output_shape((1, 6, 6)) == (16 * 36,)
    names = [name for name, _ in network.named_parameters()]
    assert names == [
        "block.body.conv2d_1.weight",
        "block.body.conv2d_1.bias",
        "block.body.batch_norm_1.weight",
        "block.body.batch_norm_1.bias",
        "block.shortcut.conv2d_1.weight",
        "block.shortcut.batch_norm_1.weight",
        "block.shortcut.batch_norm_1.bias",
    ]
    paths = [path for path, _ in network.named_layers()]
    assert "repeat_1.2.concat_1.2.relu_1" in paths


def test_repeated_layers_have_parameters_of_their_own() -> None:
    network = build_model({"layers": [{"repeat": {"times": 3, "layers": [{"linear": {"out_features": 5}}]}}]}, (5,))
    parameters = dict(network.named_parameters())
    assert len(parameters) == 6
    assert not torch.equal(parameters["repeat_1.1.linear_1.weight"].data, parameters["repeat_1.2.linear_1.weight"].data)


@pytest.mark.parametrize(
    ("body", "shape", "shortcut"),
    [
        ([{"conv2d": {**CONV, "padding": 1}}], (4, 9, 9), None),
        ([{"conv2d": {**CONV, "padding": 1}}], (2, 9, 9), (1, 1)),
        ([{"conv2d": {**CONV, "padding": 1, "stride": [2, 3]}}], (2, 9, 8), (2, 3)),
        ([{"conv3d": {**CONV, "padding": 1, "stride": 2}}], (1, 4, 5, 6), (2, 2, 2)),
        ([{"conv1d": {**CONV, "padding": 1, "stride": 2}}], (1, 4), (2,)),
    ],
)
def test_an_automatic_shortcut(body: list[Any], shape: tuple[int, ...], shortcut: tuple[int, ...] | None) -> None:
    network = build_model({"layers": [{"residual": {"body": body}}]}, shape)
    (residual,) = network.layers.values()
    found = residual.children().get("shortcut")
    assert (found and found.children()[f"conv{len(shape) - 1}d_1"].window.stride) == shortcut  # type: ignore[attr-defined]


def test_an_automatic_shortcut_between_features() -> None:
    network = build_model({"layers": [{"residual": {"body": [{"linear": {"out_features": 3}}]}}]}, (5,))
    assert "residual_1.shortcut.linear_1.weight" in dict(network.named_parameters())


def test_asking_for_a_shape_changes_nothing() -> None:
    residual = Residual([LAYERS["conv2d"](4, 3, padding=1)])  # type: ignore[call-arg]
    assert residual.output_shape((8, 6, 6)) == (4, 6, 6)
    assert list(residual.children()) == ["body"]
    residual.build((4, 6, 6))
    assert list(residual.children()) == ["body"]


def test_a_last_layer_is_left_out_where_it_stands() -> None:
    layers = ["flatten", {"repeat": {"times": 2, "layers": [{"linear": {"out_features": 3}}, "softmax"]}}]
    shortened = build_model({"layers": layers}, (2, 2)).without_last("softmax")
    assert [path for path, layer in shortened.named_layers() if layer.kind == "softmax"] == ["repeat_1.1.softmax_1"]


@pytest.mark.parametrize("more", [{}, {"stride": 2}, {"dilation": 2, "padding_mode": "reflect"}])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_valid_padding_is_none(axes: int, more: dict[str, Any]) -> None:
    x = torch.randn(2, *(7,) * axes, 3, generator=torch.Generator().manual_seed(0))
    ys = []
    for padding in ("valid", 0):
        layer = {f"conv{axes}d": {"out_channels": 4, "kernel_size": 3, "padding": padding, **more}}
        network = build_model({"layers": [layer]}, tuple(x.shape[:-1]))
        ys.append(network.forward(x, Mode(train=False))[0])
    assert torch.equal(*ys)
