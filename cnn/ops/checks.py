"""The checks that every front makes, once, before a backend computes: compiled loops don't look where arrays end."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.window import Window


def check_shape(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError where a tensor hasn't the shape that goes with the others."""
    if tensor.shape != shape:
        raise ValueError(f"{name} is {list(tensor.shape)}, the other tensors call for {list(shape)}")


def check_vectors(x: Tensor, **vectors: Tensor | None) -> None:
    """Raise ValueError where a vector isn't [C], with as many values as x has channels, and of x's type."""
    for name, vector in vectors.items():
        if vector is not None:
            check_shape(vector, x.shape[:1], name)
            if vector.dtype != x.dtype:
                raise ValueError(f"{name} is {vector.dtype}, x is {x.dtype}: give one type")


def check_weight(weight: Tensor, window: Window, groups: int, other: Tensor, bias: Tensor | None = None) -> None:
    """Raise ValueError where weight [O, C/G, *K] or bias [O] don't fit the window, the groups or the other's type."""
    check_shape(weight, (weight.shape[0] // groups * groups, weight.shape[1], *window.kernel), "weight")
    if bias is not None:
        check_shape(bias, weight.shape[:1], "bias")
    for tensor in (weight, bias):
        if tensor is not None and tensor.dtype != other.dtype:
            raise ValueError(f"the weights are {tensor.dtype}, what they meet is {other.dtype}: give one type")


def check_writable(**tensors: Tensor | None) -> None:
    """Raise ValueError where a tensor that is written to isn't contiguous: what is written to a copy would be lost."""
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} is changed in place and has to be contiguous")
