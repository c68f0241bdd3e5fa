"""Matrix products in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.memory import empty


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = empty((len(weight), x.shape[1]), like=x)
    return torch.mm(weight, x, out=y) if bias is None else torch.addmm(bias[:, None], weight, x, out=y)


def linear_backward_input(dy: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(weight.t(), dy, out=empty((weight.shape[1], dy.shape[1]), like=dy))


def add_linear_backward_weight(x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None) -> None:
    dweight.addmm_(dy, x.t())
    if dbias is not None:
        dbias += dy.sum(1)
