"""Pools in plain torch: one pass over memory per tap."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.padding import CHANNELS, inside, pad, padded_size
from cnn.ops.window import Sizes, Window, winner_dtype


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = pad(x, window, fill=-torch.inf)
    on_input = pad(torch.ones_like(x[:1, ..., :1], dtype=torch.bool), window, fill=False)
    y = x.new_full((channels, *output_size, batch), -torch.inf)
    winner = torch.zeros(y.shape, dtype=winner_dtype(window), device=x.device)
    untouched = torch.ones(y.shape, dtype=torch.bool, device=x.device)
    for number, tap in enumerate(window.taps()):
        here = CHANNELS + window.reach(tap, output_size)
        candidate = padded[here]
        better = (candidate > y) | candidate.isnan() | (untouched & on_input[here])
        y = torch.where(better, candidate, y)
        winner.masked_fill_(better, number)
        untouched &= ~on_input[here]
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    channels, batch = dy.shape[0], dy.shape[-1]
    output_size = window.output_size(size)
    padded = dy.new_zeros((channels, *padded_size(size, window), batch))
    for number, tap in enumerate(window.taps()):
        padded[CHANNELS + window.reach(tap, output_size)] += dy.masked_fill(winner != number, 0)
    return padded[CHANNELS + inside(size, window)].contiguous()


def window_sum(x: Tensor, window: Window) -> Tensor:
    output_size = window.output_size(tuple(x.shape[1:-1]))
    padded = pad(x, window, fill=0)
    y = empty((x.shape[0], *output_size, x.shape[-1]), like=x).zero_()
    for tap in window.taps():
        y += padded[CHANNELS + window.reach(tap, output_size)]
    return y


def window_sum_backward(dy: Tensor, size: Sizes, window: Window) -> Tensor:
    padded = empty((dy.shape[0], *padded_size(size, window), dy.shape[-1]), like=dy).zero_()
    for tap in window.taps():
        padded[CHANNELS + window.reach(tap, window.output_size(size))] += dy
    dx = padded[CHANNELS + inside(size, window)]
    return dx if dx.is_contiguous() else empty(tuple(dx.shape), like=dx).copy_(dx)
