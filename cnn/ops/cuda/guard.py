"""Flags of faults, and what is put back where they are set, in Triton: one launch for all tensors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cnn.ops.cuda.kernels import guard as kernels
from cnn.ops.cuda.launching import blocks, launch

BLOCK = 4096
WORDS = 1024


def note_not_finite(x: Tensor, flag: Tensor) -> None:
    launch(kernels.find_not_finite, (blocks(x.numel(), BLOCK),), x.contiguous(), flag, x.numel(), BLOCK)


def note_strays(numbers: Tensor, count: int, flag: Tensor) -> None:
    size = numbers.numel()
    launch(kernels.find_strays, (blocks(size, BLOCK),), numbers.contiguous(), flag, size, count, BLOCK)


def save(homes: Sequence[Tensor], copies: Sequence[Tensor], table: Tensor) -> None:
    launch(kernels.copy_words, _grid(homes), table, table, False, WORDS)


def put_back(homes: Sequence[Tensor], copies: Sequence[Tensor], table: Tensor, flag: Tensor) -> None:
    launch(kernels.copy_words, _grid(homes), table, flag, True, WORDS)


def _grid(homes: Sequence[Tensor]) -> tuple[int, int]:
    return blocks(max(home.numel() for home in homes), WORDS), len(homes)
