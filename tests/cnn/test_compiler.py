"""Kernels are compiled again if their sources change, or if files on the disk are lost or damaged."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cnn.ops.cpu.codegen import compiler, emitter
from cnn.ops.cpu.kernels import activation, norm, window


@pytest.mark.parametrize(
    ("changed", "stale", "good"),
    [
        (emitter, [emitter, norm], [activation, window]),
        (window, [window, norm], [activation]),
    ],
)
def test_kernels_of_changed_sources_are_compiled_again(
    changed: ModuleType, stale: list[ModuleType], good: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = compiler._fingerprint.__wrapped__
    monkeypatch.setattr(compiler, "_fingerprint", fingerprint)  # without the memory of earlier answers
    before = {module: fingerprint(module) for module in [*stale, *good]}
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: source(module) + "# new" * (module is changed))
    assert all(fingerprint(module) != before[module] for module in stale)
    assert all(fingerprint(module) == before[module] for module in good)


def test_damaged_files_of_compiled_kernels_are_made_again(tmp_path: Path) -> None:
    script = "import torch; from cnn import ops; print(ops.relu(torch.tensor([-1.0, 2.0])).tolist())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for damage in (None, lambda content: content[: len(content) // 2], lambda content: b""):
        for suffix in ("*.nbc", "*.nbi"):
            for file in tmp_path.rglob(suffix) if damage else ():
                file.write_bytes(damage(file.read_bytes()))  # type: ignore[misc]
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120
            )
            assert (done.stdout, done.stderr) == ("[0.0, 2.0]\n", "")


def test_where_nothing_can_be_kept_each_process_compiles(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    script = "import torch; from cnn import ops; print(ops.relu(torch.tensor([-1.0, 2.0])).tolist())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file" / "folder")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.stderr) == ("[0.0, 2.0]\n", "")
