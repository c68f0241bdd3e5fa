"""The summary of a network, which is measured with the reference's kernels whichever train."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from cnn import build_model
from cnn.summary import summarise

LAYERS = [
    {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
    "batch_norm",
    {"max_pool2d": {"kernel_size": 2}},
    "relu",
    {"conv2d": {"out_channels": 4, "kernel_size": 3}},
    "batch_norm",
    "leaky_relu",
    {"dropout": {"p": 0.5}},
    "flatten",
    {"linear": {"out_features": 10}},
]


def test_compiled_kernels_keep_as_much_as_the_summary_says(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model({"layers": LAYERS}, (1, 12, 12), seed=0)
    expected = summarise(network)
    assert sum(row.cache_bytes for row in expected) > 1000
    monkeypatch.setattr("cnn.summary.kernels", lambda name: nullcontext())
    assert summarise(network) == expected
