"""Whom to tell before kernels are compiled. It is known before the compiler itself is imported."""

from __future__ import annotations

from collections.abc import Callable

_calls: list[Callable[[], None]] = []


def before_compiling(call: Callable[[], None]) -> None:
    """Call a function once, before the first kernel that isn't cached is compiled, which takes seconds."""
    _calls.append(call)


def compiling() -> None:
    """A kernel is about to be compiled."""
    while _calls:
        _calls.pop()()
