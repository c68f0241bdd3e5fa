"""Large buffers are used again instead of being allocated afresh.

Fresh memory costs a page fault every 4 KiB: copying 64 MB into it takes several times as long as into used memory.
The pool hands out CPU memory as tensors and takes it back by itself when the last view of such a tensor dies: torch
holds the numpy array that it was made from for exactly as long as its storage lives. Other devices have caching
allocators.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 16
"""Below this many bytes malloc is as fast as the pool."""


class Pool:
    """Free memory by size in bytes. At most `limit` bytes lie idle; then the sizes longest unused go first."""

    def __init__(self, limit: int = 2 << 30) -> None:
        self.limit = limit
        self.idle = 0
        self._free: dict[int, list[np.ndarray]] = {}
        self._leases: dict[int, weakref.ref[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised, contiguous CPU tensor."""
        nbytes = math.prod(shape) * dtype.itemsize
        free = self._free.get(nbytes)
        if free:
            memory = free.pop()
            self.idle -= nbytes
        else:
            memory = torch.empty(nbytes, dtype=torch.uint8).numpy()  # aligned for vector instructions
        lease = np.ndarray(shape, numpy_dtype(dtype), buffer=memory)
        key = id(lease)
        self._leases[key] = weakref.ref(lease, lambda _: self._release(key, memory))
        return torch.from_numpy(lease)

    def _release(self, key: int, memory: np.ndarray) -> None:
        del self._leases[key]
        if not self._make_room(memory.nbytes):
            return
        latest = self._free.pop(memory.nbytes, [])
        latest.append(memory)
        self._free[memory.nbytes] = latest
        self.idle += memory.nbytes

    def _make_room(self, nbytes: int) -> bool:
        """Let go of the sizes longest unused, unless even that is not enough; whether there is room."""
        if nbytes > self.limit:
            return False
        for size in list(self._free) if self.idle + nbytes > self.limit else ():
            while self.idle + nbytes > self.limit and self._free[size]:
                self._free[size].pop()
                self.idle -= size
        return True


@functools.cache
def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The type that numpy gives the values of such a tensor."""
    return torch.empty(0, dtype=dtype).numpy().dtype


_POOL = Pool()


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor on the device of `like`, and of its type unless `dtype` is given."""
    dtype = dtype or like.dtype
    if like.device.type == "cpu" and math.prod(shape) * dtype.itemsize >= SMALL:
        return _POOL.empty(shape, dtype)
    return torch.empty(shape, dtype=dtype, device=like.device)
