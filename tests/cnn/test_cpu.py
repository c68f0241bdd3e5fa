"""The CPU's backend: other processors, and what it remembers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.ops.cpu import gather_lists

ROOT = Path(__file__).parents[2]
NARROW = """
import llvmlite.binding
features = llvmlite.binding.get_host_cpu_features()
features["avx512f"] = False
llvmlite.binding.get_host_cpu_features = lambda: features
import torch
from cnn import ops
from cnn.ops import PoolReLU, Running, Window
from cnn.ops.cpu.codegen import emitter
assert emitter.VECTOR_BYTES == 32
window = Window((3, 3), (1, 2), (2, 1), (2, 1), (2, 1))
for channels, outputs, batch in ((3, 13, 8), (7, 2, 21), (8, 8, 4)):
    x, weight = torch.randn(channels, 9, 8, batch), torch.randn(outputs, channels, 3, 3)
    found = {}
    for kernels in ("compiled", "reference"):
        dweight = torch.zeros_like(weight)
        with ops.kernels(kernels):
            y = ops.conv(x, weight, None, window)
            ops.add_conv_backward_weight(x, y, window, dweight)
            ones = [torch.ones(channels) for _ in range(4)]
            running, after = Running(*ones[2:], 0.1, 1e-5), PoolReLU(None, rectify=True)
            z = ops.norm_pool_relu(x, *ones[:2], running, after, training=True)[0]
            found[kernels] = y, ops.conv_backward_input(y, weight, (9, 8), window), dweight, z
    for a, b in zip(*found.values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
"""


@pytest.mark.long
def test_machines_with_narrower_vectors_compute_the_same() -> None:
    subprocess.run([sys.executable, "-c", NARROW], check=True, cwd=ROOT, timeout=300)


def test_tables_of_many_sizes_are_let_go() -> None:
    made = []
    keep = gather_lists.TableCache(limit=1000)

    @keep
    def table(size: int) -> tuple[Any, ...]:
        made.append(size)
        return np.zeros(size, np.uint8), size

    for size in (400, 500, 400, 300, 400, 500, 2000, 2000):
        assert table(size)[1] == size
        assert not table(size)[0].flags.writeable
        assert keep.nbytes <= max(1000, size)
    assert made == [400, 500, 300, 500, 2000]
