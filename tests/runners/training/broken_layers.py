"""Mistakes that a backward pass can have, for debug=gradcheck to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cnn import Cache, Layer, ops
from cnn.graphs import GRAPHS
from cnn.graphs.concat import Concat
from cnn.graphs.residual import Residual
from cnn.graphs.spectral_norm import SpectralNorm

Broken = Callable[[type[Layer]], type[Layer]]


def sign_flipped(kind: type[Layer]) -> type[Layer]:
    class Copy(kind):  # type: ignore[valid-type, misc]
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            dx = super().backward(dy, cache, **needs)
            return None if dx is None else -dx

    return Copy


def index_off_by_one(kind: type[Layer]) -> type[Layer]:
    """The gradient of each value goes to its neighbour: along the longest axis, or the only one that isn't constant."""

    class Copy(kind):  # type: ignore[valid-type, misc]
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            dx = super().backward(dy, cache, **needs)
            if dx is None:
                return None
            axes = range(1 if self.kind == "global_avg_pool" else dx.dim() - 1)
            shifted: Tensor = dx.roll(1, max(axes, key=lambda axis: dx.shape[axis]))
            return shifted

    return Copy


def one_channel_dropped(kind: type[Layer]) -> type[Layer]:
    class Copy(kind):  # type: ignore[valid-type, misc]
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            dx: Tensor | None = super().backward(dy, cache, **needs)
            if dx is not None:
                dx = dx.clone()
                dx[-1] = 0
            return dx

    return Copy


def not_a_step(kind: type[Layer]) -> type[Layer]:
    class Copy(kind):  # type: ignore[valid-type, misc]
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            dx: Tensor | None = super().backward(dy, cache, **needs)
            return None if dx is None else dx + dy.sum(0)

    return Copy


def gradient_changed(name: str, change: Callable[[Tensor], Tensor]) -> Broken:
    """What is added to one parameter's gradient is something else."""

    def broken(kind: type[Layer]) -> type[Layer]:
        class Copy(kind):  # type: ignore[valid-type, misc]
            def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
                gradient = getattr(self, name).grad
                before = gradient.clone()
                dx: Tensor | None = super().backward(dy, cache, **needs)
                gradient.copy_(before + change(gradient - before))
                return dx

        return Copy

    return broken


def gradient_dropped(name: str) -> Broken:
    """The term that belongs to one parameter is missing."""
    return gradient_changed(name, torch.zeros_like)


def gradient_shifted(name: str) -> Broken:
    """One parameter's gradient is off by one place."""
    return gradient_changed(name, lambda gradient: gradient.roll(1))


def shortcut_forgotten(kind: type[Layer]) -> type[Layer]:
    class Copy(Residual):
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            return self.layers["body"].backward(dy, cache.inner()[0], **needs)

    return Copy


def branches_swapped(kind: type[Layer]) -> type[Layer]:
    class Copy(Concat):
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            return super().backward(dy.roll(1, 0), cache, **needs)

    return Copy


def last_layer_skipped(kind: type[Layer]) -> type[Layer]:
    class Copy(kind):  # type: ignore[valid-type, misc]
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            layers, caches = list(self.layers.values()), cache.inner()
            for layer, inner_cache in reversed(list(zip(layers, caches, strict=True))[:-1]):
                dy = layer.backward(dy, inner_cache, **needs)
            return dy

    return Copy


def sigma_is_constant(kind: type[Layer]) -> type[Layer]:
    class Copy(SpectralNorm):
        def backward(self, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
            inner_cache, normalised, sigma, _, _ = cache.take()
            layer = self._with_weight(normalised)
            layer.weight.grad = torch.zeros_like(normalised)
            dx: Tensor | None = layer.backward(dy, inner_cache, **needs)
            self._layer.weight.grad += layer.weight.grad / sigma
            return dx

    return Copy


GENERAL: list[Broken] = [sign_flipped, index_off_by_one, one_channel_dropped]
OF_GRAPHS: dict[str, list[Broken]] = {
    "residual": [sign_flipped, shortcut_forgotten],
    "concat": [sign_flipped, branches_swapped],
    "sequential": [sign_flipped, last_layer_skipped],
    "repeat": [sign_flipped, last_layer_skipped],
    "spectral_norm": [sign_flipped, sigma_is_constant],
}


def mistakes(kind: str) -> list[Broken]:
    if kind in GRAPHS:
        return OF_GRAPHS[kind]
    names: tuple[str, ...] = ("weight",) if kind in ("prelu", "embedding") else ()
    if kind.startswith("conv") or kind == "linear" or kind.endswith("norm"):
        names = ("weight", "bias")
    general = [not_a_step] if kind == "embedding" else GENERAL  # its dx is 0, whatever its sign and place
    return [*general, *(how(name) for name in names for how in (gradient_dropped, gradient_shifted))]


def batch_norm_without_its_second_term(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    x, (mean, rstd), mode = cache.take()
    rows, gradient = x.flatten(1), dy.flatten(1)
    xhat = (rows - mean[:, None]) * rstd[:, None]
    self.weight.grad += (gradient * xhat).sum(1)
    self.bias.grad += gradient.sum(1)
    shift = gradient.mean(1, keepdim=True) if mode.train else 0
    dx: Tensor = (self.weight.data * rstd)[:, None] * (gradient - shift)
    return dx.view(dy.shape)


def group_norm_without_the_mean(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    x, mean, rstd = cache.take()
    xhat = (x.reshape(self.groups, -1, x.shape[-1]) - mean) * rstd
    self.weight.grad += (dy * xhat.view(x.shape)).flatten(1).sum(1)
    self.bias.grad += dy.flatten(1).sum(1)
    dxhat = (dy * self.weight.data.view(-1, 1, 1, 1)).reshape(xhat.shape)
    dx: Tensor = rstd * (dxhat - xhat * (dxhat * xhat).mean(1, keepdim=True))
    return dx.view(x.shape)


def avg_pool_without_its_divisor(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    (size,) = cache.take()
    return ops.window_sum_backward(dy, size, self.window)


def conv_with_another_dilation(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    (x,) = cache.take()
    wrong = replace(self.window, dilation=(2, 2), before=(2, 2), after=(2, 2))
    ops.add_conv_backward_weight(x, dy, self.window, self.weight.grad, self.groups)
    self.bias.grad += dy.flatten(1).sum(1)
    return ops.conv_backward_input(dy, self.weight.data, tuple(x.shape[1:-1]), wrong, self.groups)


def gelu_without_the_slope_of_its_probability(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    (x,) = cache.take()
    return dy * (1 + torch.erf(x / 2**0.5)) / 2


def linear_that_assigns_its_gradients(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    (x,) = cache.take()
    self.weight.grad.copy_(dy @ x.t())
    self.bias.grad.copy_(dy.sum(1))
    dx: Tensor = self.weight.data.t() @ dy
    return dx


def relu_that_overwrites_dy(self: Any, dy: Tensor, cache: Cache, **needs: bool) -> Tensor | None:
    (y,) = cache.take()
    return dy.masked_fill_(y <= 0, 0)


WRONG_FORMULAS: list[tuple[str, Any]] = [
    ("batch_norm", batch_norm_without_its_second_term),
    ("group_norm", group_norm_without_the_mean),
    ("avg_pool2d", avg_pool_without_its_divisor),
    ("conv2d", conv_with_another_dilation),
    ("gelu", gelu_without_the_slope_of_its_probability),
    ("linear", linear_that_assigns_its_gradients),
    ("relu", relu_that_overwrites_dy),
]
