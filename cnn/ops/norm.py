"""Batch normalisation, in one step if the whole batch is here, in two if several processes share it.

In one step, `batch_norm` measures and normalises, and `batch_norm_backward` sums and differentiates. In two, there is a
sum over the processes in between, `reduce`: `shared_moments`, then `batch_norm` with its result as constants, and
`shared_batch_norm_backward`. Derived in docs/normalisation.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape, check_vectors, check_writable
from cnn.ops.reference import norm as reference
from cnn.ops.values import Gradients, Reduce, Running


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, running: Running, *, training: bool) -> tuple[Tensor, Tensor]:
    """y = weight * (x - mean) * rstd + bias, rstd = 1 / sqrt(var + eps), for each channel; and mean and rstd.

    In training, mean and (biased) variance are those of a channel's L = prod(S) * N values, and the running ones move
    towards them by `momentum`, with the unbiased variance. Otherwise they are the running ones.
    x [C, *S, N], weight, bias, running.mean, running.var [C] -> y [C, *S, N], statistics [2, C]: mean and rstd.
    """
    check_batch_norm(x, weight, bias, running, training=training)
    return choose(reference.batch_norm, x)(x, weight, bias, running, training=training)


def batch_norm_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None
) -> Tensor:
    """dx of batch_norm in training, where xhat = (x - mean) * rstd depends on the whole channel.

    With sums over a channel's L values:
    dx = weight * rstd * (dy - sum dy / L - xhat * sum (dy * xhat) / L),  dbias += sum dy,  dweight += sum dy * xhat.
    dy, x, dx [C, *S, N], statistics [2, C] from batch_norm, the others [C].
    """
    check_shape(dy, tuple(x.shape), "dy")
    check_batch_norm_backward(x, statistics, weight, gradients)
    return choose(reference.batch_norm_backward, x)(dy, x, statistics, weight, gradients)


def batch_norm_sums(dy: Tensor, x: Tensor, statistics: Tensor) -> Tensor:
    """The sums over each channel that dx depends on: of dy, and of dy * xhat.

    dy, x [C, *S, N], statistics [2, C] -> [2, C].
    """
    check_shape(dy, tuple(x.shape), "dy")
    check_shape(statistics, (2, x.shape[0]), "statistics")
    return choose(reference.batch_norm_sums, x)(dy, x, statistics)


def batch_norm_dx(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, sums: Tensor, count: Tensor | float
) -> Tensor:
    """dx = weight * rstd * (dy - sums[0] / count - xhat * sums[1] / count).

    dy, x, dx [C, *S, N], statistics, sums [2, C], weight [C]; count: values in each sum.
    """
    check_shape(dy, tuple(x.shape), "dy")
    check_shape(sums, (2, x.shape[0]), "sums")
    check_batch_norm_backward(x, statistics, weight, None)
    return choose(reference.batch_norm_dx, x)(dy, x, statistics, weight, sums, count)


def shared_moments(x: Tensor, running: Running, reduce: Reduce) -> Running:
    """Mean and (biased) variance of a batch that is split over processes; the running ones move towards them.

    The mean is reduced first, then the squared deviations from it, so that no digits cancel. Parts may differ in size.
    x [C, *S, N], `running` [C] -> [C]. Raises ValueError if the whole batch has one value per channel.
    """
    check_vectors(x, running_mean=running.mean, running_var=running.var)
    rows = x.flatten(1)  # [C, L]
    sums = torch.cat([rows.sum(1, dtype=torch.float64), _length(rows)])
    reduce(sums)
    count = sums[-1]
    if rows.shape[1] < 2 and count < 2:
        raise ValueError("one value per channel in the whole batch has no variance: give more examples")
    mean = (sums[:-1] / count).to(x.dtype)
    squares = (rows - mean[:, None]).square().sum(1, dtype=torch.float64)
    reduce(squares)
    running.mean.lerp_(mean, running.momentum)
    running.var.lerp_((squares / (count - 1)).to(x.dtype), running.momentum)
    return running._replace(mean=mean, var=(squares / count).to(x.dtype))


def shared_batch_norm_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None, reduce: Reduce
) -> Tensor:
    """As `batch_norm_backward`, for a batch that is split over processes.

    dx uses the sums of the whole batch. dweight and dbias get those of this part only: the gradients of all parameters
    are reduced later, together.
    """
    sums = batch_norm_sums(dy, x, statistics)
    if gradients is not None:
        dweight, dbias = gradients
        dbias += sums[0]
        dweight += sums[1]
    shared = torch.cat([sums.flatten().to(torch.float64), _length(x.flatten(1))])
    reduce(shared)
    return batch_norm_dx(dy, x, statistics, weight, shared[:-1].view_as(sums).to(x.dtype), shared[-1])


def _length(rows: Tensor) -> Tensor:
    """The number of values in a row, as a tensor to be reduced."""
    return torch.full((1,), rows.shape[1], dtype=torch.float64, device=rows.device)


def check_batch_norm(x: Tensor, weight: Tensor, bias: Tensor, running: Running, *, training: bool) -> None:
    """Raise ValueError if the arguments of a forward pass don't fit together."""
    check_vectors(x, weight=weight, bias=bias, running_mean=running.mean, running_var=running.var)
    if training:
        check_writable(running_mean=running.mean, running_var=running.var)


def check_batch_norm_backward(x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None) -> None:
    """Raise ValueError if the arguments of a backward pass don't fit together."""
    dweight, dbias = gradients or (None, None)
    check_vectors(x, weight=weight, dweight=dweight, dbias=dbias)
    check_shape(statistics, (2, len(weight)), "statistics")
    check_writable(dweight=dweight, dbias=dbias)
