from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tools import browser


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Chromium; a test that wants it is skipped where it or selenium is missing."""
    pytest.importorskip("selenium", reason='selenium is missing: pip install -c constraints.txt -e ".[browser]"')
    for program in (browser.CHROMIUM, browser.DRIVER):
        if not program.exists():
            pytest.skip(f"there is no {program}")
    with browser.browser() as opened:
        yield opened
