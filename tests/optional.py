"""Libraries that the project uses if they are there: trackers, searches, clusters, a browser for the page of a report.

Tests of them are marked `optional`. Where a library is missing they are skipped; `.ci/run` runs them once more in an
environment that has all of them, and there a missing one is a failure.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

REQUIRED = os.environ.get("OPTIONAL_LIBRARIES") == "required"


def needs(*libraries: str, extra: str) -> None:
    """Skip the module or the test that calls this if a library is missing."""
    for library in libraries:
        if REQUIRED:
            importlib.import_module(library)
        else:
            pytest.importorskip(library, reason=f'{library} is missing: pip install -c constraints.txt -e ".[{extra}]"')


def needs_program(path: Path) -> None:
    """Skip the module or the test that calls this if a program is missing."""
    if not path.exists():
        assert not REQUIRED, f"{path} is missing"
        pytest.skip(f"{path} is missing", allow_module_level=True)
