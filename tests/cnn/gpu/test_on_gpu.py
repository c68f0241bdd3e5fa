"""Every Triton kernel agrees with the reference set on a GPU, and gives the same bits twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

from cnn.ops import Precision
from tests.cnn.gpu.cases import CASES
from tests.cnn.gpu.device import ON_A_GPU, products_in
from tests.cnn.gpu.trying import Where, run

pytestmark = [*ON_A_GPU]

BATCHES = 128, 100, 97
"""A multiple of every tile, of a vector of 16 bytes, and of nothing."""

TOLERANCES = {torch.float32: 2e-6, torch.float64: 1e-12}
ROUNDED: dict[Precision, float] = {"tf32": 2e-3, "bf16": 3e-2}
"""The tolerances of products whose factors are rounded to 11 and to 8 bits."""

PRODUCTS = [name for name in CASES if name.startswith(("convolution", "linear"))]

FOR_ONE_EXAMPLE = [name for name in CASES if name != "hits"]
"""Cases that need no second example. Triton compiles a kernel whose count is 1 for this very number."""


def worst(name: str, dtype: torch.dtype, batches: Sequence[int] = BATCHES) -> dict[str, float]:
    """The largest error of each output, over the numbers of examples; infinite if two calls differ in a bit."""
    found: dict[str, float] = {}
    for batch in batches:
        errors = run(name, Where("cuda", dtype, batch), times=2)
        found |= {f"{key}, {batch} examples": error for key, error in errors.items()}
    assert found
    return found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_with_the_reference_set(name: str, dtype: torch.dtype) -> None:
    errors = worst(name, dtype)
    assert max(errors.values()) <= TOLERANCES[dtype], errors


@pytest.mark.parametrize("name", FOR_ONE_EXAMPLE)
def test_one_example(name: str) -> None:
    errors = worst(name, torch.float32, [1])
    assert max(errors.values()) <= TOLERANCES[torch.float32], errors


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_rounded_factors(name: str, precision: Precision) -> None:
    with products_in(precision):
        errors = worst(name, torch.float32)
    assert max(errors.values()) <= ROUNDED[precision], errors
