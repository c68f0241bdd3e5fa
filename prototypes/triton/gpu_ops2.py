"""The operations of cnn.ops with the signatures of 1696c8b, on the second version of the kernels; a backend for cnn.ops.

TILES maps (kind, O, C, kernel, stride, size) or kind to options; `tiles` falls back to a rule.
"""

import math

import torch
import triton
import triton.language as tl

import gpu_ops as G1
import kernels as K1
import kernels2 as K
import kernels_patch as KP
from gpu_ops import ACC, power, phases_backward, three, volume
from cnn.ops.values import Route

PRECISION = "tf32x3"
TILES: dict = {}
PROGRAMS = 528
NORM_PROGRAMS = 528
LOG: list | None = None
LAUNCH = None  # for compiling without a device: LAUNCH(kernel, grid, args, options)
NAN = False  # poison every output


def launch(kernel, grid, *args, **options):
    if LAUNCH is not None:
        return LAUNCH(kernel, grid, args, options)
    if LOG is not None:
        LOG.append((kernel.__name__, grid))
    return kernel[grid](*args, **options)


def empty(shape, like, dtype=None):
    out = torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
    if NAN:
        out.fill_(float("nan") if out.is_floating_point() else 77)
    return out


def rule(kind, O, C, taps, N):
    """Tiles where the table has none."""
    if kind == "weight":
        return dict(BO=power(O, most=64), BK=power(C * taps, most=64), BN=power(N, most=32), num_warps=4, num_stages=3)
    BO = power(O, most=64)
    return dict(MODE="merged" if C < 8 else "dot", BO=BO, BC=power(C * taps if C < 8 else C, most=32), PH=1, PW=2,
                BN=power(N, most=64), num_warps=8 if BO == 64 else 4, num_stages=3)


def tiles(kind, O, C, window, size, N):
    for key in ((kind, O, C, window.kernel, window.stride, tuple(size), N), (kind, O, C, window.kernel, window.stride, tuple(size)), kind):
        if key in TILES:
            return dict(TILES[key])
    return rule(kind, O, C, window.tap_count, N)


def gather_launch(x, w, bias, y, table, most, groups, O, C, strides, places, shifts, outs, steps, kernel, base, options):
    N, x_size, y_size = x.shape[-1], volume(x.shape), volume(y.shape)
    o = dict(options)
    MODE, BO, BC, PH, PW, BN = (o.pop(k) for k in ("MODE", "BO", "BC", "PH", "PW", "BN"))
    precision, turned = o.pop("PRECISION", PRECISION), o.pop("WT", False)
    one = base is not None
    w_o, w_c, w_g, w_t = *strides, 1
    if MODE == "patch":
        first = tuple(p - (2 if s < 0 else 0) for p, s in zip(base, shifts))
        grid = triton.cdiv(y_size[1], PH) * triton.cdiv(y_size[2], PW) * triton.cdiv(N, BN), triton.cdiv(O, BO)
        launch(getattr(KP, f"patch_{PH}x{PW}"), grid, x, w, w if bias is None else bias, y, N, w_o, w_c, O, C, *x_size[1:],
               *y_size[1:], first[1], first[2], shifts[2] < 0, bias is not None, precision, BO, BC, BN, **o)  # fmt: skip
        return
    if turned and groups == 1:  # [taps, O, C]
        flipped, T = torch.empty(w.numel(), dtype=w.dtype, device=w.device), math.prod(kernel)
        launch(K.transpose_weight, (T, triton.cdiv(O, 32), triton.cdiv(C, 32)), w, flipped, w_o, w_c, 1, O, C, T, 32, 32)
        w, w_o, w_c, w_t = flipped, C, 1, O * C
    grid = most(PH, PW) * triton.cdiv(N, BN), triton.cdiv(O, BO), len(table) * groups
    launch(K.gather, grid, x, w, w if bias is None else bias, y, table, N, w_o, w_c, w_g, w_t, O, C, *x_size, *y_size,
           *places, *shifts, *outs, *steps, *kernel, *(base or (0, 0, 0)), groups, bias is not None, MODE, one,
           precision, ACC[x.dtype], BO, BC, PH, PW, BN, **o)  # fmt: skip


def conv(x, weight, bias, window, groups=1, options=None):
    x = x.contiguous()
    size = tuple(x.shape[1:-1])
    y = empty((weight.shape[0], *window.output_size(size), x.shape[-1]), x)
    kernel, stride, dilation, before = three(window)
    table, most = G1.phases_forward(window, size, x.device)
    O, C, taps = weight.shape[0] // groups, weight.shape[1], window.tap_count
    gather_launch(x, weight, bias, y, table, most, groups, O, C, (C * taps, taps, O * C * taps), stride, dilation,
                  (1, 1, 1), (1, 1, 1), kernel, tuple(-b for b in before), options or tiles("forward", O, C, window, size, x.shape[-1]))
    return y


def conv_backward_input(dy, weight, size, window, groups=1, options=None):
    dy = dy.contiguous()
    O, C, taps = weight.shape[0] // groups, weight.shape[1], window.tap_count
    dx = empty((groups * C, *size, dy.shape[-1]), dy)
    kernel, stride, dilation, before = three(window)
    table, most, steps, shifts = phases_backward(window, tuple(size), dy.device)
    base = before if set(stride) == {1} else None
    o = dict(options or tiles("input", C, O, window, size, dy.shape[-1]))
    if o["MODE"] == "merged" or (base is None and o["MODE"] == "fma"):
        o.update(MODE="dot", BC=power(O, most=32))
    gather_launch(dy, weight, None, dx, table, most, groups, C, O, (taps, C * taps, O * C * taps), (1, 1, 1), shifts,
                  stride, steps, kernel, base, o)
    return dx


SIDE = None  # a stream for the weight gradients; join() before the optimizer
KEPT: list = []


def join():
    if KEPT:
        torch.cuda.current_stream().wait_stream(SIDE)
        KEPT.clear()


def add_conv_backward_weight(x, dy, window, dweight, groups=1, dbias=None, options=None):
    if SIDE is not None:
        x, dy = x.contiguous(), dy.contiguous()
        SIDE.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(SIDE):
            KEPT.append((x, dy, _add_conv_backward_weight(x, dy, window, dweight, groups, dbias, options)))
    else:
        _add_conv_backward_weight(x, dy, window, dweight, groups, dbias, options)


def _add_conv_backward_weight(x, dy, window, dweight, groups=1, dbias=None, options=None):
    x, dy = x.contiguous(), dy.contiguous()
    O, C, N = dweight.shape[0] // groups, dweight.shape[1], x.shape[-1]
    kernel, stride, dilation, before = three(window)
    wide, positions = C * window.tap_count, math.prod(dy.shape[1:-1])
    o = dict(options or tiles("weight", O, C, window, x.shape[1:-1], N))
    BO, BK, BN, programs = o.pop("BO"), o.pop("BK"), o.pop("BN"), o.pop("PROGRAMS", PROGRAMS)
    S, B, precision = o.pop("S", None), o.pop("B", 16), o.pop("PRECISION", PRECISION)
    places = triton.cdiv(O, BO) * triton.cdiv(wide, BK) * groups
    steps = positions * triton.cdiv(N, BN)
    a_split = max(1, triton.cdiv(steps, max(1, programs // places)))
    splits = triton.cdiv(steps, a_split)
    partial = empty((splits * groups * O * (wide + (dbias is not None)),), dweight)
    grid = triton.cdiv(O, BO), triton.cdiv(wide, BK), splits * groups
    launch(K.weight_products, grid, x, dy, partial, N, a_split, splits, O, C, *volume(x.shape), *volume(dy.shape),
           *stride, *dilation, *before, *kernel, groups, dbias is not None, precision, ACC[x.dtype], BO, BK, BN, **o)
    count, biases = dweight.numel(), 0 if dbias is None else dbias.numel()
    S = S or min(128, triton.next_power_of_2(splits))
    launch(K.add_partials, (triton.cdiv(count, B) + triton.cdiv(biases, B),), partial, dweight,
           dweight if dbias is None else dbias, splits, count, biases, S, B)
    return partial


NORM = dict(B=1024, SB=1024, num_warps=4, BW=4, most=64)  # elements a program; a block of the sums


def _splits(channels, L, block, most=64):
    splits = max(1, min(most, triton.cdiv(L, block), triton.cdiv(NORM_PROGRAMS, channels)))
    chunk = triton.cdiv(triton.cdiv(L, splits), block) * block
    return triton.cdiv(L, chunk), chunk


def moments(x, C, L, dtype):
    SB = NORM["SB"]
    splits, chunk = _splits(C, L, SB, NORM['most'])
    partial = empty((C, splits, 3), x, dtype)
    launch(K.moments, (C, splits), x, partial, L, splits, chunk, SB, ACC[x.dtype], num_warps=NORM["num_warps"])
    return partial, splits


def _norm(x, weight, bias, running, training, window, rectify):
    C, L = x.shape[0], math.prod(x.shape[1:])
    x = x.contiguous()
    statistics = empty((2, C), weight)
    partial, splits = moments(x, C, L, weight.dtype) if training else (weight, 1)
    common = C, L, splits, running.momentum, running.eps
    S, B = triton.next_power_of_2(splits), NORM["B"]
    if window is None:
        y = empty(x.shape, x)
        launch(K1.normalise, (C, triton.cdiv(L, B)), x, partial, weight, bias, running.mean, running.var, statistics, y,
               *common, training, rectify, S, B, num_warps=NORM['BW'])
        return y, statistics, y
    y = empty((C, *window.output_size(tuple(x.shape[1:-1])), x.shape[-1]), x)
    winner = empty(y.shape, x, G1.winner_dtype(window))
    sizes, constants = G1._geometry(window, x, y)
    launch(K1.normalise_pool, (C, triton.cdiv(math.prod(y.shape[1:]), 256)), x, partial, weight, bias, running.mean,
           running.var, statistics, y, winner, *common, *sizes, *constants, True, training, rectify, S, 256)
    return y, statistics, winner


def norm_add_relu(x, weight, bias, running, other):
    C, L = x.shape[0], math.prod(x.shape[1:])
    statistics, y = empty((2, C), weight), empty(x.shape, x)
    partial, splits = moments(x, C, L, weight.dtype)
    launch(K.normalise_add, (C, triton.cdiv(L, NORM["B"])), x, partial, weight, bias, running.mean, running.var, statistics,
           other, y, C, L, splits, running.momentum, running.eps, True, triton.next_power_of_2(splits), NORM["B"], num_warps=NORM["BW"])
    return y, statistics


def add_masked(a, dy, y):
    dx = empty(a.shape, a)
    launch(K.add_masked, (triton.cdiv(a.numel(), 1024),), a, dy, y, dx, a.numel(), 1024)
    return dx


def batch_norm(x, weight, bias, running, *, training):
    return _norm(x, weight, bias, running, training, None, False)[:2]


def norm_pool_relu(x, weight, bias, running, after, *, training):
    y, statistics, values = _norm(x, weight, bias, running, training, after.window, after.rectify)
    return y, statistics, Route(values, after.window)


def _norm_backward(dy, x, statistics, weight, gradients, route, window):
    dy, x = dy.contiguous(), x.contiguous()
    C, L = x.shape[0], math.prod(x.shape[1:])
    dx = empty(x.shape, x)
    SB, B = NORM["SB"], NORM["B"]
    splits, chunk = _splits(C, math.prod(dy.shape[1:]), SB, NORM['most'])
    partial = empty((C, splits, 2), weight)
    sizes, constants = G1._geometry(window, x, dy) if window is not None else G1.NO_WINDOW
    through = dy if route is None else route
    if window is not None:
        launch(K1.pool_norm_sums, (C, splits), dy, route, x, statistics, partial, C, L, splits, chunk, *sizes, *constants, SB, ACC[x.dtype], num_warps=NORM['num_warps'])
    else:
        launch(K1.norm_sums, (C, splits), dy, through, x, statistics, partial, C, L, splits, chunk, route is not None, SB, ACC[x.dtype], num_warps=NORM['num_warps'])
    dweight, dbias = gradients or (weight, weight)
    launch(K1.norm_gradient, (C, triton.cdiv(L, B)), dy, through, x, statistics, weight, dweight, dbias, partial, dx,
           C, L, splits, *sizes, *constants, window is not None, route is not None and window is None, True,
           gradients is not None, triton.next_power_of_2(splits), B, num_warps=NORM['BW'])
    return dx


def batch_norm_backward(dy, x, statistics, weight, gradients):
    return _norm_backward(dy, x, statistics, weight, gradients, None, None)


def norm_pool_relu_backward(dy, x, statistics, weight, gradients, route):
    return _norm_backward(dy, x, statistics, weight, gradients, route.values, route.window)


def max_pool(x, window):
    x = x.contiguous()
    y = empty((x.shape[0], *window.output_size(tuple(x.shape[1:-1])), x.shape[-1]), x)
    winner = empty(y.shape, x, G1.winner_dtype(window))
    sizes, constants = G1._geometry(window, x, y)
    launch(K1.normalise_pool, (x.shape[0], triton.cdiv(math.prod(y.shape[1:]), 256)), x, x, x, x, x, x, x, y, winner,
           x.shape[0], math.prod(x.shape[1:]), 1, 0.0, 0.0, *sizes, *constants, False, False, False, 1, 256)
    return y, winner


def max_pool_backward(dy, winner, size, window):
    dy = dy.contiguous()
    dx = empty((dy.shape[0], *size, dy.shape[-1]), dy)
    sizes, constants = G1._geometry(window, dx, dy)
    L, B = math.prod(dx.shape[1:]), NORM["B"]
    launch(K1.norm_gradient, (dy.shape[0], triton.cdiv(L, B)), dy, winner, dy, dy, dy, dy, dy, dy, dx, dy.shape[0], L, 1,
           *sizes, *constants, True, False, False, False, 1, B)
    return dx


def relu(x):
    x = x.contiguous()
    y = empty(x.shape, x)
    launch(K.relu, (triton.cdiv(x.numel(), 1024),), x, y, x.numel(), 1024)
    return y


def relu_backward(dy, y):
    dy, y = dy.contiguous(), y.contiguous()
    dx = empty(y.shape, y)
    launch(K.relu_backward, (triton.cdiv(y.numel(), 1024),), dy, y, dx, y.numel(), 1024)
    return dx


def cross_entropy(logits, target, weight, label_smoothing):
    logits = logits.contiguous()
    classes, L = logits.shape
    BL = 64
    gradient = empty(logits.shape, logits)
    partial = empty((triton.cdiv(L, BL), 2), logits)
    launch(K1.softmax_loss, (len(partial),), logits, target, logits if weight is None else weight, label_smoothing,
           gradient, partial, classes, L, weight is not None, triton.next_power_of_2(classes), BL, 1024)
    sums = partial.sum(0)
    return sums[0], gradient


class Adam:
    """Adam and its finite check with everything on the device: can be captured."""

    def __init__(self, flat, lr=0.01, betas=(0.9, 0.999), eps=1e-8):
        self.flat = flat
        self.mean, self.square = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
        b1, b2 = betas
        self.state = torch.tensor([0, lr, b1, b2, eps, math.log(b1), math.log(b2)], dtype=torch.float64, device=flat.data.device)
        self.scalars = torch.zeros(7, dtype=flat.data.dtype, device=flat.data.device)
        self.blocks = triton.cdiv(flat.data.numel(), 4096)
        self.flags = torch.zeros(self.blocks, dtype=torch.int32, device=flat.data.device)

    def step(self, loss):
        P = self.flat.data.numel()
        launch(K.finite, (self.blocks,), self.flat.grad, loss, self.flags, self.state, self.scalars, P, 4096)
        launch(K.adam, (triton.cdiv(P, 1024),), self.flat.data, self.flat.grad, self.mean, self.square, self.scalars,
               self.flags, self.blocks, P, triton.next_power_of_2(self.blocks), 1024)


FUNCTIONS = {f.__name__: f for f in (conv, conv_backward_input, add_conv_backward_weight, batch_norm, norm_pool_relu,
             batch_norm_backward, norm_pool_relu_backward, max_pool, max_pool_backward, relu, relu_backward, cross_entropy)}


def register():
    from cnn.ops import backend

    backend._waiting.clear()  # numba isn't needed here
    backend.register(backend.Backend("triton", lambda device, dtype: True, FUNCTIONS, 10))
