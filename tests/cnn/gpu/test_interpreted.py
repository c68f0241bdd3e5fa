"""Every Triton kernel agrees with the reference set, in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

from tests.cnn.gpu.cases import CASES
from tests.cnn.gpu.interpreted import tried

ROOT = Path(__file__).parents[3]
PARTS = 2
"""Processes that share the cases, each with its own group of tests."""

TOLERANCES = {"torch.float32": 1e-6, "torch.float64": 1e-13}


@cache
def results(part: int) -> dict[tuple[str, str], dict[str, float]]:
    """The errors of each case of a part, in each dtype."""
    command = [sys.executable, "-m", "tests.cnn.gpu.interpreted", str(part), str(PARTS)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["case"], row["dtype"]): row["errors"] for row in rows}


def cases() -> Iterator[object]:
    for number, name in enumerate(CASES):
        part = number % PARTS
        yield pytest.param(part, name, id=name, marks=pytest.mark.xdist_group(f"interpreted {part}"))


@pytest.mark.parametrize(("part", "name"), [*cases()])
def test_kernels_agree_with_the_reference_set(part: int, name: str) -> None:
    for dtype in map(str, tried(name)):
        errors = results(part)[name, dtype]
        assert errors
        assert max(errors.values()) <= TOLERANCES[dtype], errors
