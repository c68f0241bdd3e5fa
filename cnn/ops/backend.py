"""Which backend computes an operation: the fastest one that serves the tensor's device and dtype, or the reference.

A front (`conv.py`, `norm.py`, ...) states the formula, checks the shapes and calls `choose(reference.name, x)(x, ...)`.
A backend is a set of functions with the names and signatures of those in `reference/`. The reference computes what it
lacks, so a backend may start with a single function.
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
    """Functions by name, as in `reference/`, for the devices and dtypes that the backend `serves`.

    If several backends serve a tensor and have the function, the one with the highest priority is used.
    """

    name: str
    serves: Callable[[str, torch.dtype], bool]
    functions: Mapping[str, Function]
    priority: int = 0


_chosen: KernelSet = "compiled"
_backends: list[Backend] = []
_waiting: dict[str, list[Callable[[], Backend]]] = {}
_found: dict[tuple[Function, str, torch.dtype], Function] = {}
"""Memo of `choose`: a look-up takes half a microsecond."""


def register(backend: Backend) -> None:
    """Use a backend from now on."""
    _backends.append(backend)
    _backends.sort(key=lambda backend: -backend.priority)
    _found.clear()


def register_when_needed(device: str, load: Callable[[], Backend]) -> None:
    """Register the backend that `load` imports once a function is chosen for a kind of device.

    Not if the reference's is chosen by request. `load` may raise Unfit.
    """
    _waiting.setdefault(device, []).append(load)


class Unfit(Exception):
    """Why a backend can't be used in this process: what is missing, and what to do."""


_unfit: dict[str, list[str]] = {}


def load_backends(device: str) -> list[str]:
    """Register the backends that wait for a kind of device. Returns why some can't be used, now or before."""
    while _waiting.get(device):
        try:
            register(_waiting[device].pop()())
        except Unfit as error:
            _unfit.setdefault(device, []).append(str(error))
    return _unfit.get(device, [])


def remove(backend: Backend) -> None:
    """Stop using a registered backend."""
    _backends.remove(backend)
    _found.clear()


def use_kernels(name: KernelSet) -> None:
    """Choose the kernels of this process: `compiled`, the fastest for each device and dtype, or `reference`."""
    global _chosen
    _chosen = name


def chosen() -> KernelSet:
    """The kernels of this process."""
    return _chosen


@contextmanager
def kernels(name: KernelSet) -> Iterator[None]:
    """Choose the kernels for a `with` block."""
    before = _chosen
    use_kernels(name)
    try:
        yield
    finally:
        use_kernels(before)


def choose(reference: Callable[P, R], like: Tensor) -> Callable[P, R]:
    """The function to use instead of `reference` for tensors with the device and dtype of `like`."""
    if _chosen == "reference":
        return reference
    key = reference, like.device.type, like.dtype
    found = _found.get(key)
    if found is None:
        found = _found[key] = _fastest(*key)
    return found


def _fastest(reference: Function, device: str, dtype: torch.dtype) -> Function:
    load_backends(device)
    for backend in _backends:
        if backend.serves(device, dtype) and reference.__name__ in backend.functions:
            return backend.functions[reference.__name__]
    return reference
