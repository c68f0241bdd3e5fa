"""Spectral normalisation: steps of training against torch's, passes in flight, freezing, and what may be in it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn import Mode, Sequential, build_model, ops
from cnn.faults import ConfigError
from cnn.gradients.finite_differences import relative_error
from cnn.graphs.fusion import fuse
from cnn.graphs.spectral_norm import SpectralNorm
from cnn.layers.activation import ReLU
from cnn.layers.linear import Linear
from cnn.summary import summarise
from tests.cnn.case import normal
from tests.cnn.oracle import Entry, copy_state, ours, randomised, sequence, their_tensors, theirs
from tests.cnn.test_layers import KERNEL_SETS

LAYERS: list[tuple[Entry, tuple[int, ...]]] = [
    ({"linear": {"out_features": 5}}, (7,)),
    ({"linear": {"out_features": 7, "bias": False}}, (3,)),
    ({"conv1d": {"out_channels": 4, "kernel_size": 3}}, (3, 9)),
    ({"conv2d": {"out_channels": 6, "kernel_size": 3, "groups": 2, "padding": 1}}, (4, 5, 5)),
    ({"conv3d": {"out_channels": 3, "kernel_size": 2}}, (2, 3, 3, 3)),
    ({"conv_transpose2d": {"out_channels": 4, "kernel_size": 3, "stride": 2, "groups": 2}}, (6, 4, 4)),
    ({"conv_transpose1d": {"out_channels": 5, "kernel_size": 3}}, (2, 6)),
]


def wrapped(entry: Entry, **arguments: Any) -> Entry:
    return {"spectral_norm": {"layers": [entry], **arguments}}


def made(entry: Entry, shape: tuple[int, ...], **arguments: Any) -> Sequential:
    return randomised(build_model({"layers": [wrapped(entry, **arguments)]}, shape))


def norm_of(network: Sequential) -> SpectralNorm:
    layer = network.layers["spectral_norm_1"]
    assert isinstance(layer, SpectralNorm)
    return layer


def unsettle(network: Sequential) -> None:
    """u and v far from the singular vectors, with length 1."""
    for _, buffer in network.named_buffers():
        vector = normal(tuple(buffer.shape), 5).to(buffer.data)
        buffer.data.copy_(vector / vector.norm())


@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize(("entry", "shape"), LAYERS, ids=lambda value: str(value)[:24])
def test_several_steps_of_training_are_torchs(
    entry: Entry, shape: tuple[int, ...], iterations: int, kernels: ops.KernelSet
) -> None:
    """From u and v that haven't converged: outputs, gradients and buffers, and then evaluation."""
    network = made(entry, shape, n_power_iterations=iterations)
    unsettle(network)
    module = sequence([wrapped(entry, n_power_iterations=iterations)], shape).double()
    copy_state(network, module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with ops.kernels(kernels):
        for step, train in enumerate([True] * 5 + [False]):
            module.train(train)
            network.flat.grad.zero_()
            optimizer.zero_grad()
            x = normal((*shape, 4), step)
            y, cache = network.forward(x, Mode(train))
            dy = normal(tuple(y.shape), step + 50)
            dx = network.backward(dy, cache)
            leaf = theirs(x).requires_grad_()
            expected = module(leaf)
            expected.backward(theirs(dy))
            assert dx is not None
            assert leaf.grad is not None
            errors = [relative_error(y, ours(expected.detach())), relative_error(dx, ours(leaf.grad))]
            errors += [relative_error(own, wanted) for own, wanted in zip(*tensors(network, module), strict=True)]
            assert max(errors) <= 1e-9
            network.flat.data.sub_(network.flat.grad, alpha=0.1)
            optimizer.step()


def tensors(network: Sequential, module: torch.nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of parameters and buffers, ours and theirs, in the same order."""
    layer = norm_of(network)
    found = [layer.u.data, layer.v.data, *(parameter.grad for _, parameter in layer.named_parameters())]
    wanted = [tensor.grad if isinstance(tensor, torch.nn.Parameter) else tensor for _, tensor in their_tensors(module)]
    return found, [tensor for tensor in wanted if tensor is not None]


@pytest.mark.parametrize(("entry", "shape"), LAYERS, ids=lambda value: str(value)[:24])
def test_a_bound_network_has_the_singular_vectors_of_its_weight(entry: Entry, shape: tuple[int, ...]) -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        layer = norm_of(build_model({"layers": [wrapped(entry)]}, shape, dtype=dtype))
        matrix = layer._as_matrix(layer._layer.weight.data)
        sigma = torch.linalg.matrix_norm(matrix, 2)
        assert torch.allclose(matrix @ layer.v.data, sigma * layer.u.data, atol=tolerance)
        assert torch.allclose(matrix.t() @ layer.u.data, sigma * layer.v.data, atol=tolerance)
        again = norm_of(build_model({"layers": [wrapped(entry)]}, shape, dtype=dtype))
        assert torch.equal(again.u.data, layer.u.data)


def test_two_forward_passes_in_flight() -> None:
    entry, shape = LAYERS[3]
    network = made(entry, shape)
    unsettle(network)
    x, dy = normal((*shape, 3), 0), normal((6, 5, 5, 3), 1)
    _, alone = network.dry_run(x, Mode(train=True))
    network.backward(dy, alone)
    expected = network.flat.grad.clone()
    _, first = network.forward(x, Mode(train=True))
    _, second = network.forward(x, Mode(train=True))
    network.flat.grad.zero_()
    network.backward(dy, second, need_dparams=False)
    assert not network.flat.grad.any()
    network.backward(dy, first)
    assert torch.equal(network.flat.grad, expected)


@pytest.mark.parametrize("frozen", ["spectral_norm_1", "spectral_norm_1.linear_1"])
def test_a_frozen_layer_keeps_weight_and_vectors(frozen: str) -> None:
    network = made(*LAYERS[0])
    unsettle(network)
    before = {name: tensor.clone() for name, tensor in network.state().items()}
    network.freeze([frozen])
    assert not network.layers["spectral_norm_1"].is_trained()
    assert len(network.flat.trained.data) == 0
    y, cache = network.forward(normal((7, 4), 0), Mode(train=True))
    assert network.backward(normal(tuple(y.shape), 1), cache) is not None
    assert not network.flat.grad.any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state().items())


def test_weight_decay_and_the_gain_are_those_of_the_layer_in_it() -> None:
    conv = {"conv2d": {"out_channels": 3, "kernel_size": 3}}
    network = build_model({"layers": [conv, "tanh", wrapped(conv), "relu"]}, (2, 8, 8))
    assert network.flat.decayed == 2 * 3 * 9 + 3 * 3 * 9
    layer = norm_of(network)._layer
    assert layer.gain == pytest.approx(2**0.5)
    assert [name for name, _ in network.named_parameters()][2:] == [
        "spectral_norm_1.conv2d_1.weight",
        "spectral_norm_1.conv2d_1.bias",
    ]


def test_summary_and_operations_are_those_of_the_layer_in_it() -> None:
    entry, shape = LAYERS[3]
    bare = build_model({"layers": [entry]}, shape)
    network = build_model({"layers": [wrapped(entry)]}, shape)
    assert network.flops(shape) == bare.flops(shape)
    (row,), (expected,) = summarise(network), summarise(bare)
    assert row.name == "spectral_norm_1.conv2d_1"
    assert (row.output_shape, row.parameters, row.flops) == (
        expected.output_shape,
        expected.parameters,
        expected.flops,
    )


def test_fused_networks_share_the_vectors(kernel_set: str) -> None:
    conv = {"conv2d": {"out_channels": 3, "kernel_size": 3}}
    layers = [wrapped(conv), "batch_norm", "relu", wrapped(conv), "relu"]
    network = randomised(build_model({"layers": layers}, (2, 8, 8)))
    other = copy.deepcopy(network)
    fused = fuse(network)
    x, dy = normal((2, 8, 8, 4), 0), normal((3, 4, 4, 4), 1)
    for _ in range(2):
        results = []
        for graph in (fused, other):
            y, cache = graph.forward(x, Mode(train=True))
            dx = graph.backward(dy, cache)
            assert dx is not None
            results.append((y, dx))
        assert torch.allclose(results[0][0], results[1][0])
        assert torch.allclose(results[0][1], results[1][1])
    assert torch.allclose(network.flat.grad, other.flat.grad)
    for (_, ours_after), (_, expected) in zip(network.named_buffers(), other.named_buffers(), strict=True):
        assert torch.allclose(ours_after.data, expected.data)


@pytest.mark.parametrize("layers", [[], [ReLU()], [Linear(2), Linear(2)], [Sequential([Linear(2)])]])
def test_other_layers_are_refused(layers: list[Any]) -> None:
    with pytest.raises(ConfigError, match="is not allowed, give one layer with a weight, such as conv2d"):
        SpectralNorm(layers)


def test_faults_are_reported_once() -> None:
    with pytest.raises(ConfigError) as error:
        build_model({"layers": [{"spectral_norm": {"layers": ["conv"], "eps": 0.0}}]}, (1, 6, 6))
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("layers.0.spectral_norm.eps: 0.0 is not allowed")
    assert lines[1].startswith("layers.0.spectral_norm.layers.0: unknown layer 'conv'")
    with pytest.raises(ConfigError, match=r"^layers\.0\.spectral_norm\.layers: relu, relu is not allowed"):
        build_model({"layers": [{"spectral_norm": {"layers": ["relu", "relu"]}}]}, (1, 6, 6))
