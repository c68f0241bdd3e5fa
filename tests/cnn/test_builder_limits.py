"""Models too large or too deep, and faults too many to read, are refused before they take time or memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cnn import ConfigError, Mode, build_model, plan_model
from tests.cnn.test_builder_faults import problems


def test_layers_that_repeat_without_end() -> None:
    inner = {"repeat": {"times": 1000, "layers": ["relu"]}}
    (line,) = problems([{"repeat": {"times": 1000, "layers": [inner]}}])
    assert line == "layers.0.repeat.times: 1000 times 2002 layers are more than 10,000"


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
        "layers.0.conv2d: conv2d_1 pads its input to [1, 200028, 200028], more than 268,435,456 values per example",
    ),
    "padding, strided": (
        [{"conv2d": {"out_channels": 1, "kernel_size": 1, "padding": 10**5, "stride": 10**5}}],
        (1, 28, 28),
        "layers.0.conv2d: conv2d_1 pads its input to",
    ),
    "output": (
        ["flatten", {"linear": {"out_features": 2**29}}],
        (1, 2, 2),
        "layers.1.linear: linear_1 gives [536870912], more than 268,435,456 values per example",
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
        "layers: 1.8e+13 operations per example, at most 1.1e+12 are allowed",
    ),
    "a pool over a dilated kernel": (
        [{"max_pool1d": {"kernel_size": 2**26, "padding": 2**26 - 1, "stride": 2, "dilation": 2}}],
        (1, 1),
        "layers.0.max_pool1d: max_pool1d_1 has windows that lie entirely in the padding",
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


def test_of_many_mistakes_the_first_hundred_are_reported() -> None:
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
