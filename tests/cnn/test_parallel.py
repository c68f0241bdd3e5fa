"""Loops that threads share cover every index once, with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest

from cnn.ops.cpu.codegen import compiler
from cnn.ops.cpu.codegen.compiler import helper, kernel
from cnn.ops.cpu.codegen.parallel import parallel_for
from cnn.ops.cpu.kernels.conv import gather_products, weight_gradient
from cnn.ops.threads import available_threads

COUNTS = [0, 1, 2, 3, 7, 64, 1001]


@helper
def count_up(start: Any, stop: Any, visits: Any) -> Any:
    for index in range(start, stop):
        visits[index] += 1


@kernel
def visit(count: Any, visits: Any) -> Any:
    parallel_for(count, count_up, (visits,))


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


@pytest.mark.parametrize("make", [gather_products, weight_gradient])
def test_kernels_for_other_sizes_are_cached_apart(make: Any) -> None:
    sizes = [(2, 3), (3, 2), (3, 3)] if make is weight_gradient else [(1,), (2,)]
    keys = {tuple(compiler._constants(make(*size).py_func)) for size in sizes}
    assert len(keys) == len(sizes)
