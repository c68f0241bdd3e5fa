"""How kernels are compiled: by numba, at first use, and kept on disk for later starts.

Each `prange` of a kernel writes to places of its own: results don't depend on the number of threads. No fastmath: with
it, code just compiled and the same code read from the disk differed in the last bit, so that the first start of a
program was not repeated by the second. NaN and infinity go through as in torch for the same reason.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache


def _fingerprint() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


FINGERPRINT = _fingerprint()


class _Cache(FunctionCache):
    """What was compiled from other sources is compiled anew: by itself numba looks at a kernel's own file only."""

    def _index_key(self, *args: Any) -> Any:
        return super()._index_key(*args), FINGERPRINT  # type: ignore[no-untyped-call]


def kernel(function: Any) -> Any:
    """A compiled function that Python calls, and that may run on several threads."""
    compiled: Any = numba.njit(nogil=True, parallel=True, error_model="numpy")(function)
    compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return compiled


helper: Any = numba.njit(nogil=True, error_model="numpy")
"""A compiled function that kernels call: it becomes part of them."""
