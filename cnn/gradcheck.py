"""Any layer or network against finite differences: is the hand-written backward the derivative of the forward?

`gradcheck` compares every entry of every gradient; `directional` compares slopes along random directions, which takes a
few forward passes however large the network is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn.layer import Layer, Mode

STEP = 1e-5
"""Half the width of a central difference: its error is of the order STEP^2, its rounding noise 1e-16 / STEP."""

DIRECTION_STEPS = (1e-6, 1e-8)
"""The same along a direction, where all entries move: a kink that the first step crosses, the second may not."""

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


def directional(
    layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0, tries: int = 3, together: bool = False
) -> dict[str, float]:
    """As `gradcheck`, but of the slopes along random directions v, relative to the gradient's length.

    The error is |<found, v> - slope| / max(|found|, |slope|), v ~ N(0, 1). What makes up a share s of the gradient's
    length and is wrong shows as an error of about s. Where it isn't small, other directions are tried and the smallest
    counts: a wrong gradient is wrong along all of them, a kink inside of a network is crossed along one. `together`
    takes all parameters for one vector.
    """
    probe = _probe(layer, x, mode, seed)
    generator = torch.Generator().manual_seed(seed)
    groups = {name: [pair] for name, pair in probe.gradients.items()}
    if together:
        groups = {"x": groups.pop("x"), "parameters": [pair for group in groups.values() for pair in group]}
    return {name: _worst(probe, group, generator, tries) for name, group in groups.items() if group}


def _worst(probe: _Probe, group: list[tuple[Tensor, Tensor]], generator: torch.Generator, tries: int) -> float:
    """The error of some tensors' gradient, found along directions in which all of them move."""
    smallest = math.inf
    for _ in range(tries):
        directions = [
            torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device) for tensor, _ in group
        ]
        expected = sum(float((found * v).sum()) for (_, found), v in zip(group, directions, strict=True))
        length = math.sqrt(sum(float(found.square().sum()) for _, found in group))
        for step in DIRECTION_STEPS:
            slope = slope_along(probe.value, [tensor for tensor, _ in group], directions, step)
            scale = max(length, abs(slope), probe.rounding / step / NOISE_ERROR, torch.finfo(torch.float64).tiny)
            error = abs(expected - slope) / scale
            if error <= NOISE_ERROR / 10 or math.isnan(error):
                return error
            smallest = min(smallest, error)
    return smallest


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


def slope_along(value: Callable[[], float], tensors: list[Tensor], directions: list[Tensor], step: float) -> float:
    """The derivative of `value()` as tensors move along directions, by a central difference; they are restored."""
    before = [tensor.clone() for tensor in tensors]

    def at(distance: float) -> float:
        for tensor, start, direction in zip(tensors, before, directions, strict=True):
            tensor.copy_(start).add_(direction, alpha=distance)
        return value()

    above, below = at(step), at(-step)
    for tensor, start in zip(tensors, before, strict=True):
        tensor.copy_(start)
    return (above - below) / (2 * step)


def relative_error(found: Tensor, expected: Tensor, noise: float = 0.0) -> float:
    """max |found - expected| / max |expected|, where a difference of `noise` never counts as more than 1e-6.

    Noise matters where a gradient is zero: that of a bias before a normalisation, say, which takes it away again.
    """
    difference = float((found - expected).abs().max())
    smallest = max(noise / NOISE_ERROR, torch.finfo(found.dtype).tiny)
    return difference / max(float(expected.abs().max()), smallest)
