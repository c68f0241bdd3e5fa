"""Optimizers against torch's over many steps, from saved states too, and along finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn import Parameter, ops
from cnn.arguments import construct
from cnn.clipping import clip_grad_norm
from cnn.faults import ConfigError
from cnn.gradients.finite_differences import finite_differences, relative_error
from cnn.graphs.graph import FlatParameters
from cnn.initializers import zeros
from cnn.optimizers import OPTIMIZERS, Optimizer
from tests.cnn import ledger

KERNEL_SETS: tuple[ops.KernelSet, ...] = ("compiled", "reference")

PEERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


def flat(values: Tensor, decayed: int) -> FlatParameters:
    """These values as all the parameters of a network, the first ones weights and the others biases."""
    sizes = {True: decayed, False: len(values) - decayed}
    parameters = [Parameter((size,), zeros, decay=decay) for decay, size in sizes.items()]
    vectors = FlatParameters(parameters, values.dtype, "cpu")
    vectors.data.copy_(values)
    return vectors


def make(kind: str, arguments: dict[str, Any]) -> Optimizer:
    optimizer: Optimizer = construct(OPTIMIZERS[kind], arguments)
    return optimizer


def test_every_optimizer_has_a_peer() -> None:
    assert set(PEERS) == set(OPTIMIZERS)


@st.composite
def arguments(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Arguments that torch's optimizer of this kind takes as well."""
    drawn: dict[str, Any] = {"lr": draw(st.sampled_from([1e-3, 0.01, 0.3]))}
    if draw(st.booleans()):
        drawn["weight_decay"] = draw(st.sampled_from([0.0, 0.01, 0.2]))
    if kind == "sgd":
        drawn["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        drawn["dampening"] = draw(st.sampled_from([0.0, 0.3]))
        drawn["nesterov"] = draw(st.booleans()) and drawn["momentum"] > 0 and drawn["dampening"] == 0
    if kind in ("adam", "adamw") and draw(st.booleans()):
        drawn["betas"] = draw(st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.8, 0.0)]))
        drawn["eps"] = draw(st.sampled_from([1e-8, 1e-3]))
    if kind == "adagrad":
        drawn["lr_decay"] = draw(st.sampled_from([0.0, 0.1, 2.0]))
        drawn["initial_accumulator_value"] = draw(st.sampled_from([0.0, 0.5]))
        drawn["eps"] = draw(st.sampled_from([1e-10, 1e-3]))
    if kind == "rmsprop":
        drawn["alpha"] = draw(st.sampled_from([0.5, 0.9, 0.99]))
        drawn["momentum"] = draw(st.sampled_from([0.0, 0.9]))
        drawn["centered"] = draw(st.booleans())
        drawn["eps"] = draw(st.sampled_from([1e-8, 1e-3]))
    return drawn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", PEERS)
@settings(max_examples=50)
@given(data=st.data(), seed=st.integers(0, 1000), size=st.integers(1, 40), decay_all=st.booleans())
def test_25_steps_against_torch(
    kind: str, dtype: torch.dtype, data: st.DataObject, seed: int, size: int, decay_all: bool
) -> None:
    drawn = data.draw(arguments(kind))
    kernels = data.draw(st.sampled_from(KERNEL_SETS))
    decayed = data.draw(st.integers(0, size))
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, generator=generator, dtype=dtype)
    ours = flat(start, decayed)
    weights, biases = (part.clone().requires_grad_() for part in (start[:decayed], start[decayed:]))
    optimizer = make(kind, {**drawn, "decay_all": decay_all})
    groups = [{"params": [weights]}, {"params": [biases], **({} if decay_all else {"weight_decay": 0.0})}]
    peer = PEERS[kind](groups, **drawn)
    for step in range(25):
        gradient = torch.randn(size, generator=generator, dtype=dtype)
        lr = drawn["lr"] * math.exp(-0.1 * step)
        for group in peer.param_groups:
            group["lr"] = lr
        weights.grad, biases.grad = gradient[:decayed].clone(), gradient[decayed:].clone()
        peer.step()
        ours.grad.copy_(gradient)
        with ops.kernels(kernels):
            optimizer.step(ours, lr)
        assert torch.equal(ours.grad, gradient)
    expected = torch.cat([weights, biases]).detach()
    ledger.drawn["optimizer"] += 1
    origin = start if dtype == torch.float64 else 0  # what was moved, where there are digits to see it by
    error = relative_error(ours.data - origin, expected - origin)
    ledger.check("optimizer", ledger.against_torch(dtype), {kind: error})


EVERYTHING: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"weight_decay": 0.1},
    "adamw": {},
    "adagrad": {"lr_decay": 0.1, "weight_decay": 0.1},
    "rmsprop": {"momentum": 0.9, "centered": True, "weight_decay": 0.1},
}
"""Arguments with which each rule does all that it can."""


@pytest.mark.parametrize("before", [0, 1, 7])
@pytest.mark.parametrize("kind", PEERS)
def test_a_saved_state_goes_on_with_the_same_steps(kind: str, before: int) -> None:
    generator = torch.Generator().manual_seed(3)
    first = flat(torch.randn(9, generator=generator, dtype=torch.float64), 5)
    optimizer, later = make(kind, EVERYTHING[kind]), make(kind, EVERYTHING[kind])

    def step(optimizer: Optimizer, vectors: FlatParameters, seed: int) -> None:
        gradient = torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        vectors.grad.copy_(gradient)
        optimizer.step(vectors, 0.01 / (seed + 1))

    for seed in range(before):
        step(optimizer, first, seed)
    second = flat(first.data, 5)
    later.load_state(optimizer.state())
    for seed in range(before, before + 5):
        step(optimizer, first, seed)
        step(later, second, seed)
        assert torch.equal(first.data, second.data)
    assert optimizer.state().keys() == later.state().keys()


@pytest.mark.parametrize(
    "state", [{}, {"steps": 3}, {"steps": 3, "velocity": torch.zeros(3)}, {"steps": 3, "mean": 1, "square": 2}], ids=str
)
def test_a_state_of_another_rule_is_refused(state: dict[str, Tensor | int]) -> None:
    adam = make("adam", {})
    adam.step(flat(torch.zeros(3), 3), 0.1)
    before = adam.state()
    with pytest.raises(ValueError, match="doesn't fit adam"):
        adam.load_state(state)
    assert adam.state() == before


@pytest.mark.parametrize("kind", PEERS)
def test_descends_a_quadratic_along_finite_differences(kind: str) -> None:
    """The gradients come from finite differences of the loss alone: the steps must lead to its minimum."""
    point = flat(torch.tensor([3.0, -2.0], dtype=torch.float64), 1)
    target = torch.tensor([0.5, 1.0], dtype=torch.float64)
    lr = 1.0 if kind == "adagrad" else 0.1
    optimizer = make(kind, {"lr": lr, "weight_decay": 0.0})
    for step in range(600):
        gradient = finite_differences(lambda: float((point.data - target).square().sum()), point.data)
        point.grad.copy_(gradient)
        optimizer.step(point, lr * math.exp(-0.01 * step))
    assert torch.allclose(point.data, target, atol=1e-3)


def test_nesterov_wants_momentum_and_no_dampening() -> None:
    for wrong in ({}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(ConfigError, match="nesterov: true requires a momentum above 0 and a dampening of 0"):
            make("sgd", {"nesterov": True, **wrong})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@given(seed=st.integers(0, 1000), size=st.integers(1, 40), max_norm=st.floats(1e-3, 20))
def test_clipping_against_torch(dtype: torch.dtype, tolerance: float, seed: int, size: int, max_norm: float) -> None:
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    parts = [torch.zeros_like(part).requires_grad_() for part in gradient.tensor_split(2)]
    for part, values in zip(parts, gradient.tensor_split(2), strict=True):
        part.grad = values.clone()
    expected = torch.nn.utils.clip_grad_norm_(parts, max_norm)
    norm = clip_grad_norm(gradient, max_norm)
    assert relative_error(norm, expected) <= tolerance
    assert relative_error(gradient, torch.cat([part.grad for part in parts if part.grad is not None])) <= tolerance
