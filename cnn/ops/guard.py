"""What a step does that can't stop where a value is at fault: it sets a flag, and puts back what it has changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.reference import guard as reference


class Guard:
    """Copies of tensors, to put back where a flag is set.

    `flag` [] int32, on the device of the tensors, for which `why_not` has no reason.
    """

    def __init__(self, tensors: Sequence[Tensor], flag: Tensor) -> None:
        self.flag = flag
        self.homes = joined(tensors)
        self.copies = [torch.empty_like(home) for home in self.homes]
        rows = [
            [home.data_ptr(), copy.data_ptr(), home.numel()] for home, copy in zip(self.homes, self.copies, strict=True)
        ]
        self.table = torch.tensor(rows, dtype=torch.int64, device=flag.device).view(-1, 3)

    def save(self) -> None:
        """Copy the tensors."""
        if self.homes:
            choose(reference.save, self.homes[0])(self.homes, self.copies, self.table)

    def put_back(self) -> None:
        """Copy the copies back, if the flag is set."""
        if self.homes:
            choose(reference.put_back, self.homes[0])(self.homes, self.copies, self.table, self.flag)


def why_not(tensor: Tensor, device: torch.device) -> str:
    """Why a tensor can't be put back; empty if it can: it is on the device, and made of words of 4 bytes in a row."""
    words_in_a_row = tensor.is_contiguous() and not tensor.nbytes % 4 and not _start(tensor) % 4
    if words_in_a_row and tensor.device == device:
        return ""
    return f"a {tensor.dtype} tensor {list(tensor.shape)} on {tensor.device} can't be put back"


def _start(tensor: Tensor) -> int:
    """Where a tensor starts in its memory, in bytes."""
    return tensor.data_ptr() - tensor.untyped_storage().data_ptr() if tensor.numel() else 0


def joined(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The memory of tensors as few vectors of words of 4 bytes, where neighbours are one."""
    pieces = []
    for tensor in tensors:
        if tensor.numel():
            start = _start(tensor)
            pieces.append((tensor.untyped_storage().data_ptr(), start, start + tensor.nbytes, tensor))
    spans: list[tuple[int, int, int, Tensor]] = []
    for storage, start, end, tensor in sorted(pieces, key=lambda piece: piece[:3]):
        if spans and spans[-1][0] == storage and start <= spans[-1][2]:
            before = spans.pop()
            start, end = before[1], max(end, before[2])
        spans.append((storage, start, end, tensor))
    return [words(tensor, start // 4, (end - start) // 4) for _, start, end, tensor in spans]


def words(tensor: Tensor, start: int, count: int) -> Tensor:
    """Some words of the memory that a tensor is in, as float32, whose bits stay the same when they are copied."""
    whole = torch.empty(0, dtype=torch.float32, device=tensor.device)
    return whole.set_(tensor.untyped_storage(), start, (count,), (1,))
