from __future__ import annotations

from collections.abc import Iterator

import pytest

from cnn import ops
from cnn.ops.threads import available_threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors this small threads only wait for each other."""
    ops.set_threads(1)
    yield
    ops.set_threads(available_threads())
