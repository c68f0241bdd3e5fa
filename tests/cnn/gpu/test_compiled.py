"""What the shipped models' training steps launch compiles for GPUs, without one, and fits on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

ROOT = Path(__file__).parents[3]
MAX_STACK = 32
"""Bytes of a stack that ptxas makes for a few addresses outside of loops, although registers are free."""

MAX_SHARED = 99 << 10
"""Bytes of shared memory that a program may have on every GPU since 2020."""


def compiled(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a process without a GPU compiles, in a cache of its own."""
    command = [sys.executable, "-m", "tests.cnn.gpu.compiled", *arguments]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(rows: Sequence[dict[str, Any]]) -> None:
    assert {row["kernel"] for row in rows} >= {"gather", "weight_products", "product", "moments", "gradient", "adam"}
    assert [row for row in rows if row["stack"] > MAX_STACK] == []
    assert [row for row in rows if row["shared"] > MAX_SHARED] == []


def test_a_step_compiles_for_a_gpu(tmp_path: Path) -> None:
    check(compiled(tmp_path, "90", "float32", "128", "blocks"))


MODELS = "seed8,blocks,lenet,resnet13"


@pytest.mark.long
@pytest.mark.timeout(1100)
@pytest.mark.parametrize(
    ("capability", "precisions", "batch", "models"),
    [
        ("90", "float32,tf32,bf16", "128", MODELS),
        ("80", "float32", "128", MODELS),
        ("90", "float32", "100", MODELS),  # values are loaded one by one
        ("90", "float32", "1,16", "cases"),  # Triton makes a constant of an argument that is 1
    ],
)
def test_every_step_compiles(capability: str, precisions: str, batch: str, models: str, tmp_path: Path) -> None:
    check(compiled(tmp_path, capability, precisions, batch, models))
