"""The fully connected layer. Derived in docs/linear.md."""

from __future__ import annotations

from torch import Tensor

from cnn import ops
from cnn.arguments import Positive
from cnn.initializers import Scheme
from cnn.layer import Buffer, Cache, Mode, Parameter, Shape, ShapeError
from cnn.layers.weighted import Weighted


class Linear(Weighted):
    """Connect every input feature to every output feature, as `torch.nn.Linear` does.

    Forward:  y = weight @ x + bias
    Backward: dx = weight^T @ dy,  dweight = dy @ x^T,  dbias = sum over n of dy[:, n]

    Shapes: x [I, N], weight [O, I], bias [O], y [O, N]. Raises ShapeError for inputs with spatial axes.
    `init` is the distribution of the initial weight.
    Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors", eq. 1 and 6-7.
    """

    kind = "linear"

    def __init__(self, out_features: Positive, bias: bool = True, init: Scheme = "kaiming_normal") -> None:
        super().__init__(bias, init)
        self.out_features = out_features

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"takes [features], got input {list(input_shape)}: put a flatten before it")
        return (self.out_features,)

    def declare(self, input_shape: Shape) -> dict[str, Parameter | Buffer]:
        (inputs,) = input_shape
        return self._declare((self.out_features, inputs), self.out_features, fan_in=inputs, fan_out=self.out_features)

    def flops(self, input_shape: Shape) -> int:
        return (2 * input_shape[0] + self.has_bias) * self.out_features

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        bias = None if self.bias is None else self.bias.data
        return ops.linear(x, self.weight.data, bias), mode.keep(x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            dbias = None if self.bias is None else self.bias.grad
            ops.add_linear_backward_weight(x, dy, self.weight.grad, dbias)
        return ops.linear_backward_input(dy, self.weight.data) if need_dx else None
