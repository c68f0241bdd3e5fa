"""How kernels are compiled: by numba, at first use, and kept on disk for later starts.

Each `prange` of a kernel writes to places of its own: results don't depend on the number of threads. No fastmath: with
it, code just compiled and the same code read from the disk differed in the last bit, so that the first start of a
program was not repeated by the second. NaN and infinity go through as in torch for the same reason.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache

from cnn.ops.cpu.codegen.emitter import REGISTERS, VECTOR_BYTES

COMPILER = {"numba": numba.__version__}
"""What makes the kernels: another version may give other last bits."""


SOURCES = "cnn.ops.cpu."
"""The modules that kernels are made from."""


@functools.cache
def _fingerprint(module: ModuleType) -> str:
    """What identifies the source of a module of this package and of the ones that it takes something from."""
    used = {inspect.getmodule(value) for value in vars(module).values()} - {module}
    ours = [other for other in used if other and other.__name__.startswith(SOURCES)]
    others = [_fingerprint(other) for other in sorted(ours, key=lambda other: other.__name__)]
    return hashlib.sha256("\n".join([inspect.getsource(module), *others]).encode()).hexdigest()


class _Cache(FunctionCache):
    """What was compiled from other sources is compiled anew: by itself numba looks at a kernel's own file only."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._module = inspect.getmodule(function)

    def _index_key(self, *args: Any) -> Any:
        assert self._module
        machine = (
            REGISTERS,
            VECTOR_BYTES,
        )  # numba's key has the processor too, unless somebody has set it to a generic one
        return super()._index_key(*args), machine, _fingerprint(self._module)  # type: ignore[no-untyped-call]

    def load_overload(self, *args: Any) -> Any:
        """What was compiled earlier, or None; files that are cut short or damaged count as none."""
        try:
            return super().load_overload(*args)  # type: ignore[no-untyped-call]
        except Exception:
            self.flush()  # type: ignore[no-untyped-call]
            return None


def kernel(function: Any) -> Any:
    """A compiled function that Python calls, and that may run on several threads."""
    compiled: Any = numba.njit(nogil=True, parallel=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # no folder that can be written to: each process compiles for itself
        compiled._cache = _Cache(function)
    return compiled


helper: Any = numba.njit(nogil=True, error_model="numpy")
"""A compiled function that kernels call: it becomes part of them."""


class _First(event.Listener):
    """Calls a function at the first event it hears of."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._waiting = [call]

    def on_start(self, event: Any) -> None:
        while self._waiting:
            self._waiting.pop()()

    def on_end(self, event: Any) -> None:
        """Only beginnings count."""


def before_compiling(tell: Callable[[], None]) -> None:
    """Call `tell` once, before the first kernel that isn't on the disk: compiling takes seconds, and somebody waits."""
    event.register("numba:compile", _First(tell))  # type: ignore[no-untyped-call]
