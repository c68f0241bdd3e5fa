"""Tensors as the numpy arrays of compiled loops: contiguous, with the axes that the loops expect.

The arrays are views of the tensors' memory, but copies of tensors that aren't contiguous, which may only be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]


def array(tensor: Tensor) -> Array:
    """The tensor's memory, in its shape."""
    return tensor.contiguous().numpy()


def flat(tensor: Tensor) -> Array:
    """Everything in one axis: [L]."""
    return array(tensor).reshape(-1)


def channels(tensor: Tensor) -> Array:
    """[C, *S, N] as [C, L]."""
    return array(tensor).reshape(tensor.shape[0], -1)


def lines(tensor: Tensor) -> Array:
    """[C, *S, N] as [C, D, H, W N], missing axes of size one."""
    count, *size, batch = tensor.shape
    depth, height, width = (*(1,) * (3 - len(size)), *size)
    return array(tensor).reshape(count, depth, height, width * batch)
