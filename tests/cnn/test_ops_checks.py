"""Arguments that don't fit each other are refused before a backend sees them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnn import ops
from tests.cnn.windows import normal, square


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
        lambda: batch_norm(rows, ones, three, three, three),
        lambda: batch_norm(rows, three, ones, three, three),
        lambda: ops.batch_norm_backward(rows[:, :3], rows, normal(2, 3), three, None),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 3), ones, None),
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
        lambda: batch_norm(rows, three, three, ones, three),
        lambda: batch_norm(rows, three, three, three, ones),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 2), three, None),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 3), three, (ones, three)),
        lambda: ops.batch_norm_backward(rows, rows, normal(2, 3), three, (three, ones)),
        lambda: ops.batch_norm_sums(rows[:, :3], rows, normal(2, 3)),
        lambda: ops.batch_norm_sums(rows, rows, normal(2, 2)),
        lambda: ops.batch_norm_dx(rows, rows, normal(2, 3), three, normal(2, 2), 8),
        lambda: ops.norm_pool_relu_backward(rows[:, :3], rows, normal(2, 3), three, None, ops.Route(rows, None)),
        lambda: ops.norm_pool_relu_backward(y, x, normal(2, 3), ones, None, ops.Route(winner, window)),
        lambda: ops.window_sum_backward(y[:, :1], (4, 4), window),
        *(lambda vectors=vectors: adam(*vectors) for vectors in short_vectors()),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="shape mismatch"):
            call()
    with pytest.raises(IndexError):
        ops.take_examples(normal(8, 2), normal(3, 8), torch.tensor([0, 3]))


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> None:
    ops.batch_norm(x, weight, bias, ops.Running(mean, var, momentum=0.1, eps=1e-5), training=True)


def adam(data: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
    ops.adam(
        data, gradient, mean, square, betas=(0.9, 0.99), eps=1e-8, step=torch.tensor(0.1), correction=torch.tensor(1.0)
    )


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
        lambda: batch_norm(normal(3, 8), three, three, three, three),
    ):
        with pytest.raises(ValueError, match="use one dtype"):
            call()


def test_what_is_changed_in_place_is_not_lost_in_a_copy(kernel_set: str) -> None:
    window, x, dy = square(2, 2), normal(3, 4, 4, 32), normal(5, 2, 2, 32)
    across = normal(2, 2, 3, 5).permute(3, 2, 0, 1)
    every_second = normal(6)[::2]
    three = torch.ones(3, dtype=torch.float64)
    for call in (
        lambda: ops.add_conv_backward_weight(x, dy, window, across),
        lambda: batch_norm(normal(3, 8), three, three, every_second, three),
        lambda: ops.batch_norm_backward(normal(3, 8), normal(3, 8), normal(2, 3), three, (three, every_second)),
        lambda: adam(normal(3), normal(3), every_second, normal(3)),
    ):
        with pytest.raises(ValueError, match="is changed in place and has to be contiguous"):
            call()


@pytest.mark.parametrize("stray", [-1, 3])
def test_targets_that_are_no_class_are_refused(stray: int, kernel_set: str) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        ops.cross_entropy(normal(3, 2), torch.tensor([0, stray]), torch.ones(3, dtype=torch.float64))


def test_threads_are_refused_beyond_those_there_are() -> None:
    with pytest.raises(ValueError, match="100000 threads were asked for"):
        ops.set_threads(100000)
