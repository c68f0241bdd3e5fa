"""Products of a matrix of weights with the features of each example. Derived in docs/linear.md."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, check_vectors, check_writable
from cnn.ops.reference import linear as reference


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y = weight @ x + bias. x [I, N], weight [O, I], bias [O] -> y [O, N]."""
    check_shape(x, (weight.shape[1], *x.shape[1:2]), "x")
    check_shape(weight, (len(weight), len(x)), "weight")
    check_vectors(weight, bias=bias)
    _check_types(x, weight)
    return choose(reference.linear, x)(x, weight, bias)


def linear_backward_input(dy: Tensor, weight: Tensor) -> Tensor:
    """dx = weight^T @ dy. dy [O, N], weight [O, I] -> dx [I, N]."""
    check_shape(dy, (len(weight), *dy.shape[1:2]), "dy")
    _check_types(dy, weight)
    return choose(reference.linear_backward_input, dy)(dy, weight)


def add_linear_backward_weight(x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None) -> None:
    """dweight += dy @ x^T, and dbias += sum over n of dy[:, n] where there is a bias.

    x [I, N], dy [O, N], dweight [O, I], dbias [O].
    """
    check_shape(dweight, (len(dy), len(x)), "dweight")
    check_shape(dy, (len(dy), *x.shape[1:]), "dy")
    check_vectors(dy, dbias=dbias)
    check_writable(dweight=dweight, dbias=dbias)
    _check_types(x, dweight)
    choose(reference.add_linear_backward_weight, x)(x, dy, dweight, dbias)


def _check_types(x: Tensor, weight: Tensor) -> None:
    if x.dtype != weight.dtype:
        raise ValueError(f"the weights are {weight.dtype}, the activations {x.dtype}: use one dtype")
