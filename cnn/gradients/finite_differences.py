"""Check any layer or network against finite differences: is the hand-written backward the derivative of the forward?

`gradcheck` compares every entry of every gradient. `directional` compares slopes along random directions, which takes a
few forward passes however large the network is. `contract` checks the rest of a layer's contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn.layer import Layer, Mode

STEP = 1e-5
"""Half the width of a central difference: its error is of order STEP^2, its rounding noise 1e-16 / STEP."""

DIRECTION_STEP = 1e-6
"""The same along a direction, in which all entries move at once."""

KINK_STEP = 1e-8
"""The same inside networks, where kinks can't be avoided: so short a step crosses few of them."""

NOISE_ERROR = 1e-6
"""The largest error that a difference of the size of rounding noise may cause."""

DY_STREAM = 0x5EED
"""Keeps dy different from an x with the same seed: for dy proportional to x a normalisation has no gradient."""


def gradcheck(layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0) -> dict[str, float]:
    """The relative errors of the input's gradient, named `x`, and of each parameter's, entry by entry.

    The layer has to be bound in float64, and x [C, *S, N] must be away from kinks and ties. Differentiates sum(dy * y)
    with a random dy, because a constant dy hides mistakes. Overwrites the parameters' gradients.
    """
    probe = _probe(layer, x, mode, seed)
    return {
        name: relative_error(found, finite_differences(probe.value, tensor), probe.rounding / STEP)
        for name, (tensor, found) in probe.gradients.items()
    }


def directional(layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0, kinks: bool = False) -> dict[str, float]:
    """As `gradcheck`, but for slopes along random directions v, relative to the gradient's length.

    The error is |<found, v> - slope| / max(|found|, |slope|), v ~ N(0, 1). A wrong part that is a share s of the
    gradient's length causes an error of about s. `kinks` is for networks, inside which kinks can't be avoided: it takes
    all parameters as one vector, short steps, and the smallest error of several directions. A wrong gradient is wrong
    along all of them, while a kink is only crossed along some.
    """
    probe = _probe(layer, x, mode, seed)
    generator = torch.Generator().manual_seed(seed)
    groups = {name: [pair] for name, pair in probe.gradients.items()}
    if kinks:
        groups = {"x": groups.pop("x"), "parameters": [pair for group in groups.values() for pair in group]}
    step, tries = (KINK_STEP, 8) if kinks else (DIRECTION_STEP, 2)
    return {name: _smallest(probe, group, generator, step, tries) for name, group in groups.items() if group}


def _smallest(
    probe: _Probe, group: list[tuple[Tensor, Tensor]], generator: torch.Generator, step: float, tries: int
) -> float:
    """The smallest error of the gradient of some tensors, along directions in which all of them move."""
    smallest = math.inf
    length = math.sqrt(sum(float(found.square().sum()) for _, found in group))
    for _ in range(tries):
        directions = [
            torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device) for tensor, _ in group
        ]
        expected = sum(float((found * v).sum()) for (_, found), v in zip(group, directions, strict=True))
        slope = slope_along(probe.value, [tensor for tensor, _ in group], directions, step)
        scale = max(length, abs(slope), probe.rounding / step / NOISE_ERROR, torch.finfo(torch.float64).tiny)
        error = abs(expected - slope) / scale
        if error <= NOISE_ERROR / 10 or math.isnan(error):
            return error
        smallest = min(smallest, error)
    return smallest


def contract(layer: Layer, x: Tensor, mode: Mode, *, seed: int = 0) -> dict[str, float]:
    """How far a layer deviates from the contract of every layer; 0 where it obeys.

    x and dy are not changed; gradients are added to the existing ones; `need_dx` and `need_dparams` leave out what
    isn't needed and change nothing else. The layer has to be bound in float64.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for _, parameter in layer.named_parameters()]
    start = [torch.randn(p.shape, generator=generator, dtype=x.dtype).to(x.device) for p in parameters]

    def run(**needs: bool) -> tuple[Tensor | None, Tensor, float]:
        """dx, everything added to gradients, and whether an input was overwritten."""
        given = x.clone()
        y, cache = layer.dry_run(given, mode)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(DY_STREAM + seed), dtype=x.dtype).to(x.device)
        handed = dy.clone()
        for parameter, values in zip(parameters, start, strict=True):
            parameter.grad.copy_(values)
        dx = layer.backward(handed, cache, **needs)
        added = [(p.grad - values).flatten() for p, values in zip(parameters, start, strict=True)]
        return dx, torch.cat([*added, x.new_zeros(1)]), float(not torch.equal(given, x) or not torch.equal(handed, dy))

    dx, added, overwritten = run()
    alone, untouched, _ = run(need_dparams=False)
    nothing, spared, _ = run(need_dx=False)
    assert dx is not None
    departures = {
        "x or dy, overwritten": overwritten,
        "x, with need_dparams=False": 1.0 if alone is None else relative_error(alone, dx, NOISE_ERROR * 1e-9),
        "parameters, with need_dparams=False": float(untouched.any()),
        "parameters, with need_dx=False": relative_error(spared, added, NOISE_ERROR * 1e-6),
        "x, with need_dx=False": float(nothing is not None),
    }
    return departures


@dataclass(frozen=True)
class _Probe:
    """sum(dy * y) as a function of its tensors, and the gradients that backward computed for them."""

    value: Callable[[], float]
    gradients: dict[str, tuple[Tensor, Tensor]]
    rounding: float


def _probe(layer: Layer, x: Tensor, mode: Mode, seed: int) -> _Probe:
    if x.dtype != torch.float64:
        raise ValueError(f"gradients are checked in float64, x is {x.dtype}: finite differences need its precision")
    x = x.clone(memory_format=torch.contiguous_format)
    y, cache = layer.dry_run(x, mode)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(DY_STREAM + seed), dtype=x.dtype).to(x.device)
    for _, parameter in layer.named_parameters():
        parameter.grad.zero_()
    dx = layer.backward(dy.clone(), cache)
    assert dx is not None
    quiet = Mode(mode.train, keep_cache=False, generator=mode.generator)

    def value() -> float:
        return float((dy * layer.dry_run(x, quiet)[0]).sum())

    gradients = {"x": (x, dx)} | {name: (p.data, p.grad.clone()) for name, p in layer.named_parameters()}
    return _Probe(value, gradients, torch.finfo(x.dtype).eps * float((dy * y).abs().sum()))


def finite_differences(value: Callable[[], float], tensor: Tensor) -> Tensor:
    """The gradient of `value()` with respect to a tensor, (f(t + h) - f(t - h)) / 2h. Restores the tensor."""
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
    """The derivative of `value()` as tensors move along directions, a central difference. Restores the tensors."""
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
    """max |found - expected| / max |expected|, where a difference of `noise` counts as 1e-6 at most.

    Noise matters for gradients that are zero, such as that of a bias before a normalisation, which removes it again.
    """
    difference = float((found - expected).abs().max())
    smallest = max(noise / NOISE_ERROR, torch.finfo(found.dtype).tiny)
    return difference / max(float(expected.abs().max()), smallest)
