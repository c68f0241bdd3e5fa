"""Every mistake in a model, with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cnn import ConfigError, build_model

CONV = {"out_channels": 4, "kernel_size": 3}


def problems(layers: object, input_shape: Sequence[int] = (1, 28, 28)) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_model({"layers": layers}, input_shape)
    return [str(fault) for fault in caught.value.faults]


def test_all_faults_are_reported_at_once() -> None:
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
    lines = problems(layers)
    assert [line.split(":")[0] for line in lines] == [
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
    assert "did you mean conv2d?" in lines[0]
    assert "did you mean out_channels?" in lines[3]
    assert lines[4].endswith("true is not allowed, give a whole number >= 1")
    assert lines[7].endswith("[3, 3, 3] has 3 numbers, give one or 2")


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
    assert line == "layers.1.sigmoid.name: a is already taken"


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
            "layers.0.residual: residual_1 has a body that turns [1, 6, 6] into [36], which no stride of a 1x1",
        ),
        (
            [{"residual": {"body": [{"upsample": {"scale_factor": 2}}]}}],
            "layers.0.residual: residual_1 has a body that turns [1, 6, 6] into [1, 12, 12], which no stride",
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
            "layers.1.max_pool1d: max_pool1d_1 has windows that lie entirely in the padding on the input [36, 1]",
        ),
        ([{"prelu": {"num_parameters": 2}}], "layers.0.prelu: prelu_1 has 2 slopes for 1 channels: give 1 or one for"),
        ([{"group_norm": {"num_groups": 3}}], "layers.0.group_norm: group_norm_1 has 3 groups, which don't divide"),
        ([{"reshape": {"shape": [5, -1]}}], "layers.0.reshape: reshape_1 [5, -1] can't hold the 36 values"),
        (
            [{"upsample": {"scale_factor": 2, "mode": "trilinear"}}],
            "layers.0.upsample: upsample_1 has mode trilinear for 2 spatial axes: use bilinear",
        ),
        ([{"pixel_shuffle": {"upscale_factor": 2}}], "layers.0.pixel_shuffle: pixel_shuffle_1 has upscale_factor 2, "),
        ([{"upsample": {"scale_factor": [2]}}], "layers.0.upsample: upsample_1 takes channels and 1 spatial axes"),
        (["flatten", "instance_norm"], "layers.1.instance_norm: instance_norm_1 needs more than one value per channel"),
        (["dropout3d"], "layers.0.dropout3d: dropout3d_1 takes [channels, depth, height, width], got input [1, 6, 6]"),
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
        ({"conv2d": {**CONV, "padding": "full"}}, "each a whole number >= 0 or one of same, valid"),
        ({"conv_transpose2d": {**CONV, "output_padding": 1}}, "output_padding: 1x1 has to be smaller than stride or"),
        ({"max_pool2d": {"kernel_size": 3, "padding": 2}}, "padding: 2x2 is more than half of the kernel, 3x3"),
        ({"max_pool2d": {"kernel_size": 3, "padding": "valid"}}, "padding: 'valid' is not allowed, give a whole"),
        ({"avg_pool2d": {"kernel_size": [2, 2, 2]}}, "kernel_size: [2, 2, 2] has 3 numbers, give one or 2"),
        ({"reshape": {"shape": [-1, -1]}}, "shape: [-1, -1] is not allowed, give extents >= 1 and at most one -1"),
        ({"dropout": {"p": 1.5}}, "p: 1.5 is not allowed, give a number >= 0"),
        ({"gelu": {"approximate": "fast"}}, "give one of none, tanh"),
        ({"linear": {"out_features": 2, "init": "he"}}, "give one of kaiming_normal, kaiming_uniform, xavier_normal"),
    ],
)
def test_arguments_that_are_not_allowed(entry: Any, expected: str) -> None:
    (line,) = problems([entry])
    assert expected in line


def test_numbers_beyond_all_sizes_and_names_in_another_case() -> None:
    (line,) = problems([{"conv2d": {"out_channels": 3_000_000_000, "kernel_size": 1}}])
    assert line.endswith("give a whole number >= 1, at most 2,147,483,647")
    (line,) = problems(["ReLU"])
    assert "did you mean relu?" in line
