"""A layer of one's own, in one file: a factor for each channel."""

from __future__ import annotations

from torch import Tensor

from cnn import Cache, Layer, Mode, Parameter, initializers
from cnn.arguments import Positive


class Scale(Layer):
    """y = weight^power * x;  dx = weight^power * dy,  dweight = power * weight^(power - 1) * sum of dy * x.

    Shapes: x, y [C, *S, N]; weight [C].
    """

    kind = "scale"
    weight: Parameter

    def __init__(self, power: Positive = 1) -> None:
        self.power = power

    def declare(self, input_shape: tuple[int, ...]) -> dict[str, Parameter]:  # type: ignore[override]
        return {"weight": Parameter(input_shape[:1], initializers.ones, decay=False)}

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return self._times(x, self.power), mode.keep(x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            weight = self.weight.data
            self.weight.grad += self.power * weight ** (self.power - 1) * (dy * x).flatten(1).sum(1)
        return self._times(dy, self.power) if need_dx else None

    def _times(self, x: Tensor, power: int) -> Tensor:
        return (x.transpose(0, -1) * self.weight.data**power).transpose(0, -1).contiguous()
