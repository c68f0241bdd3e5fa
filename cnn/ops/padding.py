"""Padding: a constant around an image, or the image itself, extended."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window

Continuation = Literal["reflect", "replicate", "circular"]

CHANNELS = (slice(None),)
"""The first part of an index: all channels. One slice per spatial axis follows."""


def pad(x: Tensor, window: Window, fill: float) -> Tensor:
    """x with the window's padding at both ends of each spatial axis, filled with a constant."""
    if not any(window.before) and all(after <= 0 for after in window.after):
        return x
    channels, *size, batch = x.shape
    padded = empty((channels, *padded_size(tuple(size), window), batch), like=x).fill_(fill)
    padded[CHANNELS + inside(tuple(size), window)] = x
    return padded


def padded_size(size: Sizes, window: Window) -> Sizes:
    """The size of the padded input. Negative padding doesn't crop it."""
    return tuple(s + b + max(a, 0) for s, b, a in zip(size, window.before, window.after, strict=True))


def inside(size: Sizes, window: Window) -> tuple[slice, ...]:
    """The index of the unpadded input within the padded one."""
    return tuple(slice(before, before + extent) for extent, before in zip(size, window.before, strict=True))


def continued(x: Tensor, before: Sizes, after: Sizes, mode: Continuation) -> Tensor:
    """x extended beyond its borders: y[c, i, n] = x[c, source(i), n], one axis after another.

    x [C, *S, N] -> y [C, *(S + before + after), N].
    """
    for axis, (b, a) in enumerate(zip(before, after, strict=True), start=1):
        if b or a:
            x = x.index_select(axis, _sources(x.shape[axis], b, a, mode, x.device))
    return x


def continued_backward(dy: Tensor, size: Sizes, before: Sizes, after: Sizes, mode: Continuation) -> Tensor:
    """dx: each place of x gets the sum of the gradients of all places that repeat it.

    dy [C, *(S + before + after), N] -> dx [C, *S, N], S being `size`.
    """
    for axis, (extent, b, a) in reversed([*enumerate(zip(size, before, after, strict=True), start=1)]):
        if b or a:
            dx = dy.new_zeros((*dy.shape[:axis], extent, *dy.shape[axis + 1 :]))
            sources = _sources(extent, b, a, mode, dy.device)
            parts = (0, b, mode == "replicate"), (b, extent, False), (b + extent, a, mode == "replicate")
            for start, count, repeats in parts:  # a source is once in a part, so that a GPU adds up in one order
                part, places = dy.narrow(axis, start, count), sources[start : start + count]
                if repeats and count:
                    part, places = part.sum(axis, keepdim=True), places[:1]
                dx.index_add_(axis, places, part)
            dy = dx
    return dy


def _sources(size: int, before: int, after: int, mode: Continuation, device: torch.device) -> Tensor:
    """The place of an axis that each place of the padded axis repeats."""
    place = torch.arange(-before, size + after, device=device)
    if mode == "replicate":
        return place.clamp(0, size - 1)
    if mode == "circular":
        return place % size
    last = size - 1
    return last - (last - place.abs()).abs()  # mirror at both ends, without repeating them
