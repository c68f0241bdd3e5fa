"""Every layer, on both kernel sets: gradients against finite differences, passes in both precisions against torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cnn import Layer, Mode, ops
from cnn.gradcheck import gradcheck
from cnn.layers import LAYERS
from tests.cnn.oracle import bound, compare

KERNEL_SETS: tuple[ops.KernelSet, ...] = ("compiled", "reference")


@dataclass
class Case:
    """A layer, the shape of one input, the batch, torch's layer, and how to draw an input away from kinks."""

    make: Callable[[], Layer]
    input_shape: tuple[int, ...]
    batch: int
    peer: Callable[[], Any]
    draw: Callable[[tuple[int, ...], int], Tensor]
    train: bool = True

    def __repr__(self) -> str:
        layer = self.make()
        return f"{layer.kind} {vars(layer)} on {list(self.input_shape)} x {self.batch}, train={self.train}"


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def off_zero(shape: tuple[int, ...], seed: int) -> Tensor:
    """Away from the kink at 0."""
    x = normal(shape, seed)
    return x + 0.1 * x.sign()


def distinct(shape: tuple[int, ...], seed: int) -> Tensor:
    """No two values closer than 0.01: no ties."""
    count = int(torch.Size(shape).numel())
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (order.double() * 0.01 - count * 0.005).view(shape)


sizes = st.integers(1, 7)
batches = st.sampled_from([1, 2, 3, 5])


@st.composite
def convolutions(draw: st.DrawFn, axes: int) -> Case:
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    kernel, stride, padding = per_axis(1, 3), per_axis(1, 3), per_axis(0, 2)
    size = tuple(
        draw(st.integers(max(1, k - 2 * p), 6 if axes == 2 else 4)) for k, p in zip(kernel, padding, strict=True)
    )
    channels, filters, bias = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.booleans())
    scalar = draw(st.booleans()) and len({*kernel}) == len({*stride}) == len({*padding}) == 1
    arguments = [value[0] if scalar else value for value in (kernel, stride, padding)]
    return Case(
        lambda: LAYERS[f"conv{axes}d"](filters, *arguments, bias=bias),  # type: ignore[call-arg]
        (channels, *size),
        draw(batches),
        lambda: getattr(nn, f"Conv{axes}d")(channels, filters, kernel, stride, padding, bias=bias),
        normal,
    )


@st.composite
def max_pools(draw: st.DrawFn, axes: int) -> Case:
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    kernel, stride = per_axis(1, 3), draw(st.none() | st.tuples(*[st.integers(1, 3)] * axes))
    size = tuple(draw(st.integers(k, 7 if axes == 2 else 5)) for k in kernel)
    return Case(
        lambda: LAYERS[f"max_pool{axes}d"](kernel, stride),  # type: ignore[call-arg]
        (draw(st.integers(1, 3)), *size),
        draw(batches),
        lambda: getattr(nn, f"MaxPool{axes}d")(kernel, stride),
        distinct,
    )


@st.composite
def batch_norms(draw: st.DrawFn) -> Case:
    channels, size = draw(st.integers(1, 4)), draw(st.lists(st.integers(1, 4), max_size=3))
    batch = draw(st.integers(-(-8 // int(torch.Size(size).numel())), 12))
    momentum, eps = draw(st.sampled_from([0.1, 0.0, 0.7])), draw(st.sampled_from([1e-5, 1e-2]))
    peer = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][len(size)]
    return Case(
        lambda: LAYERS["batch_norm"](eps, momentum),  # type: ignore[call-arg]
        (channels, *size),
        batch,
        lambda: peer(channels, eps, momentum),
        normal,
        train=draw(st.booleans()),
    )


@st.composite
def linears(draw: st.DrawFn) -> Case:
    features, outputs, bias = draw(sizes), draw(sizes), draw(st.booleans())
    return Case(
        lambda: LAYERS["linear"](outputs, bias),  # type: ignore[call-arg]
        (features,),
        draw(batches),
        lambda: nn.Linear(features, outputs, bias),
        normal,
    )


@st.composite
def without_parameters(draw: st.DrawFn, kind: str) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    if kind == "softmax":
        shape = (shape[0] + 1, *shape[1:])  # over one class the gradient is 0, and so is what errors are measured by
    peers = {"relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(dim=1), "flatten": nn.Flatten()}
    return Case(LAYERS[kind], shape, draw(batches), lambda: peers[kind], off_zero)


CASES = {
    "conv2d": convolutions(2),
    "conv3d": convolutions(3),
    "max_pool2d": max_pools(2),
    "max_pool3d": max_pools(3),
    "batch_norm": batch_norms(),
    "linear": linears(),
    **{kind: without_parameters(kind) for kind in ("flatten", "relu", "sigmoid", "softmax")},
}


def test_every_layer_has_cases() -> None:
    assert set(CASES) == set(LAYERS)


@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("kind", CASES)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_gradients_against_finite_differences(kind: str, kernels: Any, data: st.DataObject, seed: int) -> None:
    case = data.draw(CASES[kind])
    x = case.draw((*case.input_shape, case.batch), seed)
    with ops.kernels(kernels):
        errors = gradcheck(bound(case.make(), case.input_shape, seed=seed), x, Mode(case.train), seed=seed)
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("kind", CASES)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_passes_against_torch(
    kind: str, kernels: Any, dtype: torch.dtype, tolerance: float, data: st.DataObject, seed: int
) -> None:
    case = data.draw(CASES[kind])
    x = case.draw((*case.input_shape, case.batch), seed).to(dtype)
    with ops.kernels(kernels):
        errors = compare(bound(case.make(), case.input_shape, dtype, seed), case.peer(), x, Mode(case.train))
    assert max(errors.values()) <= tolerance, errors


@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("kind", CASES)
@given(data=st.data())
def test_inputs_are_read_only_and_flags_are_obeyed(kind: str, kernels: Any, data: st.DataObject) -> None:
    case = data.draw(CASES[kind])
    network = bound(case.make(), case.input_shape)
    x = case.draw((*case.input_shape, case.batch), 3)
    layer = network.layers["layer"]
    with ops.kernels(kernels):
        y, cache = layer.forward(x, Mode(case.train))
        dy = normal(tuple(y.shape), 4)
        copies = x.clone(), dy.clone()
        whole = layer.backward(dy, cache)
        assert torch.equal(x, copies[0])
        assert torch.equal(dy, copies[1])
        once = network.flat.grad.clone()
        _, cache = layer.forward(x, Mode(case.train))
        alone = layer.backward(dy, cache, need_dparams=False)
        assert torch.equal(network.flat.grad, once)
        assert whole is not None
        assert alone is not None
        assert torch.equal(whole, alone)
        _, cache = layer.forward(x, Mode(case.train))
        assert layer.backward(dy, cache, need_dx=False) is None
        assert torch.allclose(network.flat.grad, 2 * once, rtol=1e-12)  # added, not assigned


def test_batch_norm_refuses_one_value_a_channel() -> None:
    network = bound(LAYERS["batch_norm"](), (3,))
    with pytest.raises(ValueError, match="one value a channel"):
        network.forward(normal((3, 1), 0), Mode(train=True))


def test_batch_norm_of_large_means_stays_exact() -> None:
    """Mean 1000, deviation 1: one-pass variances lose all their digits here in float32."""
    x = (normal((2, 20000), 0) + 1000).float()
    for kernels in KERNEL_SETS:
        with ops.kernels(kernels):
            y, _ = bound(LAYERS["batch_norm"](), (2,), torch.float32).layers["layer"].forward(x, Mode(train=True))
            assert not y.isnan().any()
            _, _, var = ops.batch_norm(x, torch.ones(2), torch.zeros(2), 1e-5)
        assert torch.allclose(var, x.double().var(1, correction=0).float(), rtol=1e-4)


def test_sigmoid_and_softmax_at_the_ends() -> None:
    x = torch.tensor([[-1000.0], [0.0], [1000.0]])
    sigmoid, _ = LAYERS["sigmoid"]().forward(x, Mode(train=False))
    softmax, _ = LAYERS["softmax"]().forward(x, Mode(train=False))
    assert sigmoid.flatten().tolist() == [0.0, 0.5, 1.0]
    assert softmax.flatten().tolist() == [0.0, 0.0, 1.0]
