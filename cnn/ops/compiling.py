"""What is known of compiling before the compiler itself is imported."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress

_calls: list[Callable[[], None]] = []

kept = True
"""Whether what is compiled is kept on the disk, where other processes find it."""

needed: dict[Hashable, Callable[[], object]] | None = None
"""In a process that only compiles: how to compile each kernel that was called, in order. Elsewhere None."""


_under_way = 0
"""How many compilations are under way, one within another."""

_afterwards: list[Callable[[], None]] = []


def unless_compiling(call: Callable[[], None]) -> None:
    """Call a function now, or at the end of the compilation that is under way.

    For handlers of signals that raise: they run between any two instructions, and a compiler can't bear that.
    """
    if _under_way:
        _afterwards.append(call)
    else:
        call()


def started() -> None:
    """A compilation has begun."""
    global _under_way
    _under_way += 1
    compiling()


def ended() -> None:
    """A compilation has ended, or failed."""
    global _under_way
    _under_way -= 1
    while _afterwards and not _under_way:
        _afterwards.pop()()


def before_compiling(call: Callable[[], None]) -> None:
    """Call a function once, before the first kernel that isn't cached is compiled, which takes seconds."""
    _calls.append(call)


def forget(call: Callable[[], None]) -> None:
    """Don't call a function any more that may be waiting."""
    with suppress(ValueError):
        _calls.remove(call)


def compiling() -> None:
    """A kernel is about to be compiled."""
    while _calls:
        _calls.pop()()


def only_compile() -> dict[Hashable, Callable[[], object]]:
    """Don't run kernels in this process from now on; returns what collects them, as `needed` does."""
    global needed
    needed = {}
    _calls.clear()
    return needed
