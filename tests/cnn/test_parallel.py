"""Loops that threads share cover every index once, with any number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

from cnn import ops
from cnn.ops.cpu.codegen import compiler
from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.kernels.conv import gather_products, weight_gradient
from cnn.ops.threads import available_threads
from tests.cnn.windows import square

COUNTS = [0, 1, 2, 3, 7, 64, 1001]


@helper
def count_up(start: Any, stop: Any, visits: Any) -> Any:
    for index in range(start, stop):
        visits[index] += 1


@kernel
def visit(count: Any, visits: Any) -> Any:
    parallel_for(count, count_up, (visits,))  # type: ignore[call-arg]


def check() -> None:
    for count in COUNTS:
        visits = np.zeros(count + 1, np.int64)
        visit(count, visits)
        assert visits.tolist() == [1] * count + [0]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_index_is_visited_once(threads: int) -> None:
    if threads > available_threads():
        pytest.skip("this process may use one core")
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        check()
    finally:
        numba.set_num_threads(before)


def test_every_index_is_visited_once_by_the_threading_layer_that_is_there_on_every_machine() -> None:
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "PYTHONWARNINGS": ""}
    script = "from tests.cnn.test_parallel import check; check()"
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)


SIZES: dict[Any, list[tuple[int, ...]]] = {gather_products: [(2,), (3,)], weight_gradient: [(2, 3), (3, 2), (3, 3)]}


@pytest.mark.parametrize("make", SIZES)
def test_kernels_for_other_sizes_are_cached_apart(make: Any) -> None:
    keys = {tuple(compiler._constants(make(*size).compiled.py_func)) for size in SIZES[make]}
    assert len(keys) == len(SIZES[make])


@pytest.mark.parametrize("make", SIZES)
def test_helpers_for_other_sizes_have_other_names(make: Any) -> None:
    """Code of a kernel from the cache may have been compiled by a process that counted its functions differently."""
    names = set()
    for size in SIZES[make]:
        inner = [cell.cell_contents for cell in make(*size).compiled.py_func.__closure__]
        names |= {(value.py_func.__qualname__, size) for value in inner if not isinstance(value, int)}
    assert len({name for name, _ in names}) == len(names) >= len(SIZES[make])


def convolve(rows: int) -> list[float]:
    """A convolution whose outputs are computed in blocks of this many."""
    x = torch.randn(2, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(rows, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    values: list[float] = ops.conv(x, weight, None, square(3, 1)).flatten().tolist()
    return values


@pytest.mark.long
def test_kernels_from_the_cache_that_other_processes_compiled_are_told_apart(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    script = "import sys; from tests.cnn.test_parallel import convolve; print([convolve(int(n)) for n in sys.argv[1:]])"

    def run(*sizes: str) -> list[list[float]]:
        command = [sys.executable, "-c", script, *sizes]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120)
        found: list[list[float]] = json.loads(done.stdout)
        return found

    assert run("2", "3") == [*run("2"), *run("3")]
    (tmp_path / "again").mkdir()
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "again")
    first, second = run("2"), run("3")
    assert run("2", "3") == [*first, *second]
