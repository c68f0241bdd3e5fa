from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.optional import needs, needs_program
from tools import browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "driver" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.optional)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Chromium; a test that wants it is skipped where it or selenium is missing."""
    needs("selenium", extra="browser")
    for program in (browser.CHROMIUM, browser.DRIVER):
        needs_program(program)
    with browser.browser() as opened:
        yield opened
