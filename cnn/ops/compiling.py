"""What is known of compiling before the compiler itself is imported: whom to tell, and how processes share the work."""

from __future__ import annotations

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress

from cnn.ops import threads

_calls: list[Callable[[], None]] = []


def before_compiling(call: Callable[[], None]) -> None:
    """Call a function once, before the first kernel that isn't cached is compiled, which takes seconds."""
    _calls.append(call)


def compiling() -> None:
    """A kernel is about to be compiled."""
    while _calls:
        _calls.pop()()


MAX_HELPERS = 7
HELP_SECONDS = 120
"""Seconds after which a helping process ends in any case."""

needed: dict[Hashable, Callable[[], object]] | None = None
"""In a process that helps: what compiles the kernels that would have been called, which aren't run there."""


@contextmanager
def shared(work: Callable[[], object]) -> Iterator[None]:
    """A context in which work is done. If kernels aren't cached, other processes help to compile them.

    They are copies of this process, one for each further thread that may be used. Each does the work without running
    kernels, which shows what is called with which types, and compiles its share from the last kernel to the first,
    until this process, which compiles them as it comes to them, finds the rest in the cache.
    """
    helpers: list[int] = []

    def start() -> None:
        count = min(threads.most_threads() - 1, MAX_HELPERS)
        helpers.extend(_copy(functools.partial(_help, work, number, count)) for number in range(count))

    if sys.platform == "linux":  # elsewhere, libraries of the system don't survive a copy
        before_compiling(start)
    try:
        yield
    finally:
        with suppress(ValueError):
            _calls.remove(start)
        for process in helpers:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _copy(work: Callable[[], object]) -> int:
    """Start a copy of this process that does some work, and nothing else; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may hold locks, but none that it needs
        process = os.fork()
    if process:
        return process
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process
        signal.alarm(HELP_SECONDS)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # whoever reads from pipes waits until all have closed them
        work()
    finally:
        os._exit(0)


def _help(work: Callable[[], object], number: int, count: int) -> None:
    global needed
    needed, first = {}, os.getppid()
    with suppress(Exception):  # of values that weren't computed; the kernels up to here are needed nevertheless
        work()
    for compile_kernel in [*reversed(needed.values())][number::count]:
        if os.getppid() == first:
            compile_kernel()
