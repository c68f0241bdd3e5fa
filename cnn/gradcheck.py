"""Any layer or network against finite differences: is the hand-written backward the derivative of the forward?

`gradcheck` compares every entry of every gradient; `directional` compares slopes along random directions, which takes a
few forward passes however large the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn.layer import Layer, Mode

STEP = 1e-5
"""Half the width of a central difference: its error is of the order STEP^2, its rounding noise 1e-16 / STEP."""

DIRECTION_STEP = 1e-6
"""The same along a direction, where all entries move at once: smaller, so that fewer kinks are crossed."""

NOISE_ERROR = 1e-6
"""What a difference as small as rounding noise may at most count for."""

DY_STREAM = 0x5EED
"""Keeps dy apart from an x of the same seed: for dy proportional to x the gradient of a normalisation vanishes."""


def gradcheck(layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0) -> dict[str, float]:
    """The relative error of the gradient of the input, under the name `x`, and of each parameter, entry by entry.

    The layer has to be bound in float64, and x [C, *S, N] to be drawn away from kinks and ties. What is differentiated
    is sum(dy * y) with a random dy, so that no gradient passes for being constant. Overwrites parameters' gradients.
    """
    probe = _probe(layer, x, mode, seed)
    return {
        name: relative_error(found, finite_differences(probe.value, tensor), probe.rounding / STEP)
        for name, (tensor, found) in probe.gradients.items()
    }


def directional(layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0, tries: int = 3) -> dict[str, float]:
    """As `gradcheck`, but of the slopes along random directions v, relative to the gradient's length.

    The error is |<found, v> - slope| / max(|found|, |slope|), v ~ N(0, 1), and the smallest of a few tries counts: a
    wrong gradient is wrong along every direction, a kink inside of a network is crossed along one. What makes up a
    share s of the gradient's length and is wrong shows as an error of about s.
    """
    probe = _probe(layer, x, mode, seed)
    generator = torch.Generator().manual_seed(seed)
    errors = {}
    for name, (tensor, found) in probe.gradients.items():
        tried = []
        for _ in range(tries):
            direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)
            slope = slope_along(probe.value, tensor, direction)
            difference = abs(float((found * direction).sum()) - slope)
            noise = probe.rounding / DIRECTION_STEP
            scale = max(float(found.square().sum().sqrt()), abs(slope), noise / NOISE_ERROR)
            tried.append(difference / scale if difference else 0.0)
        errors[name] = min(tried)
    return errors


@dataclass(frozen=True)
class _Probe:
    """sum(dy * y) as a function of the tensors it depends on, and the gradients that backward found for them."""

    value: Callable[[], float]
    gradients: dict[str, tuple[Tensor, Tensor]]
    rounding: float


def _probe(layer: Layer, x: Tensor, mode: Mode, seed: int) -> _Probe:
    x = x.clone(memory_format=torch.contiguous_format)
    y, cache = layer.rehearse(x, mode)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(DY_STREAM + seed), dtype=x.dtype).to(x.device)
    for _, parameter in layer.named_parameters():
        parameter.grad.zero_()
    dx = layer.backward(dy, cache)
    assert dx is not None
    quiet = Mode(mode.train, keep_cache=False, generator=mode.generator)

    def value() -> float:
        return float((dy * layer.rehearse(x, quiet)[0]).sum())

    gradients = {"x": (x, dx)} | {name: (p.data, p.grad.clone()) for name, p in layer.named_parameters()}
    return _Probe(value, gradients, torch.finfo(x.dtype).eps * float((dy * y).abs().sum()))


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


def slope_along(value: Callable[[], float], tensor: Tensor, direction: Tensor) -> float:
    """The derivative of `value()` as the tensor moves along a direction, by a central difference; it is restored."""
    before = tensor.clone()
    tensor.add_(direction, alpha=DIRECTION_STEP)
    above = value()
    tensor.copy_(before).sub_(direction, alpha=DIRECTION_STEP)
    below = value()
    tensor.copy_(before)
    return (above - below) / (2 * DIRECTION_STEP)


def relative_error(found: Tensor, expected: Tensor, noise: float = 0.0) -> float:
    """max |found - expected| / max |expected|, where a difference of `noise` never counts as more than 1e-6.

    Noise matters where a gradient is zero: that of a bias before a normalisation, say, which takes it away again.
    """
    difference = float((found - expected).abs().max())
    smallest = max(noise / NOISE_ERROR, torch.finfo(found.dtype).tiny)
    return difference / max(float(expected.abs().max()), smallest)
