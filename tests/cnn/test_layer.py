"""The contract: caches, modes, parameters and graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnn import Cache, Mode, Parameter, Sequential, ShapeError, build_model
from cnn.gradients.finite_differences import gradcheck, relative_error
from cnn.initializers import zeros
from cnn.layers import LAYERS
from tests.cnn.oracle import ours, theirs

SMALL = {"layers": [{"conv2d": {"out_channels": 3, "kernel_size": 3}}, "batch_norm", "relu", "flatten"]}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cache_is_consumed_once() -> None:
    network = build_model(SMALL, (1, 6, 6), dtype=torch.float64)
    y, cache = network.forward(normal(1, 6, 6, 2), Mode(train=True))
    network.backward(y, cache)
    with pytest.raises(RuntimeError, match="consumed by an earlier backward"):
        network.backward(y, cache)


def test_cache_that_was_not_kept_says_so() -> None:
    network = build_model(SMALL, (1, 6, 6), dtype=torch.float64)
    y, cache = network.forward(normal(1, 6, 6, 2), Mode(train=True, keep_cache=False))
    with pytest.raises(RuntimeError, match="keep_cache=False"):
        network.backward(y, cache)
    assert cache.nbytes == 0


def test_cache_counts_a_shared_storage_once() -> None:
    x = torch.zeros(10, dtype=torch.float64)
    assert Cache((x, x[1:], Cache((x.view(2, 5), torch.zeros(3, dtype=torch.float32))), 7)).nbytes == 80 + 12


def test_unbound_parameter_says_so() -> None:
    with pytest.raises(AttributeError, match="before the graph's root is bound"):
        Parameter((2, 3), zeros, decay=True).data  # noqa: B018


def test_parameters_are_views_of_two_vectors_with_decayed_ones_first() -> None:
    network = build_model(SMALL, (1, 6, 6))
    names = [name for name, _ in network.named_parameters()]
    assert names == ["conv2d_1.weight", "conv2d_1.bias", "batch_norm_1.weight", "batch_norm_1.bias"]
    assert [name for name, _ in network.named_buffers()] == ["batch_norm_1.running_mean", "batch_norm_1.running_var"]
    assert network.flat.decayed == 27
    assert network.flat.data.numel() == network.flat.grad.numel() == 27 + 3 * 3
    network.flat.data.fill_(2.0)
    network.flat.grad.fill_(3.0)
    for _, parameter in network.named_parameters():
        assert (parameter.data == 2).all()
        assert (parameter.grad == 3).all()
    first = dict(network.named_parameters())["conv2d_1.weight"]
    assert first.data.data_ptr() == network.flat.data.data_ptr()


def test_one_seed_gives_one_network_whatever_the_precision() -> None:
    single, double = (build_model(SMALL, (1, 6, 6), seed=3, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert torch.equal(single.flat.data, double.flat.data.float())
    assert not torch.equal(single.flat.data, build_model(SMALL, (1, 6, 6), seed=4).flat.data)


def test_a_layer_used_twice_gives_right_gradients(kernel_set: str) -> None:
    conv, norm = LAYERS["conv2d"](2, 3, padding=1), LAYERS["batch_norm"]()  # type: ignore[call-arg]
    network = Sequential([conv, norm, LAYERS["sigmoid"](), conv, norm])
    network.build((2, 5, 5))
    network.bind(dtype=torch.float64)
    assert len(list(network.named_parameters())) == 4
    assert list(network.layers) == ["conv2d_1", "batch_norm_1", "sigmoid_1", "conv2d_2", "batch_norm_2"]
    errors = gradcheck(network, normal(2, 5, 5, 3), Mode(train=True))
    assert max(errors.values()) <= 1e-6, errors


def test_a_layer_used_twice_on_unfit_inputs_says_so() -> None:
    conv = LAYERS["conv2d"](3, 3, padding=1)  # type: ignore[call-arg]
    with pytest.raises(ShapeError, match=r"conv2d_2: has a weight of shape \[3, 2, 3, 3\] from its first use"):
        Sequential([conv, conv]).build((2, 5, 5))


def test_two_forward_passes_before_one_backward(kernel_set: str) -> None:
    """The gradients of two batches add up, in whichever order their backward passes come."""
    network = build_model(SMALL, (1, 6, 6), dtype=torch.float64)
    inputs, gradients = [normal(1, 6, 6, 3, seed=s) for s in (1, 2)], [normal(48, 3, seed=s) for s in (3, 4)]
    expected = torch.zeros_like(network.flat.grad)
    alone = []
    for x, dy in zip(inputs, gradients, strict=True):
        network.flat.grad.zero_()
        _, cache = network.forward(x, Mode(train=True))
        alone.append(network.backward(dy, cache))
        expected += network.flat.grad
    network.flat.grad.zero_()
    caches = [network.forward(x, Mode(train=True))[1] for x in inputs]
    together = [network.backward(gradients[i], caches[i]) for i in (0, 1)]
    assert relative_error(network.flat.grad, expected) < 1e-12
    for found, wanted in zip(together, alone, strict=True):
        assert found is not None
        assert wanted is not None
        assert torch.equal(found, wanted)


def test_whole_network_against_autograd(kernel_set: str) -> None:
    """Two forward passes through a shared layer, then both backward, as autograd sums them."""
    network = build_model(SMALL, (1, 6, 6), dtype=torch.float64)
    conv, norm = nn.Conv2d(1, 3, 3).double(), nn.BatchNorm2d(3).double()
    state = network.state()
    with torch.no_grad():
        conv.weight.copy_(state["conv2d_1.weight"])
    inputs, gradients = [normal(1, 6, 6, 3, seed=s) for s in (1, 2)], [normal(48, 3, seed=s) for s in (3, 4)]
    for x, dy in zip(inputs, gradients, strict=True):
        norm(conv(theirs(x))).relu().flatten(1).backward(theirs(dy))
    network.flat.grad.zero_()
    caches = [network.forward(x, Mode(train=True))[1] for x in inputs]
    for dy, cache in reversed(list(zip(gradients, caches, strict=True))):
        network.backward(dy, cache, need_dx=False)
    found = dict(network.named_parameters())
    assert conv.weight.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert relative_error(found["conv2d_1.weight"].grad, conv.weight.grad) < 1e-9
    assert relative_error(found["batch_norm_1.weight"].grad, norm.weight.grad) < 1e-9
    assert relative_error(found["batch_norm_1.bias"].grad, norm.bias.grad) < 1e-9
    assert torch.allclose(ours(theirs(inputs[0])), inputs[0])


def test_need_dx_false_stops_below_the_first_parameters() -> None:
    layers = [LAYERS["flatten"](), LAYERS["relu"](), LAYERS["linear"](2), LAYERS["sigmoid"]()]  # type: ignore[call-arg]
    network = Sequential(layers)
    network.build((1, 3, 3))
    network.bind(dtype=torch.float64)
    _, cache = network.forward(normal(1, 3, 3, 4), Mode(train=True))
    inner = cache._values
    assert inner is not None
    assert network.backward(normal(2, 4), cache, need_dx=False) is None
    assert network.flat.grad.any()
    inner[0].take()  # nobody asked for the gradient of flatten and relu: their caches are untouched
    inner[1].take()


def test_load_state_refuses_another_network_and_changes_nothing() -> None:
    network, other = build_model(SMALL, (1, 6, 6)), build_model(SMALL, (2, 6, 6), seed=1)
    before = network.flat.data.clone()
    state = dict(other.state())
    del state["conv2d_1.bias"]
    state["more"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"conv2d_1.bias is missing; more is unknown; conv2d_1.weight has shape"):
        network.load_state(state)
    assert torch.equal(network.flat.data, before)
    twin = build_model(SMALL, (1, 6, 6), seed=9)
    network.load_state(twin.state())
    assert torch.equal(network.flat.data, twin.flat.data)
