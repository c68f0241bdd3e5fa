"""What is compiled from other sources is compiled anew."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

from cnn.ops import compiler, emitter, norm_kernels, window_kernels

kernels = importlib.import_module("cnn.ops.kernels")  # as an attribute, `ops.kernels` is a function


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
