"""A table of learned vectors. Derived in docs/linear.md."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from cnn import initializers, ops
from cnn.arguments import Positive
from cnn.faults import ConfigError, Fault
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, Shape


class Embedding(Layer):
    """Look up a learned vector for each whole number of the input, as `torch.nn.Embedding` does.

    Forward:  y[e, p, n] = weight[k, e],  k = x[p, n], rounded to the nearest whole number
    Backward: dweight[k, e] = sum over all p, n with x[p, n] = k of dy[e, p, n],
              dx = 0, since y doesn't change where x changes a little

    The vector of `padding_idx` is 0 and isn't trained; a negative one counts from the end. Other vectors are drawn from
    N(0, 1).
    Shapes: x [*S, N], whole numbers in the network's dtype, weight [num_embeddings, embedding_dim],
            y [embedding_dim, *S, N].
    Raises ValueError for an x outside 0, ..., num_embeddings - 1.
    Source: Bengio et al. 2003, "A neural probabilistic language model", section 2.
    """

    kind = "embedding"
    weight: Parameter

    def __init__(self, num_embeddings: Positive, embedding_dim: Positive, padding_idx: int | None = None) -> None:
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            problem = f"{padding_idx} is not allowed, give {-num_embeddings} to {num_embeddings - 1}, or null"
            raise ConfigError([Fault("padding_idx", problem)])
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.embedding_dim, *input_shape

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        start = partial(initializers.normal, zero_row=self.padding_idx)
        return {"weight": Parameter((self.num_embeddings, self.embedding_dim), start, decay=True)}

    def propagate_gain(self, gain: float) -> float:
        return 1.0

    def flops(self, input_shape: Shape) -> int:
        return 0

    def example(self, x: Tensor) -> Tensor:
        """Whole numbers other than `padding_idx`: what backward gives its vector is 0, and no derivative."""
        padding = self.num_embeddings if self.padding_idx is None else self.padding_idx % self.num_embeddings
        others = max(self.num_embeddings - (self.padding_idx is not None), 1)
        numbers = ((x + 2) * (others / 4)).floor().clamp(0, others - 1)
        return (numbers + (numbers >= padding)).clamp(max=self.num_embeddings - 1)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        numbers = x.round()
        ops.require_within(numbers, self.num_embeddings, lambda _: self._fault(x))
        index = numbers.flatten().to(torch.int64).clamp_(0, self.num_embeddings - 1)  # a recorded step goes on first
        y = self.weight.data.t().index_select(1, index)
        return y.view(self.embedding_dim, *x.shape), mode.keep(index, x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        index, x = cache.take()
        if need_dparams:
            gradient = self.weight.grad
            padding = None if self.padding_idx is None else gradient[self.padding_idx].clone()
            ops.add_rows(gradient, index, dy.flatten(1).t())
            if padding is not None:
                gradient[self.padding_idx] = padding
        return torch.zeros_like(x) if need_dx else None

    def _fault(self, x: Tensor) -> Exception:
        wrong = next(value for value in x.flatten().tolist() if not 0 <= _rounded(value) < self.num_embeddings)
        return ValueError(f"embedding got {wrong:g}, but its vectors are numbered 0 to {self.num_embeddings - 1}")


def _rounded(value: float) -> float:
    return round(value) if math.isfinite(value) else value
