"""Write a layer, check its backward pass against finite differences, and see what a mistake looks like.

    python examples/own_layer.py

The layer is PReLU, a ReLU that learns a slope for negative values, one for each channel. The same file brings it into
any config, because the class has a `kind`:

    python run.py "extensions=[examples/own_layer.py]" "model.layers=[flatten,{linear:{out_features:32}},prelu,{linear:{out_features:10}}]"
"""  # noqa: E501

from __future__ import annotations

import torch
from torch import Tensor

from cnn import Buffer, Cache, Layer, Mode, Parameter, Sequential
from cnn.arguments import FiniteFloat
from cnn.gradients.finite_differences import gradcheck


class PReLU(Layer):
    """Scale negative values by a learned slope.

    Forward:  y = x where x > 0, else weight * x
    Backward: dx = dy where x > 0, else weight * dy;  dweight = sum over all x <= 0 of dy * x

    Shapes: x, y [C, *S, N]; weight [C]. Source: He et al. 2015, "Delving deep into rectifiers", eq. 1.
    """

    kind = "prelu"
    weight: Parameter

    def __init__(self, slope: FiniteFloat = 0.25) -> None:
        self.slope = slope

    def declare(self, input_shape: tuple[int, ...]) -> dict[str, Parameter | Buffer]:
        def initial(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            return torch.full(shape, self.slope, dtype=torch.float64)

        return {"weight": Parameter(input_shape[:1], initial, decay=False)}

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        return torch.where(x > 0, x, self._per_channel(x) * x), mode.keep(x)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (x,) = cache.take()
        if need_dparams:
            self.weight.grad += (dy * x.clamp(max=0)).flatten(1).sum(1)
        return torch.where(x > 0, dy, self._per_channel(x) * dy) if need_dx else None

    def _per_channel(self, x: Tensor) -> Tensor:
        """The slopes, shaped so that they broadcast over x: [C, 1, ..., 1]."""
        return self.weight.data.view(-1, *[1] * (x.ndim - 1))


class Forgetful(PReLU):
    """The same with a typical mistake: the slope is missing in dx."""

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        super().backward(dy, cache, need_dx=False, need_dparams=need_dparams)
        return dy if need_dx else None


def errors(layer: Layer) -> dict[str, float]:
    """The relative error of each gradient, in float64, for random inputs and a random upstream gradient."""
    net = Sequential([layer])
    net.build((3, 5, 5))
    net.bind(dtype=torch.float64)
    x = torch.randn(3, 5, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return gradcheck(net, x, Mode(train=True))


if __name__ == "__main__":
    for layer in (PReLU(), Forgetful()):
        print(type(layer).__name__)
        for name, error in errors(layer).items():
            print(f"  {name:16} {error:.1e}  {'right' if error < 1e-6 else 'WRONG'}")
