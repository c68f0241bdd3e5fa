"""The choice between the two sets of kernels, made for each call by the tensors it is given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from cnn.ops import compiled, reference

KernelSet = Literal["compiled", "reference"]
COMPILED_DTYPES = (torch.float32, torch.float64)

_chosen: KernelSet = "compiled"
P = ParamSpec("P")
R = TypeVar("R")


def use_kernels(name: KernelSet) -> None:
    """Choose the kernels of this process: `compiled` (where the device and type allow them) or `reference`."""
    global _chosen
    _chosen = name


@contextmanager
def kernels(name: KernelSet) -> Iterator[None]:
    """Choose the kernels for the length of a `with` block."""
    before = _chosen
    use_kernels(name)
    try:
        yield
    finally:
        use_kernels(before)


def choose(plain: Callable[P, R], fast: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(plain)
    def operation(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        assert isinstance(first, Tensor)
        fits = _chosen == "compiled" and first.device.type == "cpu" and first.dtype in COMPILED_DTYPES
        return (fast if fits else plain)(*args, **kwargs)

    return operation


take_examples = choose(reference.take_examples, compiled.take_examples)
im2col = choose(reference.im2col, compiled.im2col)
col2im = choose(reference.col2im, compiled.col2im)
max_pool = choose(reference.max_pool, compiled.max_pool)
max_pool_backward = choose(reference.max_pool_backward, compiled.max_pool_backward)
batch_norm = choose(reference.batch_norm, compiled.batch_norm)
batch_norm_backward = choose(reference.batch_norm_backward, compiled.batch_norm_backward)
relu = choose(reference.relu, compiled.relu)
relu_backward = choose(reference.relu_backward, compiled.relu_backward)
adam = choose(reference.adam, compiled.adam)
cross_entropy = choose(reference.cross_entropy, compiled.cross_entropy)
