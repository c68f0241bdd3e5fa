"""From configs to networks, and every mistake with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from cnn import ConfigError, Layer, Mode, Residual, build_model, plan_model
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
        "layers.1.conv2d.kernel_size",
        "layers.1.conv2d.bias",
        "layers.1.conv2d.out_chanels",  # and not out_channels as well, which is missing
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
    assert "did you mean out_channels?" in told[3]
    assert told[4].endswith("true is not allowed, give a whole number >= 1")
    assert told[7].endswith("[3, 3, 3] names 3 axes, give one number or 2")


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


def test_faults_inside_of_graphs_have_their_whole_place() -> None:
    layers: list[Any] = [
        {"residual": {"body": [{"conv2d": {"out_channels": 0, "kernel_size": 3}}, "rellu"], "shortcut": "auot"}},
        {"concat": {"branches": [["relu"], [], [{"linear": {}}]]}},
        {"repeat": {"times": 0, "layers": "relu"}},
        {"sequential": {}},
        {"residual": {"body": 3, "more": 1}},
        {"concat": {"branches": "relu"}},
    ]
    assert [line.split(": ")[0] for line in problems(layers)] == [
        "layers.0.residual.shortcut",
        "layers.0.residual.body.0.conv2d.out_channels",
        "layers.0.residual.body.1",
        "layers.1.concat.branches.1",
        "layers.1.concat.branches.2.0.linear.out_features",
        "layers.2.repeat.times",
        "layers.2.repeat.layers",
        "layers.3.sequential.layers",
        "layers.4.residual.more",
        "layers.4.residual.body",
        "layers.5.concat.branches",
    ]
    assert problems(layers)[0].endswith("'auot' is not allowed, give one of auto, identity or a list of layers")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            [{"residual": {"body": ["relu", {"conv2d": {**CONV, "kernel_size": 9}}]}}],
            "layers.0.residual.body.1.conv2d: residual_1.body.conv2d_1 kernel 9x9 is larger than the input [1, 6, 6]",
        ),
        (
            [{"residual": {"body": [{"conv2d": {**CONV}}], "shortcut": "identity"}}],
            "layers.0.residual: residual_1 has a body that gives [4, 4, 4] and a shortcut that gives [1, 6, 6]",
        ),
        (
            [{"residual": {"body": ["flatten"]}}],
            "layers.0.residual: residual_1 has a body that makes [36] of [1, 6, 6], and no stride of a 1x1 convolution",
        ),
        (
            [{"residual": {"body": [{"upsample": {"scale_factor": 2}}]}}],
            "layers.0.residual: residual_1 has a body that makes [1, 12, 12] of [1, 6, 6], and no stride",
        ),
        (
            [{"concat": {"branches": [["relu"], [{"max_pool2d": {"kernel_size": 2}}]]}}],
            "layers.0.concat: concat_1 has branches of different sizes, [1, 6, 6], [1, 3, 3]",
        ),
        (
            [{"repeat": {"times": 3, "layers": [{"max_pool2d": {"kernel_size": 2, "name": "half"}}]}}],
            "layers.0.repeat.layers.0.max_pool2d: repeat_1.3.half kernel 2x2 is larger than the input [1, 1, 1]",
        ),
        (
            [{"conv2d": {**CONV, "dilation": 3}}],
            "layers.0.conv2d: conv2d_1 kernel 3x3 dilated to 7x7 is larger than the input [1, 6, 6]:",
        ),
        (
            [{"conv2d": {**CONV, "padding": 6, "padding_mode": "reflect"}}],
            "layers.0.conv2d: conv2d_1 reflect padding 6x6 reaches beyond the input [1, 6, 6]",
        ),
        ([{"conv2d": {**CONV, "groups": 2}}], "layers.0.conv2d: conv2d_1 has 2 groups, which don't divide"),
        (
            [{"reshape": {"shape": [36, 1]}}, {"max_pool1d": {"kernel_size": 2, "dilation": 2, "padding": 1}}],
            "layers.1.max_pool1d: max_pool1d_1 has windows that lie in the padding alone on the input [36, 1]",
        ),
        ([{"group_norm": {"num_groups": 3}}], "layers.0.group_norm: group_norm_1 has 3 groups, which don't divide"),
        ([{"reshape": {"shape": [5, -1]}}], "layers.0.reshape: reshape_1 [5, -1] can't hold the 36 values"),
        ([{"upsample": {"scale_factor": [2]}}], "layers.0.upsample: upsample_1 takes channels and 1 spatial axes"),
        (["flatten", "dropout2d"], "layers.1.dropout2d: dropout2d_1 takes [channels, height, width], got input [36]"),
        (["flatten", "global_avg_pool"], "layers.1.global_avg_pool: global_avg_pool_1 takes [channels, ...]"),
        (
            [{"conv_transpose2d": {**CONV, "kernel_size": 1, "padding": 3}}],
            "layers.0.conv_transpose2d: conv_transpose2d_1 padding leaves an output of 0x0",
        ),
    ],
)
def test_shape_errors_of_graphs_and_new_layers(layers: list[Any], expected: str) -> None:
    (line,) = problems(layers, (1, 6, 6))
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"conv2d": {**CONV, "padding": "same", "stride": 2}}, "padding: same needs stride 1, got 2x2"),
        ({"conv2d": {**CONV, "groups": 3}}, "groups: 3 doesn't divide out_channels 4"),
        ({"conv2d": {**CONV, "padding_mode": "mirror"}}, "give one of zeros, reflect, replicate, circular"),
        ({"conv2d": {**CONV, "padding": "valid"}}, "each a whole number >= 0 or same"),
        ({"conv_transpose2d": {**CONV, "output_padding": 1}}, "output_padding: 1x1 has to be smaller than stride or"),
        ({"max_pool2d": {"kernel_size": 3, "padding": 2}}, "padding: 2x2 is more than half of the kernel, 3x3"),
        ({"avg_pool2d": {"kernel_size": [2, 2, 2]}}, "kernel_size: [2, 2, 2] names 3 axes, give one number or 2"),
        ({"reshape": {"shape": [-1, -1]}}, "shape: [-1, -1] is not allowed, give extents >= 1 and at most one -1"),
        ({"dropout": {"p": 1.5}}, "p: 1.5 is not allowed, give a number >= 0"),
        ({"gelu": {"approximate": "fast"}}, "give one of none, tanh"),
        ({"linear": {"out_features": 2, "init": "he"}}, "give one of kaiming_normal, kaiming_uniform, xavier_normal"),
    ],
)
def test_arguments_that_are_not_allowed(entry: Any, expected: str) -> None:
    (line,) = problems([entry])
    assert expected in line


def test_layers_that_repeat_without_end() -> None:
    inner = {"repeat": {"times": 1000, "layers": ["relu"]}}
    (line,) = problems([{"repeat": {"times": 1000, "layers": [inner]}}])
    assert line == "layers.0.repeat.times: 1000 times 2002 layers are more than 10,000"


def test_asking_for_a_shape_changes_nothing() -> None:
    residual = Residual([LAYERS["conv2d"](4, 3, padding=1)])  # type: ignore[call-arg]
    assert residual.output_shape((8, 6, 6)) == (4, 6, 6)
    assert list(residual.children()) == ["body"]
    residual.build((4, 6, 6))
    assert list(residual.children()) == ["body"]


def test_numbers_beyond_all_sizes_and_names_in_another_case() -> None:
    (line,) = problems([{"conv2d": {"out_channels": 3_000_000_000, "kernel_size": 1}}])
    assert line.endswith("give a whole number >= 1, at most 2,147,483,647")
    (line,) = problems(["ReLU"])
    assert "did you mean relu?" in line


def test_a_last_layer_is_left_out_where_it_stands() -> None:
    layers = ["flatten", {"repeat": {"times": 2, "layers": [{"linear": {"out_features": 3}}, "softmax"]}}]
    shortened = build_model({"layers": layers}, (2, 2)).without_last("softmax")
    assert [path for path, layer in shortened.named_layers() if layer.kind == "softmax"] == ["repeat_1.1.softmax_1"]


def nested(depth: int) -> list[Any]:
    layers: list[Any] = ["relu"]
    for _ in range(depth):
        layers = [{"residual": {"body": layers}}]
    return layers


ABSURD: dict[str, tuple[list[Any], tuple[int, ...], str]] = {
    "input": (["flatten"], (1, 2**31 - 1, 2**31 - 1), "layers: the input has [1, 2147483647, 2147483647], more than"),
    "padding": (
        [{"conv2d": {"out_channels": 1, "kernel_size": 1, "padding": 10**5}}],
        (1, 28, 28),
        "layers.0.conv2d: conv2d_1 pads its input to [1, 200028, 200028], more than 268,435,456 values for one example",
    ),
    "padding, strided": (
        [{"conv2d": {"out_channels": 1, "kernel_size": 1, "padding": 10**5, "stride": 10**5}}],
        (1, 28, 28),
        "layers.0.conv2d: conv2d_1 pads its input to",
    ),
    "output": (
        ["flatten", {"linear": {"out_features": 2**29}}],
        (1, 2, 2),
        "layers.1.linear: linear_1 gives [536870912], more than 268,435,456 values for one example",
    ),
    "upsampled": (["relu", {"upsample": {"scale_factor": 2**20}}], (1, 28, 28), "layers.1.upsample: upsample_1 gives"),
    "transposed": (
        [{"conv_transpose2d": {"out_channels": 1, "kernel_size": 1, "stride": 2**20}}],
        (1, 28, 28),
        "layers.0.conv_transpose2d: conv_transpose2d_1 pads its output to",
    ),
    "operations": (
        [{"max_pool2d": {"kernel_size": 2047, "padding": 1023, "stride": 1}}],
        (1, 2048, 2048),
        "layers: 1.8e+13 operations for one example are more than 1.1e+12",
    ),
    "a pool over a dilated kernel": (
        [{"max_pool1d": {"kernel_size": 2**26, "padding": 2**26 - 1, "stride": 2, "dilation": 2}}],
        (1, 1),
        "layers.0.max_pool1d: max_pool1d_1 has windows that lie in the padding alone",
    ),
    "list": (["relu"] * 300_000, (1,), "layers.10000: the model has more than 10,000 layers"),
    "repeats": (
        [{"repeat": {"times": 1000, "layers": ["relu"] * 5}}] * 60,
        (1,),
        "layers.1: the model has more than 10,000 layers",
    ),
    "deep": (nested(21), (1,), "layers are nested more than 20 deep"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_models_are_refused_before_they_take_time_or_memory(name: str) -> None:
    layers, shape, message = ABSURD[name]
    with pytest.raises(ConfigError) as caught:
        plan_model({"layers": layers}, shape)
    (line,) = str(caught.value).splitlines()
    assert message in line
    assert len(line) < 500


def test_layers_may_be_nested_deep() -> None:
    network = build_model({"layers": nested(20)}, (1,))
    y, _ = network.forward(torch.ones(1, 1), Mode(train=False))
    assert y.item() == 21


def test_of_many_mistakes_the_first_hundred_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_model({"layers": ["relu2"] * 100_000}, (1,))
    assert len(caught.value.faults) == 101
    with pytest.raises(ConfigError) as caught:
        plan_model({"layers": [{"relu": {f"a{number}": 1 for number in range(10_000)}}]}, (1,))
    assert len(caught.value.faults) == 100


def test_a_name_that_is_not_ours_neither_fills_the_screen_nor_changes_it() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_model({"layers": [{"relu": {"\x1b[31m\nerror: " + "a" * 10**6: 1}}]}, (1,))
    (line,) = str(caught.value).splitlines()
    assert "\\x1b[31m\\nerror: aaa" in line
    assert "aaa..." in line
    assert len(line) < 500
