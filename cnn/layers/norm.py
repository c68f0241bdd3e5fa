"""Normalisation."""

from __future__ import annotations

from torch import Tensor

from cnn import initializers, ops
from cnn.arguments import PositiveFloat, UnitInterval
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, Shape


class BatchNorm(Layer):
    """Give each channel mean 0 and variance 1 over the batch, then a learned scale and shift: `torch.nn.BatchNorm*d`.

    Forward:  y = weight * xhat + bias,  xhat = (x - mean) / sqrt(var + eps), for each channel. In training mean and
              (biased) variance are the batch's, over all L = prod(S) * N values of a channel, and the running ones
              move: running = (1 - momentum) * running + momentum * batch, with the unbiased variance. In evaluation
              they are the running ones, constants.
    Backward: dbias = sum dy,  dweight = sum dy * xhat,
              in training    dx = weight / sqrt(var + eps) * (dy - dbias / L - xhat * dweight / L),
              in evaluation  dx = weight / sqrt(var + eps) * dy

    Shapes: x, y [C, *S, N]; weight, bias, running_mean, running_var [C].
    Raises ValueError in training for a single value a channel, which has no variance.
    Source: Ioffe & Szegedy 2015, "Batch normalization", algorithm 1 and section 3.
    """

    kind = "batch_norm"
    weight: Parameter
    bias: Parameter
    running_mean: Buffer
    running_var: Buffer

    def __init__(self, eps: PositiveFloat = 1e-5, momentum: UnitInterval = 0.1) -> None:
        self.eps = eps
        self.momentum = momentum

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        channels = (input_shape[0],)
        return {
            "weight": Parameter(channels, initializers.ones, decay=False),
            "bias": Parameter(channels, initializers.zeros, decay=False),
            "running_mean": Buffer(channels, fill=0.0),
            "running_var": Buffer(channels, fill=1.0),
        }

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        rows = x.flatten(1)  # [C, L]
        if mode.train:
            y, mean, var = ops.batch_norm(rows, self.weight.data, self.bias.data, self.eps)
            self._follow(mean, var, rows.shape[1])
            rstd = (var + self.eps).rsqrt()
        else:
            mean, rstd = self.running_mean.data.clone(), (self.running_var.data + self.eps).rsqrt()
            y = (rows - mean[:, None]).mul_((self.weight.data * rstd)[:, None]).add_(self.bias.data[:, None])
        return y.view(x.shape), mode.keep(rows, mean, rstd, mode.train)

    def _follow(self, mean: Tensor, var: Tensor, length: int) -> None:
        """Move the running statistics towards the batch's."""
        if length < 2:
            raise ValueError("batch_norm has one value a channel in this batch, and no variance: give it more examples")
        self.running_mean.data.lerp_(mean, self.momentum)
        self.running_var.data.lerp_(var * (length / (length - 1)), self.momentum)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        rows, mean, rstd, batch_statistics = cache.take()
        gradient = dy.flatten(1)
        if batch_statistics:
            dx, dweight, dbias = ops.batch_norm_backward(gradient, rows, mean, rstd, self.weight.data)
        else:
            dx = gradient * (self.weight.data * rstd)[:, None]
            dweight = (gradient * (rows - mean[:, None])).sum(1) * rstd
            dbias = gradient.sum(1)
        if need_dparams:
            self.weight.grad += dweight
            self.bias.grad += dbias
        return dx.view(dy.shape) if need_dx else None
