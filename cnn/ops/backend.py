"""Which backend computes an operation: the fastest one that serves a tensor's device and type, or the reference.

A front (`conv.py`, `norm.py`, ...) states the formula, checks the shapes and calls `choose(reference.name, x)(x, ...)`.
A backend is a set of functions with the names and signatures of those in `reference/`; what it lacks, the reference
computes. So a backend may start with one function and grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

KernelSet = Literal["compiled", "reference"]
Function = Callable[..., Any]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Backend:
    """Functions by the names of those in `reference/`, for tensors on devices and of types that it `serves`.

    Where several backends serve a tensor and have a function, the one with the highest priority computes.
    """

    name: str
    serves: Callable[[str, torch.dtype], bool]
    functions: Mapping[str, Function]
    priority: int = 0


_chosen: KernelSet = "compiled"
_backends: list[Backend] = []
_found: dict[tuple[Function, str, torch.dtype], Function] = {}
"""The answers of `choose`: a look-up takes a fraction of a microsecond."""


def register(backend: Backend) -> None:
    """Let a backend compute from now on."""
    _backends.append(backend)
    _backends.sort(key=lambda backend: -backend.priority)
    _found.clear()


def remove(backend: Backend) -> None:
    """Take a registered backend out again."""
    _backends.remove(backend)
    _found.clear()


def use_kernels(name: KernelSet) -> None:
    """Choose the kernels of this process: `compiled` (the fastest for a tensor's device and type) or `reference`."""
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


def choose(reference: Callable[P, R], like: Tensor) -> Callable[P, R]:
    """The function that computes what `reference` does, for tensors on the device and of the type of `like`."""
    if _chosen == "reference":
        return reference
    key = reference, like.device.type, like.dtype
    found = _found.get(key)
    if found is None:
        found = _found[key] = _fastest(*key)
    return found


def _fastest(reference: Function, device: str, dtype: torch.dtype) -> Function:
    for backend in _backends:
        if backend.serves(device, dtype) and reference.__name__ in backend.functions:
            return backend.functions[reference.__name__]
    return reference
