"""PyTorch's layers as the oracle, seen through our batch-last layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cnn import Graph, Layer, Mode, Sequential
from cnn.gradcheck import relative_error


def bound(layer: Layer, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Sequential:
    """A network of one layer. Parameters that start as constants are made random: a bias of zero hides mistakes."""
    network = Sequential({"layer": layer})
    network.build(input_shape)
    network.bind(seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    for _, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(parameter.data + 0.5 * noise.to(dtype))
    for name, buffer in network.named_buffers():
        noise = torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
        buffer.data.copy_((noise + 0.5 if name.endswith("var") else noise).to(dtype))
    return network


def theirs(x: Tensor) -> Tensor:
    """[C, *S, N] as [N, C, *S]."""
    return x.movedim(-1, 0).contiguous()


def ours(x: Tensor) -> Tensor:
    """[N, C, *S] as [C, *S, N]."""
    return x.movedim(0, -1).contiguous()


def copy_state(network: Graph, module: nn.Module) -> None:
    """Our parameters and buffers into a torch module: same names within a layer, same shapes, same order of layers."""
    state = {key: tensor for key, tensor in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    own = list(network.state().items())
    named = [name.split(".")[-2:] for name, _ in own]
    order = sorted(range(len(own)), key=lambda i: list(network.layers).index(named[i][0]))
    with torch.no_grad():
        for (key, target), index in zip(state.items(), order, strict=True):
            assert key.endswith(named[index][1])
            target.copy_(own[index][1])


def compare(network: Sequential, module: nn.Module | Callable[..., Any], x: Tensor, mode: Mode) -> dict[str, float]:
    """The relative errors of output, input gradient, parameter gradients and buffers against torch's."""
    if isinstance(module, nn.Module):
        module.to(x.dtype)
        copy_state(network, module)
        module.train(mode.train)
    network.flat.grad.zero_()
    y, cache = network.forward(x, mode)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
    dx = network.backward(dy, cache)
    leaf = theirs(x).requires_grad_()
    expected = module(leaf)
    expected.backward(theirs(dy))
    assert dx is not None
    assert leaf.grad is not None
    errors = {"y": relative_error(y, ours(expected.detach())), "dx": relative_error(dx, ours(leaf.grad))}
    if isinstance(module, nn.Module):
        gradients = dict(module.named_parameters())
        for name, parameter in network.named_parameters():
            gradient = gradients[name.split(".")[-1]].grad
            assert gradient is not None
            errors[f"d{name}"] = relative_error(parameter.grad, gradient)
        buffers = dict(module.named_buffers())
        for name, buffer in network.named_buffers():
            errors[name] = relative_error(buffer.data, buffers[name.split(".")[-1]])
    return errors
