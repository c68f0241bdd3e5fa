"""Batch normalisation in Triton: moments of chunks of each channel, then one pass over its values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cnn.ops.cuda.geometry import NO_WINDOW, constants
from cnn.ops.cuda.kernels import norm as kernels
from cnn.ops.cuda.kernels import norm_backward
from cnn.ops.cuda.launching import ACCUMULATORS, blocks, launch, power_of_2
from cnn.ops.memory import empty
from cnn.ops.values import Gradients, PoolReLU, Route, Running
from cnn.ops.window import winner_dtype

BLOCK = 1024
"""Values of one program that normalises."""

WINDOWS = 256
"""Windows of one program that pools as well."""

MAX_CHUNKS = 256


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, running: Running, *, training: bool) -> tuple[Tensor, Tensor]:
    y, statistics, _ = normalise(x, weight, bias, running, PoolReLU(None, rectify=False), training=training)
    return y, statistics


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, after: PoolReLU, *, training: bool
) -> tuple[Tensor, Tensor, Route]:
    """`batch_norm`, with the pool and the ReLU after it, if any."""
    x, (window, rectify), batch = x.contiguous(), after, x.shape[-1]
    channels, length = len(x), math.prod(x.shape[1:])
    statistics = empty((2, channels), like=weight)
    partial, chunks = _moments(x, weight.dtype) if training else (weight, 1)
    vectors = x, partial, weight, bias, running.mean, running.var, statistics
    numbers = float(running.momentum), float(running.eps), training, rectify, power_of_2(chunks)
    if window is None:
        y = empty(tuple(x.shape), like=x)
        grid = blocks(length, BLOCK), channels
        launch(kernels.normalise, grid, *vectors, y, channels, length, chunks, *numbers, BLOCK)
        return y, statistics, Route(y, None)
    size = tuple(x.shape[1:-1])
    y = empty((channels, *window.output_size(size), batch), like=x)
    winner = empty(tuple(y.shape), like=x, dtype=winner_dtype(window))
    grid = blocks(math.prod(y.shape[1:]), WINDOWS), channels
    sizes = channels, length, chunks, batch, *constants(window, size, tuple(y.shape[1:-1]))
    launch(kernels.normalise_and_pool, grid, *vectors, y, winner, *sizes, *numbers, WINDOWS)
    return y, statistics, Route(winner, window)


def batch_norm_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None
) -> Tensor:
    return differentiate(dy, x, statistics, weight, gradients, None)


def differentiate(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None, route: Route | None
) -> Tensor:
    """`batch_norm_backward`; dy goes back along a route first, if there is one."""
    dy, x, batch = dy.contiguous(), x.contiguous(), x.shape[-1]
    channels, length = len(x), math.prod(x.shape[1:])
    dx = empty(tuple(x.shape), like=x)
    values, window = (dy, None) if route is None else (route.values.contiguous(), route.window)
    chunks, chunk, block = _chunks(channels, math.prod(dy.shape[1:]))
    partial = empty((channels, chunks, 2), like=weight)
    summed = dy, values, x, statistics, partial, channels, length, chunks, chunk
    accumulator = ACCUMULATORS[x.dtype]
    if window is None:
        kind, geometry = "none" if route is None else "relu", NO_WINDOW
        launch(norm_backward.sums, (channels, chunks), *summed, route is not None, accumulator, block)
    else:
        kind, geometry = "pool", constants(window, tuple(x.shape[1:-1]), tuple(dy.shape[1:-1]))
        launch(norm_backward.pooled_sums, (channels, chunks), *summed, batch, *geometry, accumulator, block)
    added: tuple[Any, ...] = gradients or (weight, weight)
    vectors = dy, values, x, statistics, weight, *added, partial, dx
    numbers = channels, length, chunks, batch, *geometry, kind, gradients is not None, power_of_2(chunks), BLOCK
    launch(norm_backward.gradient, (blocks(length, BLOCK), channels), *vectors, *numbers)
    return dx


def _moments(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Count, mean and squared distances of each chunk of a channel, [C, chunks, 3], and the number of chunks."""
    channels, length = len(x), math.prod(x.shape[1:])
    chunks, chunk, block = _chunks(channels, length)
    partial = empty((channels, chunks, 3), like=x, dtype=dtype)
    launch(kernels.moments, (channels, chunks), x, partial, length, chunks, chunk, ACCUMULATORS[x.dtype], block)
    return partial, chunks


def _chunks(channels: int, length: int) -> tuple[int, int, int]:
    """The number of chunks of a channel, their length, and the values that a program loads at once.

    As many programs as keep a large GPU busy, but not more than there are blocks: constants, so that the order of a sum
    doesn't depend on the card.
    """
    block, programs = (1024, 2112) if channels * length >= 1 << 22 else (512, 1056)
    wanted = max(1, min(MAX_CHUNKS, blocks(length, block), blocks(programs, max(channels, 1))))
    chunk = max(1, blocks(blocks(length, wanted), block)) * block
    return max(1, blocks(length, chunk)), chunk, block
