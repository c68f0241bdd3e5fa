"""Which backend computes: the fastest one that has the function for such tensors, else the reference."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn import ops
from cnn.ops import cpu, reference
from cnn.ops.backend import choose
from tests.cnn.windows import normal, running, square


def file_of(function: Callable[..., Any]) -> str:
    return function.__module__.rpartition(".")[2]


@pytest.mark.parametrize("function", cpu.FUNCTIONS, ids=lambda function: str(function.__name__))
def test_front_reference_and_backend_have_the_same_functions(function: Callable[..., Any]) -> None:
    name = function.__name__
    twin = getattr(sys.modules[f"{reference.__name__}.{file_of(function)}"], name)
    assert inspect.signature(function) == inspect.signature(twin)
    front = getattr(ops, name)
    assert file_of(front) == file_of(function)
    assert list(inspect.signature(front).parameters) == list(inspect.signature(twin).parameters)
    for dtype in (torch.float32, torch.float64):
        assert choose(twin, torch.zeros(1, dtype=dtype)) is function


def test_reference_on_request_and_for_types_that_nobody_else_serves() -> None:
    x = normal(2, 4, 4, 3).to(torch.bfloat16)
    assert ops.relu(x).dtype == torch.bfloat16
    assert ops.max_pool(x, square(2, 2))[0].shape == (2, 2, 2, 3)
    relu = sys.modules["cnn.ops.reference.activation"].relu
    assert choose(relu, x) is relu
    assert choose(relu, x.float()) is not relu
    with ops.kernels("reference"):
        assert choose(relu, x.float()) is relu


@contextmanager
def registered(backend: ops.Backend) -> Iterator[None]:
    ops.register(backend)
    try:
        yield
    finally:
        ops.remove(backend)


def test_a_third_backend_serves_one_operation_and_the_reference_the_rest() -> None:
    """It also computes its part of a fused operation that it lacks."""
    calls = []

    def relu(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return x.clamp(min=0)

    def serves(device: str, dtype: torch.dtype) -> bool:
        return device == "cpu" and dtype == torch.bfloat16

    x, (weight, bias) = normal(3, 8).to(torch.bfloat16), torch.ones(2, 3, dtype=torch.bfloat16)
    with registered(ops.Backend("third", serves, {"relu": relu})):
        assert torch.equal(ops.relu(x), x.clamp(min=0))
        assert torch.equal(ops.relu_backward(x, x), x.clamp(min=0))
        ops.relu(x.float())
        with ops.kernels("reference"):
            ops.relu(x)
        assert calls == [(3, 8)]
        after = ops.PoolReLU(None, rectify=True)
        y, *_ = ops.norm_pool_relu(x, weight, bias, running(weight), after, training=True)
        assert calls == [(3, 8), (3, 8)]
        plain, _ = ops.batch_norm(x, weight, bias, running(weight), training=True)
        assert torch.equal(y, plain.clamp(min=0))
    ops.relu(x)
    assert len(calls) == 2


def test_of_two_backends_the_one_with_the_higher_priority_computes() -> None:
    def backend(priority: int) -> ops.Backend:
        return ops.Backend(f"{priority}", lambda device, dtype: True, {"relu": lambda x: x * priority}, priority)

    x = torch.ones(1)
    with registered(backend(3)), registered(backend(2)):
        assert ops.relu(x).item() == 3
    with registered(backend(-1)):  # lower than the CPU's
        assert ops.relu(x).item() == 1
        assert ops.relu(x.to(torch.bfloat16)).item() == -1
