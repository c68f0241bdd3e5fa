"""Cases of layers: convolutions, products, pools and norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cnn.ops import PoolReLU, Running, Window
from cnn.ops.reference import conv, fused, linear, norm, pool
from tests.cnn.gpu.trying import CASES, FUNCTIONS, Case, Numbers, Tensors, Where, case, exact

ONE, TEN, GROUPS, WIDE = (1, 1, 10), (1, 10, 10), (2, 3, 5), (1, 20, 40)
"""Groups, and channels and outputs of each: they choose the kernel's mode, and whether weights are turned."""

CONVOLUTIONS = {
    "3x3": (Window((3, 3), (1, 1), (1, 1), (0, 0), (0, 0)), (3, 4), (TEN, WIDE)),
    "3x3 padded": (Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), (3, 4), (ONE, GROUPS)),
    "3x3 stride 2": (Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1)), (6, 5), (TEN,)),
    "1x1 stride 2": (Window((1, 1), (2, 2), (1, 1), (0, 0), (0, 0)), (5, 4), (WIDE,)),
    "dilated": (Window((2, 3), (1, 1), (2, 2), (1, 2), (2, 1)), (4, 4), (TEN,)),
    "stride 2 dilation 2": (Window((3, 2), (2, 2), (2, 2), (2, 1), (2, 1)), (6, 5), (TEN,)),
    "stride 3 dilation 2": (Window((3, 2), (3, 3), (2, 2), (2, 1), (2, 1)), (7, 6), (GROUPS,)),
    "stride over the kernel": (Window((1, 2), (3, 3), (1, 1), (0, 1), (0, 0)), (7, 5), (TEN,)),
    "1d": (Window((3,), (2,), (1,), (1,), (1,)), (9,), (GROUPS,)),
    "3d": (Window((2, 2, 2), (1, 2, 1), (1, 1, 1), (1, 0, 1), (0, 0, 1)), (2, 3, 3), (TEN,)),
    "less at the end": (Window((3, 3), (2, 2), (1, 1), (1, 1), (-1, -1)), (6, 6), (ONE,)),
}


def convolution(window: Window, size: tuple[int, ...], groups: int, channels: int, outputs: int) -> Case:
    def run(where: Where) -> tuple[Tensors, Tensors]:
        random = Numbers(where)
        x = random(groups * channels, *size, where.batch)
        weight, bias = random(groups * outputs, channels, *window.kernel), random(groups * outputs)
        dy = random(groups * outputs, *window.output_size(size), where.batch)
        y = conv.conv(x.double(), weight.double(), bias.double(), window, groups)
        dx = conv.conv_backward_input(dy.double(), weight.double(), size, window, groups)
        dweight, dbias = torch.ones_like(weight), torch.ones_like(bias)
        right = {"y": y, "dx": dx, "dweight": dweight.double().clone(), "dbias": dbias.double().clone()}
        conv.add_conv_backward_weight(x.double(), dy.double(), window, right["dweight"], groups, right["dbias"])
        x, weight, bias, dy, dweight, dbias = random.there(x, weight, bias, dy, dweight, dbias)
        FUNCTIONS["add_conv_backward_weight"](x, dy, window, dweight, groups, dbias)
        plain = FUNCTIONS["conv"](x, weight, None, window, groups)
        found = {
            "y": FUNCTIONS["conv"](x, weight, bias, window, groups),
            "dx": FUNCTIONS["conv_backward_input"](dy, weight, size, window, groups),
            "dweight": dweight,
            "dbias": dbias,
            "y without bias": plain,
        }
        without = right["y"] - bias.double().cpu().view(-1, *[1] * (right["y"].dim() - 1))
        return found, right | {"y without bias": without}

    return run


for _name, (_geometry, _size, _channels) in CONVOLUTIONS.items():
    for _groups, _inputs, _outputs in _channels:
        CASES[f"convolution {_name}, {_groups} x {_inputs} to {_outputs}"] = convolution(
            _geometry, _size, _groups, _inputs, _outputs
        )


@case("linear")
def _(where: Where) -> tuple[Tensors, Tensors]:
    found, right = {}, {}
    for inputs, outputs in ((7, 10), (300, 40), (1000, 3)):
        random = Numbers(where)
        x, weight, bias, dy = (
            random(inputs, where.batch),
            random(outputs, inputs),
            random(outputs),
            random(outputs, where.batch),
        )
        dweight, dbias = torch.ones_like(weight).double(), torch.ones_like(bias).double()
        name = f"{inputs} to {outputs}"
        right[f"y {name}"] = linear.linear(*exact(x, weight, bias))
        right[f"y without bias {name}"] = linear.linear(x.double(), weight.double(), None)
        right[f"dx {name}"] = linear.linear_backward_input(*exact(dy, weight))
        linear.add_linear_backward_weight(x.double(), dy.double(), dweight, dbias)
        right |= {f"dweight {name}": dweight, f"dbias {name}": dbias}
        x, weight, bias, dy = random.there(x, weight, bias, dy)
        dweight, dbias = torch.ones_like(weight), torch.ones_like(bias)
        FUNCTIONS["add_linear_backward_weight"](x, dy, dweight, dbias)
        found[f"y {name}"] = FUNCTIONS["linear"](x, weight, bias)
        found[f"y without bias {name}"] = FUNCTIONS["linear"](x, weight, None)
        found[f"dx {name}"] = FUNCTIONS["linear_backward_input"](dy, weight)
        found |= {f"dweight {name}": dweight, f"dbias {name}": dbias}
    return found, right


POOLS = {
    "2x2": (Window((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), (6, 7)),
    "3x3 overlapping": (Window((3, 3), (1, 1), (1, 1), (0, 0), (0, 0)), (6, 5)),
    "3x3 padded": (Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1)), (7, 6)),
    "dilated": (Window((2, 2), (1, 1), (2, 2), (1, 1), (1, 1)), (6, 6)),
    "3d": (Window((2, 1, 2), (2, 1, 1), (1, 1, 1), (0, 0, 1), (1, 0, 0)), (3, 2, 4)),
}


def pooling(window: Window, size: tuple[int, ...]) -> Case:
    def run(where: Where) -> tuple[Tensors, Tensors]:
        random = Numbers(where)
        x = (random(3, *size, where.batch) * 2).round()  # with ties
        x[random(*x.shape) > 1.8] = math.nan
        x[random(*x.shape) < -2] = -math.inf
        plain, dy = random(*x.shape), random(3, *window.output_size(size), where.batch)
        y, winner = pool.max_pool(x.double(), window)
        right = {
            "y": y,
            "winner": winner,
            "dx": pool.max_pool_backward(dy.double(), winner, size, window),
            "sum": pool.window_sum(plain.double(), window),
            "dx of the sum": pool.window_sum_backward(dy.double(), size, window),
        }
        x, plain, dy, winner = random.there(x, plain, dy, winner)
        found = dict(zip(("y", "winner"), FUNCTIONS["max_pool"](x, window), strict=True))
        found["dx"] = FUNCTIONS["max_pool_backward"](dy, winner, size, window)
        found["sum"] = FUNCTIONS["window_sum"](plain, window)
        found["dx of the sum"] = FUNCTIONS["window_sum_backward"](dy, size, window)
        return found, right

    return run


for _pool, (_geometry, _size) in POOLS.items():
    CASES[f"pools {_pool}"] = pooling(_geometry, _size)


def normalisation(window: Window | None, rectify: bool, size: tuple[int, ...], *, training: bool, need: bool) -> Case:
    def run(where: Where) -> tuple[Tensors, Tensors]:
        random, after = Numbers(where), PoolReLU(window, rectify)
        x, weight, bias = random(3, *size, where.batch) + 5, random(3), random(3)
        if not rectify:
            weight = weight.abs()
        mean, var = random(3), random(3).abs() + 0.5
        names = "norm_pool_relu" if window or rectify else "batch_norm"

        def both(functions: Mapping[str, Callable[..., Any]], *given: Tensor) -> Tensors:
            x, weight, bias, mean, var, dy, dweight, dbias = given
            running = Running(mean, var, 0.1, 1e-5)
            extra = (after,) if window or rectify else ()
            y, statistics, *route = functions[names](x, weight, bias, running, *extra, training=training)
            made = {"y": y, "statistics": statistics, "running mean": mean, "running var": var}
            if route:
                made["route"] = route[0].values
            if training:
                gradients = (dweight, dbias) if need else None
                dx = functions[f"{names}_backward"](dy, x, statistics, weight, gradients, *route)
                made |= {"dx": dx, "dweight": dweight, "dbias": dbias}
            return made

        out = size if window is None else window.output_size(size)
        given = x, weight, bias, mean, var, random(3, *out, where.batch), torch.ones_like(weight), torch.ones_like(bias)
        reference = {function.__name__: function for function in REFERENCES}
        return both(FUNCTIONS, *random.there(*given)), both(reference, *(value.clone() for value in exact(*given)))

    return run


REFERENCES = (fused.norm_pool_relu, fused.norm_pool_relu_backward, norm.batch_norm, norm.batch_norm_backward)
for _training in (True, False):
    _mode = "training" if _training else "evaluation"
    CASES[f"batch norm, {_mode}"] = normalisation(None, False, (5, 6), training=_training, need=True)
    CASES[f"norm and ReLU, {_mode}"] = normalisation(None, True, (9, 8), training=_training, need=True)
    for _pool in ("2x2", "3x3 overlapping"):
        _geometry, _size = POOLS[_pool]
        CASES[f"norm, pool {_pool} and ReLU, {_mode}"] = normalisation(
            _geometry, True, _size, training=_training, need=True
        )
CASES["norm and pool 3x3 padded, training"] = normalisation(
    *POOLS["3x3 padded"][:1], False, (7, 6), training=True, need=False
)
CASES["batch norm of many values, training"] = normalisation(None, False, (40, 30), training=True, need=True)
