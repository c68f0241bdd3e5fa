"""Normalisation. The backward passes are derived in docs/normalisation.md."""

from __future__ import annotations

import math

from torch import Tensor

from cnn import initializers, ops
from cnn.arguments import Positive, PositiveFloat, UnitInterval
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, Shape, ShapeError


class BatchNorm(Layer):
    """Normalise each channel to mean 0 and variance 1 over the batch, then scale and shift: `torch.nn.BatchNorm*d`.

    Forward:  y = weight * xhat + bias,  xhat = (x - mean) / sqrt(var + eps), for each channel. In training, mean and
              (biased) variance are the batch's, over all L = prod(S) * N values of a channel, and the running ones
              are updated: running = (1 - momentum) * running + momentum * batch, with the unbiased variance. In
              evaluation, they are the running ones, which are constants.
    Backward: dbias = sum dy,  dweight = sum dy * xhat,
              in training    dx = weight / sqrt(var + eps) * (dy - dbias / L - xhat * dweight / L),
              in evaluation  dx = weight / sqrt(var + eps) * dy

    Without `affine` there are no weight and bias: they are taken as 1 and 0. If several processes share a batch
    (`mode.reduce`), mean, variance, L and the sums in dx are the whole batch's, but dbias and dweight the part's.
    Shapes: x, y [C, *S, N]; weight, bias, running_mean, running_var [C].
    Raises ValueError in training for a single value per channel, which has no variance.
    Source: Ioffe & Szegedy 2015, "Batch normalization", algorithm 1 and section 3.
    """

    kind = "batch_norm"
    weight: Parameter
    bias: Parameter
    running_mean: Buffer
    running_var: Buffer

    def __init__(self, eps: PositiveFloat = 1e-5, momentum: UnitInterval = 0.1, affine: bool = True) -> None:
        self.eps = eps
        self.momentum = momentum
        self.affine = affine

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        channels = (input_shape[0],)
        learned: dict[str, Parameter | Buffer] = {
            "weight": Parameter(channels, initializers.ones, decay=False),
            "bias": Parameter(channels, initializers.zeros, decay=False),
        }
        return {
            **(learned if self.affine else {}),
            "running_mean": Buffer(channels, fill=0.0),
            "running_var": Buffer(channels, fill=1.0),
        }

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """weight and bias, or 1 and 0 without `affine`; [C] each."""
        if self.affine:
            return self.weight.data, self.bias.data
        return x.new_ones(x.shape[0]), x.new_zeros(x.shape[0])

    def flops(self, input_shape: Shape) -> int:
        return 2 * math.prod(input_shape)  # in evaluation: a scale and a shift, all else is constant

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        running, training = self.running(x, mode)
        y, statistics = ops.batch_norm(x, *self.scale_and_shift(x), running, training=training)
        return y, mode.keep(x, statistics, mode)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        x, statistics, mode = cache.take()
        if mode.train:
            dx = self.differentiate(dy, x, statistics, mode, need_dparams=need_dparams)
        else:
            dx = self._differentiate_constants(dy, x, statistics, need_dparams=need_dparams)
        return dx if need_dx else None

    def running(self, x: Tensor, mode: Mode) -> tuple[ops.Running, bool]:
        """The statistics for a forward pass, and whether the batch's are still to be measured.

        If several processes share the batch, they are measured here, and then are constants for `batch_norm`.
        """
        running = ops.Running(self.running_mean.data, self.running_var.data, self.momentum, self.eps)
        if mode.train and mode.reduce is not None:
            return ops.shared_moments(x, running, mode.reduce), False
        if mode.train and math.prod(x.shape[1:]) < 2:
            raise ValueError(
                "batch_norm has one value per channel in this batch, which has no variance: give it more examples"
            )
        return running, mode.train

    def differentiate(self, dy: Tensor, x: Tensor, statistics: Tensor, mode: Mode, *, need_dparams: bool) -> Tensor:
        """dx with the batch's own statistics, which depend on x."""
        weight, _ = self.scale_and_shift(x)
        gradients = self.gradients(need_dparams)
        if mode.reduce is not None:
            return ops.shared_batch_norm_backward(dy, x, statistics, weight, gradients, mode.reduce)
        return ops.batch_norm_backward(dy, x, statistics, weight, gradients)

    def gradients(self, need_dparams: bool) -> ops.Gradients | None:
        """The gradients that dweight and dbias are added to, or None."""
        return (self.weight.grad, self.bias.grad) if need_dparams and self.affine else None

    def _differentiate_constants(self, dy: Tensor, x: Tensor, statistics: Tensor, *, need_dparams: bool) -> Tensor:
        """dx with the running statistics, which are constants."""
        mean, rstd = statistics[0], statistics[1]
        weight, _ = self.scale_and_shift(dy)
        rows, gradient = x.flatten(1), dy.flatten(1)
        if need_dparams and self.affine:
            self.weight.grad += (gradient * (rows - mean[:, None])).sum(1) * rstd
            self.bias.grad += gradient.sum(1)
        return (gradient * (weight * rstd)[:, None]).view(dy.shape)


class ExampleNorm(Layer):
    """The base of norms within an example: statistics over the features of a group.

    With x viewed as [G, M, N], M features in each of G groups, and everything per group and example:
    Forward:  xhat = (x - mean) * rstd,  rstd = 1 / sqrt(var + eps),  y = weight * xhat + bias
    Backward: dxhat = weight * dy,  dx = rstd * (dxhat - mean of dxhat - xhat * mean of dxhat * xhat),
              dbias = sum of dy, dweight = sum of dy * xhat, each over all values that share the parameter
    """

    groups: int
    affine: bool
    eps: float
    weight: Parameter
    bias: Parameter

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        if not self.affine:
            return {}
        shape = self._affine_shape(input_shape)
        return {
            "weight": Parameter(shape, initializers.ones, decay=False),
            "bias": Parameter(shape, initializers.zeros, decay=False),
        }

    def _affine_shape(self, input_shape: Shape) -> Shape:
        """The shape of weight and bias: the first axes of the input."""
        raise NotImplementedError

    def flops(self, input_shape: Shape) -> int:
        return (5 + 2 * self.affine) * math.prod(input_shape)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        grouped = self._grouped(x)
        mean = ops.mean_of(grouped, 1)
        centred = grouped - mean
        rstd = (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
        xhat = centred.mul_(rstd).view(x.shape)
        y = xhat * self._spread(self.weight, x) + self._spread(self.bias, x) if self.affine else xhat
        return y, mode.keep(x, mean, rstd)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        x, mean, rstd = cache.take()
        xhat = (self._grouped(x) - mean) * rstd
        if need_dparams and self.affine:
            shape = self.weight.shape
            self.weight.grad += (dy * xhat.reshape(x.shape)).flatten(len(shape)).sum(-1)
            self.bias.grad += dy.flatten(len(shape)).sum(-1)
        if not need_dx:
            return None
        dxhat = (dy * self._spread(self.weight, x) if self.affine else dy).reshape(xhat.shape)
        shift = dxhat.mean(1, keepdim=True) + xhat * (dxhat * xhat).mean(1, keepdim=True)
        dx: Tensor = rstd * (dxhat - shift)
        return dx.reshape(x.shape)

    def _grouped(self, x: Tensor) -> Tensor:
        """x as [G, M, N]."""
        return x.reshape(self.groups, -1, x.shape[-1])

    def _spread(self, parameter: Parameter, x: Tensor) -> Tensor:
        """A parameter in a shape that broadcasts with x."""
        return parameter.data.view(*parameter.shape, *(1,) * (x.dim() - len(parameter.shape)))


class GroupNorm(ExampleNorm):
    """Normalise each group of channels of each example to mean 0 and variance 1, then scale and shift each channel.

    Forward:  y = weight * xhat + bias,  xhat = (x - mean) / sqrt(var + eps), with mean and (biased) variance of the
              M = C / num_groups * prod(S) values of a group in one example; the same in training and evaluation
    Backward: dbias = sum over S, n of dy,  dweight = sum over S, n of dy * xhat,
              dx = (dxhat - mean of dxhat - xhat * mean of (dxhat * xhat)) / sqrt(var + eps),  dxhat = weight * dy

    As `torch.nn.GroupNorm`. Shapes: x, y [C, *S, N]; weight, bias [C]. Raises ShapeError if num_groups doesn't
    divide C. Source: Wu & He 2018, "Group normalization", eq. 1, 2, 6 and 7.
    """

    kind = "group_norm"

    def __init__(self, num_groups: Positive, eps: PositiveFloat = 1e-5, affine: bool = True) -> None:
        self.groups = num_groups
        self.eps = eps
        self.affine = affine

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape[0] % self.groups:
            raise ShapeError(f"has {self.groups} groups, which don't divide the input's {input_shape[0]} channels")
        return input_shape

    def _affine_shape(self, input_shape: Shape) -> Shape:
        return input_shape[:1]


class InstanceNorm(ExampleNorm):
    """Normalise each channel of each example to mean 0 and variance 1: `torch.nn.InstanceNorm*d`.

    Forward:  y = weight * xhat + bias,  xhat = (x - mean) / sqrt(var + eps), with mean and (biased) variance of the
              M = prod(S) values of a channel in one example; the same in training and evaluation
    Backward: dbias = sum over S, n of dy,  dweight = sum over S, n of dy * xhat,
              dx = (dxhat - mean of dxhat - xhat * mean of (dxhat * xhat)) / sqrt(var + eps),  dxhat = weight * dy

    Group norm with a group for each channel. As in PyTorch there are no weight and bias unless `affine`; they are then
    taken as 1 and 0. Running statistics (`track_running_stats`) are left out.
    Shapes: x, y [C, *S, N]; weight, bias [C]. Raises ShapeError if a channel has a single value, which would become 0.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, "Instance normalization", eq. 2.
    """

    kind = "instance_norm"

    def __init__(self, eps: PositiveFloat = 1e-5, affine: bool = False) -> None:
        self.eps = eps
        self.affine = affine

    def output_shape(self, input_shape: Shape) -> Shape:
        if math.prod(input_shape[1:]) < 2:
            raise ShapeError(f"needs more than one value per channel, got input {list(input_shape)}")
        return input_shape

    def _affine_shape(self, input_shape: Shape) -> Shape:
        return input_shape[:1]

    def _grouped(self, x: Tensor) -> Tensor:
        return x.flatten(1, -2)


class LayerNorm(ExampleNorm):
    """Normalise each example to mean 0 and variance 1 over all of its features, then scale and shift each feature.

    Forward:  y = weight * xhat + bias,  xhat = (x - mean) / sqrt(var + eps), with mean and (biased) variance of the
              M = C * prod(S) values of one example; the same in training and evaluation
    Backward: dbias = sum over n of dy,  dweight = sum over n of dy * xhat,
              dx = (dxhat - mean of dxhat - xhat * mean of (dxhat * xhat)) / sqrt(var + eps),  dxhat = weight * dy

    As `torch.nn.LayerNorm` with the whole shape of an example as `normalized_shape`.
    Shapes: x, y [C, *S, N]; weight, bias [C, *S].
    Source: Ba, Kiros & Hinton 2016, "Layer normalization", eq. 3 and 4.
    """

    kind = "layer_norm"
    groups = 1

    def __init__(self, eps: PositiveFloat = 1e-5, elementwise_affine: bool = True) -> None:
        self.eps = eps
        self.affine = elementwise_affine

    def _affine_shape(self, input_shape: Shape) -> Shape:
        return input_shape
