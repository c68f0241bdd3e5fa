"""Threads of every kind that computes here."""

from __future__ import annotations

import os

import numba
import torch


def available_threads() -> int:
    """The cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def set_threads(count: int) -> None:
    """Let torch and the compiled kernels run on `count` threads each; they take turns.

    Raises ValueError where this process may not use so many.
    """
    if not 1 <= count <= available_threads():
        raise ValueError(f"{count} threads were asked for; this process may use 1 to {available_threads()}")
    torch.set_num_threads(count)
    numba.set_num_threads(count)
