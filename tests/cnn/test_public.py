"""The names of the package are there, and loaded only when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cnn
from cnn import public


def test_every_name_is_there() -> None:
    assert cnn.__all__ == public.__all__
    assert all(getattr(cnn, name) is getattr(public, name) for name in cnn.__all__)
    with pytest.raises(AttributeError, match="module 'cnn' has no attribute 'Conv'"):
        cnn.Conv  # noqa: B018


def test_texts_and_faults_start_without_torch() -> None:
    shown = "print('torch' in sys.modules)"
    code = f"import sys, cnn.text, cnn.faults; {shown}; import cnn; cnn.Mode; {shown}"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]
