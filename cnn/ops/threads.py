"""The number of threads, of torch and of compiled kernels."""

from __future__ import annotations

import os

import numba
import torch


def available_threads() -> int:
    """The number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def set_threads(count: int) -> None:
    """Let torch and the compiled kernels use `count` threads each; they take turns.

    Raises ValueError if this process may not use this many.
    """
    if not 1 <= count <= available_threads():
        raise ValueError(f"{count} threads were asked for; this process may use 1 to {available_threads()}")
    torch.set_num_threads(count)
    numba.set_num_threads(count)
