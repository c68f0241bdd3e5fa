"""A pool of large buffers, which are reused instead of being allocated again.

Fresh memory costs a page fault every 4 KiB: copying 64 MB into it takes several times as long as into used memory. The
pool hands out CPU memory as tensors and reclaims it when the last view of such a tensor is deleted: torch holds the
numpy array that the tensor was made from for exactly as long as the storage lives. Other devices have caching
allocators.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 16
"""Bytes below which malloc is as fast as the pool."""

SLAB = 1 << 23
"""Bytes that an arena takes from the system at once: numpy asks for huge pages from 4 MiB on."""

ALIGNMENT = 64
"""In bytes, that of the widest vector instructions."""


class Pool:
    """Free memory by size in bytes. At most `limit` bytes are idle; the least recently used sizes are freed first."""

    smallest = SMALL

    def __init__(self, limit: int = 2 << 30) -> None:
        self.limit = limit
        self.idle = 0
        self._free: dict[int, list[np.ndarray]] = {}
        self._leases: dict[int, weakref.ref[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised, contiguous CPU tensor."""
        nbytes = math.prod(shape) * dtype.itemsize
        try:  # and not first look, then take: another thread may take in between
            memory = self._free[nbytes].pop()
            self.idle -= nbytes
        except (KeyError, IndexError):
            memory = torch.empty(nbytes, dtype=torch.uint8).numpy()  # aligned for vector instructions
        lease = np.ndarray(shape, numpy_dtype(dtype), buffer=memory)
        key = id(lease)
        self._leases[key] = weakref.ref(lease, lambda _: self._release(key, memory))
        return torch.from_numpy(lease)

    def clear(self) -> None:
        """Free all idle memory."""
        self._free, self.idle = {}, 0

    def _release(self, key: int, memory: np.ndarray) -> None:
        del self._leases[key]
        if not self._make_room(memory.nbytes):
            return
        latest = self._free.pop(memory.nbytes, [])
        latest.append(memory)
        self._free[memory.nbytes] = latest
        self.idle += memory.nbytes

    def _make_room(self, nbytes: int) -> bool:
        """Free the least recently used sizes until this many bytes fit; returns whether they do."""
        if nbytes > self.limit:
            return False
        for size in list(self._free) if self.idle + nbytes > self.limit else ():
            while self.idle + nbytes > self.limit and self._free[size]:
                self._free[size].pop()
                self.idle -= size
        return True


class Arena(Pool):
    """The memory of one recorded step: used again within it, and kept with what was recorded.

    It is cut from slabs that numpy asks the system to put on huge pages: a convolution reads a few values from each of
    many channels, which lie on as many small pages. What is free again is joined with its neighbours, so that tensors
    of any size can follow.
    """

    smallest = 0

    def __init__(self) -> None:
        super().__init__(limit=1 << 62)
        self._slabs: list[np.ndarray[Any, Any]] = []
        self._gaps: dict[int, int] = {}  # by address: free bytes
        self._numbers = itertools.count()
        self._freed: deque[tuple[int, int, int]] = deque()
        """What became free since memory was last taken: that may happen at any time, also while it is taken."""
        self.nbytes = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        nbytes = -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        address = self._take(nbytes)
        slab = self._slab(address)
        assert slab is not None
        lease = np.ndarray(shape, numpy_dtype(dtype), buffer=slab, offset=address - slab.ctypes.data)
        key, freed = next(self._numbers), self._freed
        self._leases[key] = weakref.ref(lease, lambda _: freed.append((key, address, nbytes)))
        return torch.from_numpy(lease)

    def holds(self, address: int) -> bool:
        """Whether an address is in the arena."""
        return self._slab(address) is not None

    def unclaimed(self, tensor: Tensor) -> Tensor:
        """The same tensor; if it is in the arena, without keeping its memory from being used again."""
        slab = self._slab(tensor.data_ptr()) if tensor.device.type == "cpu" and tensor.numel() else None
        if slab is None:
            return tensor
        offset = (tensor.data_ptr() - slab.ctypes.data) // tensor.itemsize
        return torch.from_numpy(slab).view(tensor.dtype).as_strided(tensor.shape, tensor.stride(), offset)

    def _take(self, nbytes: int) -> int:
        """The address of free memory, the start of the smallest gap that is large enough."""
        self._give_back()
        fitting = [(size, address) for address, size in self._gaps.items() if size >= nbytes]
        size, address = min(fitting) if fitting else self._new_slab(nbytes)
        del self._gaps[address]
        if size > nbytes:
            self._gaps[address + nbytes] = size - nbytes
        return address

    def _new_slab(self, nbytes: int) -> tuple[int, int]:
        """A new gap, as its size and address. Not from torch, whose operations are being recorded."""
        size = max(SLAB, nbytes)
        whole = np.empty(size + ALIGNMENT, np.uint8)
        start = -whole.ctypes.data % ALIGNMENT
        slab = whole[start : start + size]
        self._slabs.append(slab)
        self._gaps[slab.ctypes.data] = size
        self.nbytes += size
        return size, slab.ctypes.data

    def _give_back(self) -> None:
        while self._freed:
            key, address, nbytes = self._freed.popleft()
            del self._leases[key]
            slab = self._slab(address)
            for start in [start for start, size in self._gaps.items() if address in (start + size, start - nbytes)]:
                if self._slab(start) is slab:
                    nbytes += self._gaps.pop(start)
                    address = min(address, start)
            self._gaps[address] = nbytes

    def _slab(self, address: int) -> np.ndarray[Any, Any] | None:
        return next((slab for slab in self._slabs if 0 <= address - slab.ctypes.data < slab.nbytes), None)


@functools.cache
def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The numpy dtype of a tensor's values."""
    return torch.empty(0, dtype=dtype).numpy().dtype


_SHARED = Pool()


class _Thread(threading.local):
    """What belongs to one thread of Python."""

    pool: Pool = _SHARED


_thread = _Thread()


def use(pool: Pool) -> Pool:
    """Take memory for this thread from this pool from now on; returns the one that was used before."""
    before, _thread.pool = _thread.pool, pool
    return before


@contextmanager
def only(pool: Pool) -> Iterator[None]:
    """Take memory from this pool in a `with` block."""
    before = use(pool)
    try:
        yield
    finally:
        use(before)


def empty_cache() -> None:
    """Free the memory that is kept for later: up to 2 GiB, if tensors had many different sizes."""
    _SHARED.clear()


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor with the device of `like`, and its dtype unless `dtype` is given."""
    dtype = dtype or like.dtype
    if like.device.type == "cpu" and math.prod(shape) * dtype.itemsize >= _thread.pool.smallest:
        return _thread.pool.empty(shape, dtype)
    return torch.empty(shape, dtype=dtype, device=like.device)


@functools.lru_cache(maxsize=256)
def constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers that never change, such as the weights of classes: read-only, and the same in each call.

    Making it again in each step would wait for a copy to the device, which can't be part of a CUDA graph.
    """
    return torch.tensor(numbers, dtype=dtype, device=device)


def write(home: Tensor, numbers: Tensor) -> None:
    """Copy a few numbers of the host to a tensor, on a GPU without waiting for what is queued there.

    A queued copy reads pinned memory, which torch gives to nobody else before the copy is done.
    """
    if home.device.type == "cuda":
        home.copy_(numbers.pin_memory(), non_blocking=True)
    else:
        home.copy_(numbers)
