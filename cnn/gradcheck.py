"""Any layer or network against finite differences: is the hand-written backward the derivative of the forward?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cnn.layer import Cache, Layer, Mode

STEP = 1e-5
"""Half the width of a central difference: its error is of the order STEP^2, its rounding noise 1e-16 / STEP."""

DY_STREAM = 0x5EED
"""Keeps dy apart from an x of the same seed: for dy proportional to x the gradient of a normalisation vanishes."""


def gradcheck(layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0) -> dict[str, float]:
    """The relative error of the gradient of the input, under the name `x`, and of each parameter.

    The layer has to be bound in float64, and x [C, *S, N] to be drawn away from kinks and ties. What is differentiated
    is sum(dy * y) with a random dy, so that no gradient passes for being constant. Overwrites parameters' gradients.
    """
    x = x.clone(memory_format=torch.contiguous_format)
    forward = _repeatable(layer, mode)
    y, cache = forward(x, mode)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(DY_STREAM + seed), dtype=x.dtype)
    for _, parameter in layer.named_parameters():
        parameter.grad.zero_()
    dx = layer.backward(dy, cache)
    assert dx is not None
    quiet = Mode(mode.train, keep_cache=False, generator=mode.generator)

    def value() -> float:
        return float((dy * forward(x, quiet)[0]).sum())

    noise = torch.finfo(x.dtype).eps * float((dy * y).abs().sum()) / STEP
    errors = {"x": relative_error(dx, finite_differences(value, x), noise)}
    for name, parameter in layer.named_parameters():
        errors[name] = relative_error(parameter.grad, finite_differences(value, parameter.data), noise)
    return errors


def _repeatable(layer: Layer, mode: Mode) -> Callable[[Tensor, Mode], tuple[Tensor, Cache]]:
    """A forward pass that leaves buffers and the generator as they were, so that each call draws the same noise."""
    buffers = [(buffer.data, buffer.data.clone()) for _, buffer in layer.named_buffers()]
    noise = None if mode.generator is None else mode.generator.get_state()

    def forward(x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        if mode.generator is not None and noise is not None:
            mode.generator.set_state(noise)
        result = layer.forward(x, mode)
        for data, before in buffers:
            data.copy_(before)
        return result

    return forward


def finite_differences(value: Callable[[], float], tensor: Tensor) -> Tensor:
    """The gradient of `value()` with respect to a tensor, (f(t + h) - f(t - h)) / 2h; the tensor is restored."""
    gradient = torch.empty_like(tensor).flatten()
    entries = tensor.view(-1)
    for index in range(entries.numel()):
        before = entries[index].item()
        entries[index] = before + STEP
        above = value()
        entries[index] = before - STEP
        below = value()
        entries[index] = before
        gradient[index] = (above - below) / (2 * STEP)
    return gradient.view(tensor.shape)


def relative_error(found: Tensor, expected: Tensor, noise: float = 0.0) -> float:
    """max |found - expected| / max |expected|; 0 where they differ by no more than `noise`.

    Noise matters where a gradient is zero: that of a bias before a normalisation, say, which takes it away again.
    """
    difference = float((found - expected).abs().max())
    return 0.0 if difference <= noise else difference / max(float(expected.abs().max()), torch.finfo(found.dtype).tiny)
