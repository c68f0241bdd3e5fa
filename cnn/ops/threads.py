"""The number of threads, of torch and of compiled kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cnn.ops import backend


def available_cores() -> int:
    """The number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def available_threads() -> int:
    """The number of threads that torch and the compiled kernels can be given: a core for each."""
    import numba  # half a second, which a program without compiled kernels spares

    return min(available_cores(), int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


_most: int | None = None
_fixed = True


def set_threads(count: int, *, fixed: bool = True) -> None:
    """Let the compiled kernels use at most `count` threads; what is repeated may use fewer for a while unless `fixed`.

    Next to compiled kernels, torch uses a single thread: it splits large sums among its threads, so their order would
    depend on the number. With the reference kernels it uses `count`. Raises ValueError if this process may not use this
    many.
    """
    global _most, _fixed
    if not 1 <= count <= available_threads():
        raise ValueError(f"{count} threads were asked for; this process may use 1 to {available_threads()}")
    _most, _fixed = count, fixed
    torch.set_num_threads(1 if backend.chosen() == "compiled" else count)
    use(count)


def most_threads() -> int:
    """The largest number of threads that kernels may use."""
    return _most or available_threads()


def are_fixed() -> bool:
    """Whether `most_threads` is also the number that kernels always use."""
    return _fixed or _most == 1


def use(count: int) -> None:
    """Let the compiled kernels use this many threads for now."""
    import numba

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
