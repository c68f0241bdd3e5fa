"""Values where float32 rounds away what matters: tails of activations, means that are large next to the deviation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cnn import Mode, build_model, ops
from cnn.layers import LAYERS
from tests.cnn.case import normal
from tests.cnn.oracle import Entry, bound, compare, randomised, sequence
from tests.cnn.test_layers import KERNEL_SETS


def test_batch_norm_of_large_means_stays_exact() -> None:
    """Mean 1000, deviation 1: one-pass variances lose all their digits here in float32."""
    x = (normal((2, 20000), 0) + 1000).float()
    for kernels in KERNEL_SETS:
        with ops.kernels(kernels):
            y, _ = bound(LAYERS["batch_norm"](), (2,), torch.float32).layers["layer"].forward(x, Mode(train=True))
            assert not y.isnan().any()
            running = ops.Running(torch.zeros(2), torch.ones(2), momentum=0.1, eps=0.0)
            _, (_, rstd) = ops.batch_norm(x, torch.ones(2), torch.zeros(2), running, training=True)
        assert torch.allclose(rstd, x.double().var(1, correction=0).rsqrt().float(), rtol=1e-4)


NORMS: list[Entry] = [
    "batch_norm",
    "instance_norm",
    "layer_norm",
    {"group_norm": {"num_groups": 2}},
    {"group_norm": {"num_groups": 6}},
]


@pytest.mark.parametrize("entry", NORMS)
@pytest.mark.parametrize("constant", [3333.33, -123456.7, 0.1])
def test_norms_of_a_constant_are_zero(entry: Entry, constant: float, kernel_set: str) -> None:
    """A mean that is off by its rounding would be divided by the square root of eps."""
    x = torch.full((6, 7, 7, 33), constant)
    y, _ = build_model({"layers": [entry]}, (6, 7, 7)).forward(x, Mode(train=True))
    assert y.abs().max() < 1e-6
    if entry == "batch_norm":
        reduce = Mode(train=True, reduce=lambda tensor: None)  # a batch that could be split over processes
        assert build_model({"layers": [entry]}, (6, 7, 7)).forward(x, reduce)[0].abs().max() < 1e-6


@pytest.mark.parametrize("entry", NORMS)
def test_norms_of_a_small_deviation_from_a_large_mean(entry: Entry, kernel_set: str) -> None:
    """In float32 they are those of the same numbers in float64, but for the last digit of the mean."""
    x = (normal((6, 7, 7, 33), 0) + 3333.33).float()
    found, expected = (
        build_model({"layers": [entry]}, (6, 7, 7), dtype=dtype).forward(x.to(dtype), Mode(train=True))[0]
        for dtype in (torch.float32, torch.float64)
    )
    assert (found - expected).abs().max() < 4e-4


@pytest.mark.parametrize(
    "entry",
    [
        *("sigmoid", "softmax", "log_softmax", "tanh", "elu", "prelu", "softplus", "silu", "hard_swish"),
        {"gelu": {"approximate": "tanh"}},
    ],
)
def test_activations_at_the_ends(entry: Entry) -> None:
    """Where exponentials overflow or vanish, values and gradients are torch's, and none is NaN."""
    x = torch.tensor([[-1000.0, -80.0], [0.0, 1e-6], [1000.0, 30.0]])
    network = randomised(build_model({"layers": [entry]}, (3,)), torch.float32)
    assert max(compare(network, sequence([entry], (3,)), x, Mode(train=True)).values()) <= 1e-6


def elu(x: float) -> tuple[float, float]:
    return math.expm1(x), math.exp(x)


def softplus(x: float) -> tuple[float, float]:
    return math.log1p(math.exp(x)), math.exp(x) / (1 + math.exp(x))


def gelu(x: float) -> tuple[float, float]:
    probability = math.erfc(-x / math.sqrt(2)) / 2
    return x * probability, probability + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_by_tanh(x: float) -> tuple[float, float]:
    u, slope = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    probability = 1 / (1 + math.exp(-2 * u))
    return x * probability, probability + x * 2 * probability * (1 - probability) * slope


@pytest.mark.parametrize(
    ("entry", "exact", "start", "end"),
    [
        ("elu", elu, -80, -3),
        ("softplus", softplus, -80, -3),
        ({"gelu": {"approximate": "none"}}, gelu, -11, -3),
        ({"gelu": {"approximate": "tanh"}}, gelu_by_tanh, -9, -3),
    ],
)
def test_the_tails_of_activations_far_below_zero(entry: Entry, exact: Any, start: float, end: float) -> None:
    """Tiny values and gradients have the digits of float32, instead of being rounded away next to a 1."""
    x = torch.linspace(start, end, 50)[None]
    y, cache = (network := build_model({"layers": [entry]}, (1,))).forward(x, Mode(train=True))
    dy = normal((1, 50), 1).float()
    dx = network.backward(dy, cache)
    values, slopes = torch.tensor([exact(value) for value in x[0].tolist()], dtype=torch.float64).T
    assert torch.allclose(y[0].double(), values, rtol=1e-4, atol=0)
    assert dx is not None
    assert torch.allclose(dx[0].double(), slopes * dy[0], rtol=1e-4, atol=0)


def test_softplus_never_overflows() -> None:
    """Also with a threshold beyond the largest exponential, where torch gives infinity."""
    x = torch.tensor([[-1000.0, 0.0, 1000.0]])
    network = build_model({"layers": [{"softplus": {"threshold": 1e6}}]}, (1,))
    y, cache = network.forward(x, Mode(train=True))
    dx = network.backward(torch.ones_like(y), cache)
    assert y.tolist() == [[0.0, pytest.approx(math.log(2)), 1000.0]]
    assert dx is not None
    assert dx.tolist() == [[0.0, 0.5, 1.0]]
