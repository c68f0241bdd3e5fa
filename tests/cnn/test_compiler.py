"""Kernels are compiled once: a second process finds them on the disk, and other sources are compiled anew."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cnn.ops import compiler, emitter, norm_kernels, window_kernels

kernels = importlib.import_module("cnn.ops.kernels")  # as an attribute, `ops.kernels` is a function

STEP = """
import torch
from cnn import Mode, build_model
net = build_model({"layers": [{"conv2d": {"out_channels": 2, "kernel_size": 3}}, "batch_norm", "relu"]}, (1, 5, 5))
y, cache = net.forward(torch.ones(1, 5, 5, 16), Mode(train=True))
net.backward(y, cache)
"""


def compiled_files(folder: Path) -> dict[str, int]:
    """Each machine-code file with the time of its last writing, in ns."""
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*.nbc")}


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    seen = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", STEP], check=True, env=environment, timeout=120)
        seen.append(compiled_files(tmp_path))
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 4


@pytest.mark.parametrize(
    ("changed", "stale", "good"),
    [
        (emitter, [emitter, norm_kernels], [kernels, window_kernels]),
        (window_kernels, [window_kernels, norm_kernels], [kernels]),
    ],
)
def test_what_is_made_of_other_sources_is_compiled_anew(
    changed: ModuleType, stale: list[ModuleType], good: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = compiler._fingerprint.__wrapped__
    monkeypatch.setattr(compiler, "_fingerprint", fingerprint)  # without the memory of earlier answers
    before = {module: fingerprint(module) for module in [*stale, *good]}
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: source(module) + "# new" * (module is changed))
    assert all(fingerprint(module) != before[module] for module in stale)
    assert all(fingerprint(module) == before[module] for module in good)
