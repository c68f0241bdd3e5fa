"""Optimizers against torch's over many steps, and against their formulas; schedules against theirs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cnn import Parameter
from cnn.gradcheck import finite_differences, relative_error
from cnn.graph import FlatParameters
from cnn.initializers import zeros
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.schedules import SCHEDULES, Schedule

PEERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def flat(values: Tensor) -> FlatParameters:
    """These values as all the parameters of a network."""
    parameters = FlatParameters([Parameter(tuple(values.shape), zeros, decay=True)], values.dtype, "cpu")
    parameters.data.copy_(values)
    return parameters


def test_every_optimizer_has_a_peer() -> None:
    assert set(PEERS) == set(OPTIMIZERS)


@st.composite
def arguments(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    drawn: dict[str, Any] = {"lr": draw(st.sampled_from([1e-3, 0.01, 0.3]))}
    if kind == "adam" and draw(st.booleans()):
        drawn["betas"] = draw(st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.8, 0.0)]))
        drawn["eps"] = draw(st.sampled_from([1e-8, 1e-3]))
    return drawn


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("kind", PEERS)
@given(data=st.data(), seed=st.integers(0, 1000), size=st.integers(1, 40))
def test_twenty_steps_against_torch(
    kind: str, dtype: torch.dtype, tolerance: float, data: st.DataObject, seed: int, size: int
) -> None:
    drawn = data.draw(arguments(kind))
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, generator=generator, dtype=dtype)
    ours, theirs = flat(start), start.clone().requires_grad_()
    optimizer: Optimizer = OPTIMIZERS[kind](**drawn)
    peer = PEERS[kind]([theirs], **drawn)
    for step in range(20):
        gradient = torch.randn(size, generator=generator, dtype=dtype)
        lr = drawn["lr"] * math.exp(-0.1 * step)
        peer.param_groups[0]["lr"] = lr
        theirs.grad = gradient.clone()
        peer.step()
        ours.grad.copy_(gradient)
        optimizer.step(ours, lr)
        assert torch.equal(ours.grad, gradient)
    assert relative_error(ours.data - start, theirs.detach() - start) <= tolerance


@pytest.mark.parametrize("kind", PEERS)
def test_descends_a_quadratic_along_finite_differences(kind: str) -> None:
    """The gradients come from finite differences of the loss alone: the steps must lead to its minimum."""
    point = flat(torch.tensor([3.0, -2.0], dtype=torch.float64))
    target = torch.tensor([0.5, 1.0], dtype=torch.float64)
    optimizer = OPTIMIZERS[kind](lr=0.1)  # type: ignore[call-arg]
    for step in range(400):
        gradient = finite_differences(lambda: float((point.data - target).square().sum()), point.data)
        point.grad.copy_(gradient)
        optimizer.step(point, 0.1 * math.exp(-0.01 * step))
    assert torch.allclose(point.data, target, atol=1e-3)


def test_schedules() -> None:
    constant: Schedule = SCHEDULES["constant"]()
    exponential = SCHEDULES["exponential"](rate=-0.08, min_lr=0.006)  # type: ignore[call-arg]
    assert [constant(0.01, epoch) for epoch in (0, 5)] == [0.01, 0.01]
    assert exponential(0.01, 0) == 0.01
    assert math.isclose(exponential(0.01, 3), 0.01 * math.exp(-0.24))
    assert exponential(0.01, 9) == 0.006


@given(st.floats(-0.5, 0.5), st.floats(1e-4, 1), st.integers(0, 30))
def test_exponential_against_torch(rate: float, lr: float, epochs: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    peer = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=math.exp(rate))
    ours = SCHEDULES["exponential"](rate)  # type: ignore[call-arg]
    for epoch in range(epochs):
        assert math.isclose(ours(lr, epoch), peer.get_last_lr()[0], rel_tol=1e-9)
        optimizer.step()
        peer.step()
