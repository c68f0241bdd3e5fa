"""Grids stay within CUDA's limits for tensors that fit on a GPU, and nothing divides by an empty batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

from cnn.ops import PoolReLU, Route, Running, Window, cuda
from cnn.ops.cuda.launching import launched_by

MOST = 2**31 - 1, 65_535, 65_535
"""The largest grid along each axis."""

FUNCTIONS = cuda.BACKEND.functions
POOL = Window((2, 2), (2, 2), (1, 1), (0, 0), (0, 0))
SAME = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
Grid = tuple[int, ...]


@pytest.fixture
def grids() -> Iterator[list[Grid]]:
    """The grids of all launches, of which none is done."""
    found: list[Grid] = []
    with launched_by(lambda kernel, grid, *arguments, **options: found.append(grid)):
        yield found


def anywhere(*shape: int) -> Tensor:
    """A tensor that takes no memory."""
    return torch.empty(shape, device="meta")


def vectors(count: int, device: str = "meta") -> tuple[Tensor, ...]:
    return tuple(torch.ones(count, device=device) for _ in range(4))


def norm_and_pool(x: Tensor) -> None:
    weight, bias, mean, var = vectors(len(x), x.device.type)
    running, after = Running(mean, var, 0.1, 1e-5), PoolReLU(POOL, rectify=True)
    y, statistics, route = FUNCTIONS["norm_pool_relu"](x, weight, bias, running, after, training=True)
    FUNCTIONS["norm_pool_relu_backward"](y, x, statistics, weight, (mean, var), route)
    y, statistics = FUNCTIONS["batch_norm"](x, weight, bias, running, training=True)
    FUNCTIONS["norm_pool_relu_backward"](y, x, statistics, weight, None, Route(y, None))


def pools(x: Tensor) -> None:
    y, winner = FUNCTIONS["max_pool"](x, POOL)
    size = tuple(x.shape[1:-1])
    FUNCTIONS["max_pool_backward"](y, winner, size, POOL)
    FUNCTIONS["window_sum_backward"](FUNCTIONS["window_sum"](x, POOL), size, POOL)


def convolution(x: Tensor) -> None:
    weight = torch.ones(4, len(x), 3, 3, device=x.device)
    y = FUNCTIONS["conv"](x, weight, None, SAME, 1)
    FUNCTIONS["conv_backward_input"](y, weight, tuple(x.shape[1:-1]), SAME, 1)
    FUNCTIONS["add_conv_backward_weight"](x, y, SAME, weight, 1, None)


def linear(x: Tensor) -> None:
    x = x.flatten(0, -2)
    weight = torch.ones(4, len(x), device=x.device)
    y = FUNCTIONS["linear"](x, weight, None)
    FUNCTIONS["linear_backward_input"](y, weight)
    FUNCTIONS["add_linear_backward_weight"](x, y, weight, None)


def elementwise(x: Tensor) -> None:
    FUNCTIONS["add_relu"](FUNCTIONS["relu"](x), x)
    FUNCTIONS["note_not_finite"](x, torch.zeros((), dtype=torch.int32))


WORK = norm_and_pool, pools, convolution, linear, elementwise


@pytest.mark.parametrize("work", WORK)
def test_large_tensors(work: Callable[[Tensor], Any], grids: list[Grid]) -> None:
    """20 GB of a network for photographs: 512 of them, with 224 x 224 places."""
    work(anywhere(200, 224, 224, 512) if work is not linear else anywhere(3, 64, 64, 4096))
    assert grids
    for grid in grids:
        assert all(1 <= size <= most for size, most in zip(grid, MOST, strict=False)), grid


@pytest.mark.parametrize("work", WORK)
def test_an_empty_batch(work: Callable[[Tensor], Any], grids: list[Grid]) -> None:
    work(torch.zeros(3, 4, 6, 0))
    assert grids
