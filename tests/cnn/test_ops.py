"""The backends against each other: the same numbers, NaN included."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnn import ops
from cnn.gradients.finite_differences import relative_error
from cnn.ops import Window, cpu, reference
from tests.cnn.windows import normal, running, square, windows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(examples=st.integers(1, 5), values=st.integers(1, 70), seed=st.integers(0, 9))
def test_take_examples(dtype: torch.dtype, examples: int, values: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 256, (examples, values), dtype=torch.uint8, generator=generator)
    chosen = torch.randint(0, examples, (seed + 1,), generator=generator)
    for kernels in ("compiled", "reference"):
        x = torch.full((values, len(chosen)), torch.nan, dtype=dtype)
        with ops.kernels(kernels):
            ops.take_examples(x, rows, chosen)
        assert x.tolist() == [[rows[n, p].item() for n in chosen] for p in range(values)]


@given(windows(), st.integers(1, 3), st.integers(1, 4))
def test_im2col_and_its_adjoint(drawn: tuple[Window, tuple[int, ...]], channels: int, batch: int) -> None:
    """<im2col(x), c> = <x, col2im(c)> for every x and c."""
    window, size = drawn
    x = normal(channels, *size, batch)
    columns = ops.im2col(x, window)
    other = normal(*columns.shape)
    back = ops.col2im(other, size, window)
    assert math.isclose(float((columns * other).sum()), float((x * back).sum()), rel_tol=1e-9, abs_tol=1e-9)


@given(windows(), st.integers(1, 3), st.integers(1, 4))
def test_max_pool_sets_agree_with_ties_and_nan(
    drawn: tuple[Window, tuple[int, ...]], channels: int, batch: int
) -> None:
    window, size = drawn
    x = normal(channels, *size, batch).mul(2).round()  # many ties
    x[normal(*x.shape) > 1.5] = math.nan
    x[normal(*x.shape) < -2] = -math.inf
    found, wanted = cpu.pool.max_pool(x, window), reference.pool.max_pool(x, window)
    assert torch.equal(found[0].nan_to_num(99.0), wanted[0].nan_to_num(99.0))
    on_input = (
        reference.pool.max_pool(torch.zeros_like(x), window)[0] == 0
    )  # elsewhere the window holds nothing but padding
    assert torch.equal(found[1][on_input], wanted[1][on_input])
    dy = normal(*found[0].shape)
    dy[normal(*dy.shape) > 1.8] = math.inf
    pair = [module.max_pool_backward(dy, found[1], size, window) for module in (cpu.pool, reference.pool)]
    assert torch.allclose(pair[0], pair[1], rtol=1e-12, equal_nan=True)
    assert not pair[0].isnan().any()


@given(
    windows(),
    st.sampled_from([torch.float32, torch.float64]),
    st.tuples(st.integers(1, 2), st.sampled_from([1, 4, 7]), st.sampled_from([1, 5, 13])),
    st.sampled_from([8, 16, 19, 32, 37, 50]),
)
def test_convolution_without_columns(
    drawn: tuple[Window, tuple[int, ...]], dtype: torch.dtype, counts: tuple[int, int, int], batch: int
) -> None:
    """Forward, input gradient and parameter gradients are those of the matrix products on columns."""
    window, size = drawn
    groups, channels, outputs = counts
    x = normal(groups * channels, *size, batch).to(dtype)
    weight, bias = normal(groups * outputs, channels, *window.kernel).to(dtype), normal(groups * outputs).to(dtype)
    y = reference.conv.conv(x, weight, bias, window, groups)
    dy = normal(*y.shape).to(dtype)
    pairs = [(cpu.conv.conv(x, weight, bias, window, groups), y)]
    pairs += [
        (
            cpu.conv.conv_backward_input(dy, weight, size, window, groups),
            reference.conv.conv_backward_input(dy, weight, size, window, groups),
        )
    ]
    gradients = []
    for module in (cpu.conv, reference.conv):
        dweight, dbias = torch.ones_like(weight), torch.ones_like(bias)
        module.add_conv_backward_weight(x, dy, window, dweight, groups, dbias)
        gradients.append((dweight, dbias))
    pairs += zip(*gradients, strict=True)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for found, wanted in pairs:
        assert relative_error(found, wanted) < tolerance or not wanted.any()


def test_more_than_256_taps_are_numbered_in_wider_integers(kernel_set: str) -> None:
    x = normal(1, 20, 20, 2)
    y, winner = ops.max_pool(x, square(20, 1))
    assert winner.dtype == torch.int32
    assert torch.equal(winner.flatten().long(), x.view(400, 2).argmax(0))
    assert torch.equal(y.flatten(), x.view(400, 2).amax(0))


def test_nan_and_infinity_go_through_as_in_torch(kernel_set: str) -> None:
    x = torch.tensor([[math.nan, math.inf, -math.inf, -1.0, 2.0]])
    assert torch.equal(ops.relu(x).nan_to_num(9.0, 8.0), torch.relu(x).nan_to_num(9.0, 8.0))
    leaf = x.clone().requires_grad_()
    torch.relu(leaf).backward(torch.ones_like(x))
    assert leaf.grad is not None
    assert torch.equal(ops.relu_backward(torch.ones_like(x), ops.relu(x)), leaf.grad)
    leaf.grad = None
    leaky = torch.nn.functional.leaky_relu(leaf, 0.1)
    leaky.backward(torch.ones_like(x))
    assert torch.equal(ops.leaky_relu(x, 0.1).nan_to_num(9.0, 8.0), leaky.detach().nan_to_num(9.0, 8.0))
    slopes: Any = leaf.grad
    assert torch.equal(ops.leaky_relu_backward(torch.ones_like(x), x, 0.1), slopes)
    y, _ = ops.batch_norm(x, torch.ones(1), torch.ones(1), running(torch.ones(1)), training=True)
    assert y.isnan().all()
    window = square(2, 1)
    image = torch.ones(1, 3, 3, 1)
    image[0, 0, 0, 0], image[0, 2, 2, 0] = math.nan, math.inf
    y, _ = ops.max_pool(image, window)
    assert torch.equal(y.nan_to_num(9.0, 8.0), torch.tensor([[9.0, 1.0], [1.0, 8.0]]).view(1, 2, 2, 1))
    y = ops.conv(image, torch.ones(1, 1, 2, 2), None, window)
    assert y.isnan().flatten().tolist() == [True, False, False, False]
    assert y[0, 1, 1, 0] == math.inf


def test_arguments_that_are_not_contiguous(kernel_set: str) -> None:
    window = square(2, 1)
    x = normal(4, 5, 2, 3).permute(2, 0, 1, 3)
    weight = normal(2, 2, 3, 2).movedim(-1, 2)[..., :2]
    assert not x.is_contiguous()
    y = ops.conv(x, weight.contiguous(), None, window)
    assert torch.equal(y, ops.conv(x.contiguous(), weight.contiguous(), None, window))
    dy = normal(3, 4, 3, 2).movedim(-1, 0)
    assert not dy.is_contiguous()
    dweights = [torch.zeros_like(weight.contiguous()) for _ in range(2)]
    ops.add_conv_backward_weight(x, dy, window, dweights[0])
    ops.add_conv_backward_weight(x.contiguous(), dy.contiguous(), window, dweights[1])
    assert torch.allclose(dweights[0], dweights[1], rtol=1e-12)
