"""The arithmetic of the layers in plain torch operations: the text to read, and what runs on any device.

Every function here has a twin of the same name and signature in `compiled.py`; `cnn.ops` chooses between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.padding import CHANNELS, inside, pad, room
from cnn.ops.window import Sizes, Window


def require(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError where a tensor hasn't the shape that goes with the others; compiled loops would not notice."""
    if tensor.shape != shape:
        raise ValueError(f"{name} is {list(tensor.shape)}, the other tensors call for {list(shape)}")


def require_vectors(x: Tensor, **vectors: Tensor | None) -> None:
    """Raise ValueError where a vector isn't [C], with as many values as x has channels, and of x's type."""
    for name, vector in vectors.items():
        if vector is not None:
            require(vector, x.shape[:1], name)
            if vector.dtype != x.dtype:
                raise ValueError(f"{name} is {vector.dtype}, x is {x.dtype}: give one type")


def take_examples(x: Tensor, rows: Tensor, chosen: Tensor) -> None:
    """x[p, n] = rows[chosen[n], p]: examples that lie one behind the other become a batch-last batch.

    x [P, N] of any type and device, rows [examples, P], chosen [N].
    """
    x.copy_(rows[chosen].t())


def im2col(x: Tensor, window: Window) -> Tensor:
    """columns[c, tap, position, n] = x[c, position * stride + tap * dilation - before, n], zero outside.

    x [C, *S, N] -> columns [C, *K, *So, N]. A convolution is then one matrix product.
    """
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = pad(x, window, fill=0)
    columns = empty((channels, *window.kernel, *output_size, batch), like=x)
    for tap in window.taps():
        columns[CHANNELS + tap] = padded[CHANNELS + window.reach(tap, output_size)]
    return columns


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    """The adjoint of im2col: every column entry is added to the input value it was read from.

    columns [C, *K, *So, N] -> dx [C, *S, N].
    """
    channels, batch = columns.shape[0], columns.shape[-1]
    output_size = window.output_size(size)
    require(columns, (channels, *window.kernel, *output_size, batch), "columns")
    padded = columns.new_zeros((channels, *room(size, window), batch))
    for tap in window.taps():
        padded[CHANNELS + window.reach(tap, output_size)] += columns[CHANNELS + tap]
    return padded[CHANNELS + inside(size, window)].contiguous()


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """y = the largest value in each window, winner = the number of its tap; the first wins a tie, NaN wins always.

    Padding never wins, as if it were -inf. x [C, *S, N] -> y, winner [C, *So, N].
    """
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = pad(x, window, fill=-torch.inf)
    on_input = pad(torch.ones_like(x[:1, ..., :1], dtype=torch.bool), window, fill=False)
    y = x.new_full((channels, *output_size, batch), -torch.inf)
    winner = torch.zeros(y.shape, dtype=winner_dtype(window), device=x.device)
    untouched = torch.ones(y.shape, dtype=torch.bool, device=x.device)
    for number, tap in enumerate(window.taps()):
        here = CHANNELS + window.reach(tap, output_size)
        candidate = padded[here]
        better = (candidate > y) | candidate.isnan() | (untouched & on_input[here])
        y = torch.where(better, candidate, y)
        winner[better] = number
        untouched &= ~on_input[here]
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx: each dy goes to the input value that won its window.

    dy, winner [C, *So, N] -> dx [C, *S, N].
    """
    channels, batch = dy.shape[0], dy.shape[-1]
    output_size = window.output_size(size)
    require(dy, (channels, *output_size, batch), "dy")
    require(winner, tuple(dy.shape), "winner")
    padded = dy.new_zeros((channels, *room(size, window), batch))
    for number, tap in enumerate(window.taps()):
        padded[CHANNELS + window.reach(tap, output_size)] += dy.masked_fill(winner != number, 0)
    return padded[CHANNELS + inside(size, window)].contiguous()


def winner_dtype(window: Window) -> torch.dtype:
    """The smallest type that numbers the taps of a window, and one more that stands for none of them."""
    return torch.uint8 if window.tap_count < 256 else torch.int32


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float,
    eps: float,
    window: Window | None = None,
    rectify: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y = weight * (x - mean) * rstd + bias, rstd = 1 / sqrt(var + eps); then a max pool and a ReLU, where wanted.

    In training mean and (biased) variance are those of a channel's L = prod(S) * N values, and the running ones move by
    `momentum` towards them, with the unbiased variance; else they are the running ones. The second result holds mean
    and rstd. The third tells the backward pass where dy goes: the winner of each window (none where the ReLU cut off),
    or y, whose zeros stop it. A max pool and a ReLU may change places, so this stands for either order.
    x [C, *S, N], weight, bias, running_mean, running_var [C] -> y [C, *S, N] or [C, *So, N], mean and rstd [2, C].
    """
    require_vectors(x, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    rows = x.flatten(1)  # [C, L]
    mean, var = running_mean, running_var
    if training:
        mean = rows.mean(1)
        var = (rows - mean[:, None]).square().mean(1)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (rows.shape[1] / (rows.shape[1] - 1)), momentum)
    rstd = (var + eps).rsqrt()
    y = ((rows - mean[:, None]) * (weight * rstd)[:, None] + bias[:, None]).view(x.shape)
    winner = None
    if window is not None:
        y, winner = max_pool(y, window)
        if rectify:
            winner = winner.masked_fill(y <= 0, window.tap_count)
    if rectify:
        y = relu(y)
    return y, torch.cat([mean[None], rstd[None]]), winner if window is not None else y if rectify else None


def batch_norm_backward(
    dy: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor,
    dweight: Tensor | None,
    dbias: Tensor | None,
    route: Tensor | None = None,
    window: Window | None = None,
) -> Tensor:
    """dx of batch_norm in training: xhat = (x - mean) * rstd depends on the whole channel through mean and variance.

    With g what of dy comes through ReLU and pool, sums over the channel's L values:
    dx = weight * rstd * (g - sum g / L - xhat * sum (g * xhat) / L),  dbias += sum g,  dweight += sum g * xhat.
    x, dx [C, *S, N], dy as y, `statistics`, `route` and `window` as in the forward pass; the others [C].
    """
    require_vectors(x, weight=weight, dweight=dweight, dbias=dbias)
    require(statistics, (2, len(weight)), "statistics")
    if route is not None:
        size = tuple(x.shape[1:-1])
        dy = relu_backward(dy, route) if window is None else max_pool_backward(dy, route, size, window)
    require(dy, tuple(x.shape), "dy")
    g, rows = dy.flatten(1), x.flatten(1)
    mean, rstd = statistics[0], statistics[1]
    xhat = (rows - mean[:, None]) * rstd[:, None]
    total, product = g.sum(1), (g * xhat).sum(1)
    if dweight is not None and dbias is not None:
        dweight += product
        dbias += total
    length = rows.shape[1]
    dx: Tensor = (weight * rstd)[:, None] * (g - total[:, None] / length - xhat * product[:, None] / length)
    return dx.view(x.shape)


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0), elementwise; NaN stays NaN."""
    return x.clamp(min=0)


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy where y > 0, else 0."""
    require(dy, tuple(y.shape), "dy")
    return dy.masked_fill(y <= 0, 0)


def adam(
    data: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    betas: tuple[float, float],
    eps: float,
    step: float,
    correction: float,
) -> None:
    """mean <- b1 mean + (1 - b1) g, square <- b2 square + (1 - b2) g^2, and with these

    data <- data - step * mean / (sqrt(square) / correction + eps), all in place; vectors [P].
    """
    for name, vector in (("gradient", gradient), ("mean", mean), ("square", square)):
        require(vector, tuple(data.shape), name)
    b1, b2 = betas
    mean.lerp_(gradient, 1 - b1)
    square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
    deviation = torch.sqrt(square, out=empty(tuple(square.shape), like=square))
    data.addcdiv_(mean, deviation.div_(correction).add_(eps), value=-step)


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The weighted mean of the negative log-likelihood of the targets under softmax(logits), and its gradient.

    The formulas stand with `cnn.losses.CrossEntropy`.
    logits [K, L], target [L], weight [K] -> value [], dlogits [K, L].
    """
    require(target, logits.shape[1:], "target")
    weight = logits.new_ones(len(logits)) if weight is None else weight
    require(weight, logits.shape[:1], "weight")
    wanted = weight[target]
    hit, spread = (1 - label_smoothing) * wanted, (label_smoothing / len(weight) * weight)[:, None]
    shifted = logits - logits.amax(0)
    exponentials = torch.exp(shifted)
    total = exponentials.sum(0)
    log_total = torch.log(total)
    value = (hit * (log_total - shifted.gather(0, target[None])[0])).sum()
    if label_smoothing:
        value = value + (spread * (log_total - shifted)).sum()
    norm = wanted.sum()
    norm = norm.masked_fill(norm == 0, torch.inf)
    gradient = exponentials.div_(total).mul_(hit + spread.sum()).sub_(spread)
    return value / norm, gradient.scatter_add_(0, target[None], -hit[None]).div_(norm)
