"""Copies from the host's memory to a device that don't wait for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A copy of a small CPU tensor on a device; the tensor itself, if the device is the CPU.

    On a GPU the copy is queued like a kernel. The memory that it reads is pinned, and comes from torch's caching
    allocator, which doesn't give it to anyone else before the copy is done: no buffers have to be kept in turn.
    """
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def upload_rows(table: Tensor, chosen: Tensor, device: torch.device) -> Tensor:
    """table[chosen] of CPU tensors, on a device. Raises IndexError for an unknown row."""
    pinned = device.type == "cuda"  # gathered where `upload` reads them, without a copy in between
    rows = torch.empty((len(chosen), *table.shape[1:]), dtype=table.dtype, pin_memory=pinned)
    torch.index_select(table, 0, chosen, out=rows)
    return upload(rows, device)


def fit_on(device: torch.device, tensors: Sequence[Tensor], share: float) -> bool:
    """Whether tensors take at most this share of a device's free memory."""
    return sum(tensor.nbytes for tensor in tensors) <= share * free_memory(device)


def free_memory(device: torch.device) -> float:
    """Free bytes of a GPU. Of other devices infinity: their memory is the host's, where the examples are already."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
