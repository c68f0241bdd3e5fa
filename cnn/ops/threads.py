"""The number of threads, of torch and of compiled kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def available_cores() -> int:
    """The number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def available_threads() -> int:
    """The number of threads that torch and the compiled kernels can be given: a core for each."""
    import numba  # half a second, which a program without compiled kernels spares

    return min(available_cores(), int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def set_threads(count: int) -> None:
    """Let torch and the compiled kernels use `count` threads each; they take turns.

    Raises ValueError if this process may not use this many.
    """
    if not 1 <= count <= available_threads():
        raise ValueError(f"{count} threads were asked for; this process may use 1 to {available_threads()}")
    import numba

    torch.set_num_threads(count)
    numba.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use a single thread in a `with` block, as for work so small that threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
