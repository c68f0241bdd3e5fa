"""The checks of fronts, made once before a backend runs: compiled loops don't check bounds."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.window import Window


def check_shape(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError if a tensor doesn't have the shape that the other arguments imply."""
    if tensor.shape != shape:
        raise ValueError(f"{name}: shape mismatch, got {list(tensor.shape)} instead of {list(shape)}")


def check_vectors(x: Tensor, **vectors: Tensor | None) -> None:
    """Raise ValueError if a vector isn't [C], one value per channel of x, with the dtype of x."""
    for name, vector in vectors.items():
        if vector is not None:
            check_shape(vector, x.shape[:1], name)
            if vector.dtype != x.dtype:
                raise ValueError(f"{name} is {vector.dtype}, x is {x.dtype}: use one dtype")


def check_weight(weight: Tensor, window: Window, groups: int, other: Tensor, bias: Tensor | None = None) -> None:
    """Raise ValueError if weight [O, C/G, *K] or bias [O] doesn't fit the window, the groups or `other`'s dtype."""
    check_shape(weight, (weight.shape[0] // groups * groups, weight.shape[1], *window.kernel), "weight")
    if bias is not None:
        check_shape(bias, weight.shape[:1], "bias")
    for tensor in (weight, bias):
        if tensor is not None and tensor.dtype != other.dtype:
            raise ValueError(f"the weights are {tensor.dtype}, the activations {other.dtype}: use one dtype")


def check_writable(**tensors: Tensor | None) -> None:
    """Raise ValueError if a tensor to be written to isn't contiguous: a backend might write to a copy."""
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} is changed in place and has to be contiguous")


def unknown_classes(strays: int, classes: int) -> IndexError:
    """The error for this many targets that aren't classes."""
    return IndexError(f"{strays} targets are not among the classes 0 to {classes - 1}")
