"""Other processes help to compile what a piece of work needs, where several cores are free."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from cnn.ops import compiling, threads

MOST = 7
"""The largest number of processes that help: each takes the memory of a step that doesn't compute anything."""

SECONDS = 120
"""Seconds after which a helping process ends in any case."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM) if sys.platform != "win32" else ()


@contextmanager
def compiling_together(work: Callable[[], object]) -> Iterator[None]:
    """A context in which work is done. If kernels aren't cached, other processes help to compile them.

    They are copies of this process, one for each further thread that may be used. Each does the work without running
    kernels, which shows what is called with which types, and compiles its share from the last kernel to the first,
    until this process, which compiles them as it comes to them, finds the rest in the cache. So the work must only
    write to memory of its own, which the copies have for themselves.
    """
    helpers = _Helpers(work)
    if sys.platform == "linux":  # macOS's libraries don't survive a fork, and Windows has none
        compiling.before_compiling(helpers.start)
    try:
        yield
    finally:
        compiling.forget(helpers.start)
        helpers.end()


class _Helpers:
    """The processes that help with one piece of work."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._thread = threading.get_ident()
        self._pids: list[int] = []

    def start(self) -> None:
        """Start them, if this is called by the thread that does the work, and if what they compile can be found."""
        count = min(threads.most_threads() - 1, MOST)
        if threading.get_ident() != self._thread or not compiling.kept:
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a copy mustn't handle them as the program does
        try:
            for number in range(count):
                self._pids.append(_copy(functools.partial(_compile, self._work, number, count, os.getpid())))
        except OSError:  # no more processes are allowed: then there is less help
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError, ChildProcessError):  # somebody else has waited for it
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _copy(work: Callable[[], object]) -> int:
    """Start a copy of this process that does some work and nothing else; returns its process id.

    Its output is lost. It ignores Ctrl-C, and any other signal ends it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads, whose locks the copy doesn't need
        pid = os.fork()
    if pid:
        return pid
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the first process decides
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.alarm(SECONDS)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        for descriptor in [int(entry.name) for entry in os.scandir("/proc/self/fd")]:
            if descriptor > 2:  # whoever reads from a pipe waits until all have closed it
                with suppress(OSError):
                    os.close(descriptor)
        work()
    finally:
        os._exit(0)


def _compile(work: Callable[[], object], number: int, count: int, parent: int) -> None:
    """Compile the share with this number of the kernels that the work calls, as long as the parent lives."""
    torch.set_num_threads(1)  # the others that it had are missing in the copy
    needed = compiling.only_compile()
    with suppress(Exception):  # of values that weren't computed: the kernels up to here are needed nevertheless
        work()
    for compile_kernel in [*reversed(needed.values())][number::count]:
        if os.getppid() == parent:
            compile_kernel()
