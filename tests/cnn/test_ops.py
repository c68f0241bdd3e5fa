"""The two sets of kernels against each other: same names, same signatures, same numbers, NaN included."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cnn import ops
from cnn.gradcheck import relative_error
from cnn.ops import Window, compiled, convolution, direct, dispatch, meetings, reference

ROOT = Path(__file__).parents[2]
NAMES = [
    name
    for name, function in inspect.getmembers(compiled, inspect.isfunction)
    if function.__module__ == compiled.__name__
]
TRAINING: dict[str, Any] = {"training": True, "momentum": 0.1, "eps": 1e-5}
PUBLIC = [name for name in NAMES if not name.startswith("_")]


def test_both_sets_have_the_same_functions() -> None:
    assert len(PUBLIC) == 11
    for name in PUBLIC:
        assert inspect.signature(getattr(compiled, name)) == inspect.signature(getattr(reference, name))
        assert getattr(dispatch, name).__wrapped__ is getattr(reference, name)


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


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, tuple[int, ...]]:
    axes = draw(st.integers(1, 3))
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    window = Window(per_axis(1, 3), per_axis(1, 3), per_axis(1, 2), per_axis(0, 3), per_axis(-1, 3))
    size = tuple(
        draw(st.integers(max(1, span - before - after), 7))
        for span, before, after in zip(window.span, window.before, window.after, strict=True)
    )
    return window, size


def square(kernel: int, stride: int) -> Window:
    """A window over two axes, without padding."""
    return Window((kernel,) * 2, (stride,) * 2, (1, 1), (0, 0), (0, 0))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@given(windows(), st.integers(1, 3), st.integers(1, 4))
def test_im2col_and_its_adjoint(drawn: tuple[Window, tuple[int, ...]], channels: int, batch: int) -> None:
    """Both sets agree, and <im2col(x), c> = <x, col2im(c)> for every x and c."""
    window, size = drawn
    x = normal(channels, *size, batch)
    columns = reference.im2col(x, window)
    assert torch.equal(compiled.im2col(x, window), columns)
    other = normal(*columns.shape)
    back = reference.col2im(other, size, window)
    assert relative_error(compiled.col2im(other, size, window), back) < 1e-12 or not back.any()
    assert math.isclose(float((columns * other).sum()), float((x * back).sum()), rel_tol=1e-9, abs_tol=1e-9)


@given(windows(), st.integers(1, 3), st.integers(1, 4))
def test_max_pool_sets_agree_with_ties_and_nan(
    drawn: tuple[Window, tuple[int, ...]], channels: int, batch: int
) -> None:
    window, size = drawn
    x = normal(channels, *size, batch).mul(2).round()  # many ties
    x[normal(*x.shape) > 1.5] = math.nan
    x[normal(*x.shape) < -2] = -math.inf
    found, wanted = compiled.max_pool(x, window), reference.max_pool(x, window)
    assert torch.equal(found[0].nan_to_num(99.0), wanted[0].nan_to_num(99.0))
    on_input = reference.max_pool(torch.zeros_like(x), window)[0] == 0  # elsewhere the window holds nothing but padding
    assert torch.equal(found[1][on_input], wanted[1][on_input])
    dy = normal(*found[0].shape)
    dy[normal(*dy.shape) > 1.8] = math.inf
    pair = [module.max_pool_backward(dy, found[1], size, window) for module in (compiled, reference)]
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
    y = convolution.conv(x, weight, bias, window, groups)
    dy = normal(*y.shape).to(dtype)
    pairs = [(direct.conv(x, weight, bias, window, groups), y)]
    pairs += [
        (
            direct.conv_backward_input(dy, weight, size, window, groups),
            convolution.conv_backward_input(dy, weight, size, window, groups),
        )
    ]
    gradients = []
    for module in (direct, convolution):
        dweight, dbias = torch.ones_like(weight), torch.ones_like(bias)
        module.add_conv_backward_weight(x, dy, window, dweight, groups, dbias)
        gradients.append((dweight, dbias))
    pairs += zip(*gradients, strict=True)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for found, wanted in pairs:
        assert relative_error(found, wanted) < tolerance or not wanted.any()


@pytest.mark.parametrize("name", ["conv", "conv_backward_input", "add_conv_backward_weight"])
def test_both_convolutions_have_the_same_functions(name: str) -> None:
    signatures = [inspect.signature(getattr(module, name)) for module in (direct, convolution)]
    assert signatures[0] == signatures[1]
    assert getattr(ops, name).__wrapped__ is getattr(convolution, name)


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
    vectors = [torch.ones(1) for _ in range(4)]
    y, *_ = ops.batch_norm(x, *vectors, **TRAINING)
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


@pytest.mark.parametrize("stray", [-1, 3])
def test_targets_that_are_no_class_are_refused(stray: int, kernel_set: str) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        ops.cross_entropy(normal(3, 2), torch.tensor([0, stray]), torch.ones(3, dtype=torch.float64))


def test_other_types_run_on_the_reference() -> None:
    x = normal(2, 4, 4, 3).to(torch.bfloat16)
    assert ops.relu(x).dtype == torch.bfloat16
    assert ops.max_pool(x, square(2, 2))[0].shape == (2, 2, 2, 3)


def test_threads_are_refused_beyond_those_there_are() -> None:
    with pytest.raises(ValueError, match="100000 threads were asked for"):
        ops.set_threads(100000)


def test_shapes_that_do_not_fit_are_refused(kernel_set: str) -> None:
    """Compiled loops don't look where arrays end."""
    window = square(2, 2)
    x, ones = normal(3, 4, 4, 2), torch.ones(2, dtype=torch.float64)
    y, winner = ops.max_pool(x, window)
    rows = normal(3, 8)
    three = torch.ones(3, dtype=torch.float64)
    wrong = [
        lambda: ops.relu_backward(normal(30, 20), normal(3, 2)),
        lambda: ops.relu_backward(normal(3, 1), normal(3, 2)),
        lambda: ops.max_pool_backward(y[:, :1], winner, (4, 4), window),
        lambda: ops.max_pool_backward(y, winner[..., :1], (4, 4), window),
        lambda: ops.max_pool_backward(y, winner, (9, 9), window),
        lambda: ops.col2im(normal(3, 2, 2, 2, 2, 2), (9, 9), window),
        lambda: ops.batch_norm(rows, ones, three, three, three, **TRAINING),
        lambda: ops.batch_norm(rows, three, ones, three, three, **TRAINING),
        lambda: ops.batch_norm_backward(rows[:, :3], rows, normal(2, 3), three, None, None),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 3), ones, None, None),
        lambda: ops.conv(normal(3, 4, 4, 32), normal(5, 2, 2, 2), None, window),
        lambda: ops.conv_backward_input(normal(5, 2, 2, 32), normal(4, 3, 2, 2), (4, 4), window),
        lambda: ops.conv_backward_input(normal(5, 3, 2, 32), normal(5, 3, 2, 2), (4, 4), window),
        lambda: ops.add_conv_backward_weight(normal(3, 4, 4, 32), normal(5, 3, 2, 32), window, normal(5, 3, 2, 2)),
        lambda: ops.add_conv_backward_weight(normal(3, 4, 4, 32), normal(5, 2, 2, 32), window, normal(5, 4, 2, 2)),
        lambda: ops.cross_entropy(normal(3, 4), torch.zeros(5, dtype=torch.long)),
        lambda: ops.cross_entropy(normal(3, 4), torch.zeros(4, dtype=torch.long), ones),
        lambda: ops.conv(normal(3, 4, 4, 32), normal(5, 3, 3, 2), None, window),
        lambda: ops.conv(normal(3, 4, 4, 32), normal(5, 3, 2, 2), three, window),
        lambda: ops.conv(normal(4, 4, 4, 32), normal(5, 2, 2, 2), None, window, 2),
        lambda: ops.add_conv_backward_weight(
            normal(3, 4, 4, 32), normal(5, 2, 2, 32), window, normal(5, 3, 2, 2), 1, three
        ),
        lambda: ops.batch_norm(rows, three, three, ones, three, **TRAINING),
        lambda: ops.batch_norm(rows, three, three, three, ones, **TRAINING),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 2), three, None, None),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 3), three, ones, None),
        *(lambda vectors=vectors: adam(*vectors) for vectors in short_vectors()),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="the other tensors call for"):
            call()
    with pytest.raises(IndexError):
        ops.take_examples(normal(8, 2), normal(3, 8), torch.tensor([0, 3]))


def adam(data: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
    ops.adam(data, gradient, mean, square, betas=(0.9, 0.99), eps=1e-8, step=0.1, correction=1.0)


def short_vectors() -> list[list[Tensor]]:
    """The four vectors of Adam, each of the last three once too short."""
    return [[normal(3 if number == short else 4) for number in range(4)] for short in (1, 2, 3)]


def test_types_that_differ_are_refused(kernel_set: str) -> None:
    window, x, weight, dy = square(2, 2), normal(3, 4, 4, 32), normal(5, 3, 2, 2), normal(5, 2, 2, 32)
    three = torch.ones(3)
    for call in (
        lambda: ops.conv(x, weight.float(), None, window),
        lambda: ops.conv(x.float(), weight, None, window),
        lambda: ops.conv(x, weight, torch.ones(5), window),
        lambda: ops.conv_backward_input(dy.float(), weight, (4, 4), window),
        lambda: ops.add_conv_backward_weight(x, dy.float(), window, weight),
        lambda: ops.add_conv_backward_weight(x.float(), dy, window, weight),
        lambda: ops.batch_norm(normal(3, 8), three, three, three, three, **TRAINING),
    ):
        with pytest.raises(ValueError, match="give one type"):
            call()


def test_what_is_changed_in_place_is_not_lost_in_a_copy() -> None:
    window, x, dy = square(2, 2), normal(3, 4, 4, 32), normal(5, 2, 2, 32)
    across = normal(2, 2, 3, 5).permute(3, 2, 0, 1)
    every_second = normal(6)[::2]
    three = torch.ones(3, dtype=torch.float64)
    for call in (
        lambda: ops.add_conv_backward_weight(x, dy, window, across),
        lambda: ops.batch_norm(normal(3, 8), three, three, every_second, three, **TRAINING),
        lambda: adam(normal(3), normal(3), every_second, normal(3)),
    ):
        with pytest.raises(ValueError, match="is changed in place and has to be contiguous"):
            call()


NARROW = """
import llvmlite.binding
features = llvmlite.binding.get_host_cpu_features()
features["avx512f"] = False
llvmlite.binding.get_host_cpu_features = lambda: features
import torch
from cnn import ops
from cnn.ops import Window, emitter
assert emitter.VECTOR_BYTES == 32
window = Window((3, 3), (1, 2), (2, 1), (2, 1), (2, 1))
for channels, outputs, batch in ((3, 13, 8), (7, 2, 21), (8, 8, 4)):
    x, weight = torch.randn(channels, 9, 8, batch), torch.randn(outputs, channels, 3, 3)
    found = {}
    for kernels in ("compiled", "reference"):
        dweight = torch.zeros_like(weight)
        with ops.kernels(kernels):
            y = ops.conv(x, weight, None, window)
            ops.add_conv_backward_weight(x, y, window, dweight)
            ones = [torch.ones(channels) for _ in range(4)]
            z = ops.batch_norm(x, *ones, training=True, momentum=0.1, eps=1e-5, rectify=True)[0]
            found[kernels] = y, ops.conv_backward_input(y, weight, (9, 8), window), dweight, z
    for a, b in zip(*found.values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
"""


def test_machines_with_narrower_vectors_compute_the_same() -> None:
    subprocess.run([sys.executable, "-c", NARROW], check=True, cwd=ROOT, timeout=300)


def test_tables_of_many_sizes_are_let_go() -> None:
    made = []
    keep = meetings.Kept(limit=1000)

    @keep
    def table(size: int) -> tuple[Any, ...]:
        made.append(size)
        return np.zeros(size, np.uint8), size

    for size in (400, 500, 400, 300, 400, 500, 2000, 2000):
        assert table(size)[1] == size
        assert not table(size)[0].flags.writeable
        assert keep.nbytes <= max(1000, size)
    assert made == [400, 500, 300, 500, 2000]
