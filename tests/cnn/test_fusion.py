"""Fused layers compute the same as the layers one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnn import Mode, Sequential, build_model, ops
from cnn.gradients.finite_differences import relative_error
from cnn.graphs.fusion import NormPoolReLU, ResidualReLU, fuse
from cnn.layers.activation import ReLU
from cnn.layers.norm import BatchNorm
from tests.cnn.case import distinct, normal
from tests.cnn.oracle import Entry, randomised
from tests.cnn.test_models import CLIP, MODELS, layers_of


def differences(network: Sequential, x: torch.Tensor, mode: Mode) -> dict[str, float]:
    """How far y, dx, the parameters' gradients and the buffers of the fused network are from the plain one's."""
    found: list[dict[str, torch.Tensor]] = []
    buffers = [(buffer.data, buffer.data.clone()) for _, buffer in network.named_buffers()]
    for candidate in (network, fuse(network)):
        network.flat.grad.zero_()
        for data, before in buffers:
            data.copy_(before)
        y, cache = candidate.forward(x, mode)
        dx = candidate.backward(normal(tuple(y.shape), 3).to(y.dtype), cache)
        assert dx is not None
        state = {name: buffer.data.clone() for name, buffer in network.named_buffers()}
        found.append({"y": y, "dx": dx, "gradients": network.flat.grad.clone(), **state})
    return {name: relative_error(found[1][name], value) for name, value in found[0].items() if value.numel()}


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """A batch_norm with what may follow it, in either order, and some that don't fuse."""
    kernel = draw(st.integers(1, 3))
    pool: dict[str, Any] = {"kernel_size": kernel, "padding": kernel // 2, "ceil_mode": draw(st.booleans())}
    if draw(st.booleans()):
        pool["stride"] = draw(st.integers(1, 3))
    after: list[Entry] = draw(st.permutations(["relu", {"max_pool2d": pool}]))
    affine = draw(st.booleans())
    return [
        {"batch_norm": {"affine": affine}},
        *after[: draw(st.integers(0, 2))],
        *draw(st.sampled_from([[], ["relu"]])),
    ]


@given(entries(), st.integers(1, 3), st.integers(3, 6), st.sampled_from([1, 3, 17]), st.booleans())
def test_drawn_sequences(layers: list[Entry], channels: int, size: int, batch: int, train: bool) -> None:
    network = randomised(build_model({"layers": layers}, (channels, size, size)))
    for kernels in ("reference", "compiled"):
        with ops.kernels(kernels):  # type: ignore[arg-type]
            errors = differences(network, distinct((channels, size, size, batch), 1), Mode(train))
        assert max(errors.values()) <= 1e-9, errors


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_shipped_models(name: str, train: bool, kernel_set: str) -> None:
    shape = CLIP if name == "conv3d" else (1, 28, 28)
    network = randomised(build_model({"layers": layers_of(name)}, shape))
    errors = differences(network, normal((*shape, 9), 1), Mode(train))
    assert max(errors.values()) <= 1e-9, errors


@pytest.mark.parametrize("frozen", [[], ["residual_1"], ["residual_1.body.conv2d_1"]])
@pytest.mark.parametrize("out", [2, 3])
def test_a_residual_sum_with_its_relu(out: int, frozen: list[str], kernel_set: str) -> None:
    conv = {"conv2d": {"out_channels": out, "kernel_size": 3, "padding": 1}}
    body: Entry = {"residual": {"body": [conv, "batch_norm"]}}
    network = randomised(build_model({"layers": [body, "relu", "relu"]}, (2, 4, 4)))
    if frozen:
        network.freeze(frozen)
    assert list(fuse(network).layers) == ["residual_1+relu_1", "relu_2"]
    errors = differences(network, normal((2, 4, 4, 5), 1), Mode(train=True))
    assert max(errors.values()) <= 1e-9, errors


@pytest.mark.parametrize("name", ["seed8", "blocks", "lenet", "resnet13"])
def test_what_is_fused(name: str) -> None:
    """Every batch_norm with a ReLU or a pool after it; the network itself isn't changed."""
    network = build_model({"layers": layers_of(name)}, (1, 28, 28))
    names = list(network.state())
    fused = fuse(network)
    counts = {"seed8": 5, "blocks": 2, "lenet": 2, "resnet13": 7}
    assert sum(isinstance(layer, NormPoolReLU) for _, layer in fused.named_layers()) == counts[name]
    sums = 6 if name == "resnet13" else 0
    assert sum(isinstance(layer, ResidualReLU) for _, layer in fused.named_layers()) == sums
    assert list(network.state()) == names
    assert not any(isinstance(layer, NormPoolReLU) for _, layer in network.named_layers())


def test_layers_of_derived_classes_are_left_alone() -> None:
    class Doubled(ReLU):
        def forward(self, x: torch.Tensor, mode: Mode) -> Any:
            y, cache = super().forward(x, mode)
            return 2 * y, cache

    class Shifted(Sequential):
        def forward(self, x: torch.Tensor, mode: Mode) -> Any:
            return self.layers["relu_1"].forward(self.layers["batch_norm_1"].forward(x, mode)[0] + 1, mode)

    for network in (Sequential([BatchNorm(), Doubled()]), Shifted([BatchNorm(), ReLU()])):
        assert list(fuse(network).layers) == ["batch_norm_1", "relu_1"]


def test_what_is_fused_stays_as_it_is_when_fused_again() -> None:
    once = fuse(Sequential([BatchNorm(), ReLU()]))
    twice = fuse(once)
    assert [type(layer) for _, layer in twice.named_layers()] == [type(layer) for _, layer in once.named_layers()]
