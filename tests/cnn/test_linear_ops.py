"""Products of linear layers against torch, at the sizes where blocks overlap, with as many threads as there are."""

from __future__ import annotations

import pytest
import torch

from cnn import ops
from cnn.gradients.finite_differences import relative_error


@pytest.mark.parametrize("batch", [0, 1, 2, 8, 15, 16, 17, 33, 100])
@pytest.mark.parametrize("outputs", [1, 5, 7, 9, 11, 13, 14, 25, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products(outputs: int, batch: int, dtype: torch.dtype) -> None:
    """Several times, as threads might write to one another's places."""
    generator = torch.Generator().manual_seed(outputs + batch)
    inputs = 70
    x, weight, dy = (
        torch.randn(*shape, generator=generator, dtype=dtype)
        for shape in ((inputs, batch), (outputs, inputs), (outputs, batch))
    )
    bias = torch.randn(outputs, generator=generator, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    first = ops.linear(x, weight, bias)
    for _ in range(5):
        y, dx = ops.linear(x, weight, bias), ops.linear_backward_input(dy, weight)
        dweight, dbias = torch.ones_like(weight), torch.ones_like(bias)
        ops.add_linear_backward_weight(x, dy, dweight, dbias)
        assert torch.equal(y, first)
        expected = [weight @ x + bias[:, None], weight.t() @ dy, 1 + dy @ x.t(), 1 + dy.sum(1)]
        for found, wanted in zip((y, dx, dweight, dbias), expected, strict=True):
            assert found.shape == wanted.shape
            assert not wanted.numel() or relative_error(found, wanted) <= tolerance
