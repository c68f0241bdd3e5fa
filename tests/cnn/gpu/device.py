"""What tests on a GPU have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from cnn.ops import Precision, precision, set_precision

ON_A_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
)
"""The marks of a test that needs a GPU."""


@contextmanager
def products_in(name: Precision) -> Iterator[None]:
    """Multiply matrices with this precision in a `with` block."""
    before = precision.chosen()
    set_precision(name)
    try:
        yield
    finally:
        set_precision(before)
