"""Writes kernels_patch.py: 3x3 convolutions of stride 1 on patches of outputs, each input tile loaded once for all of them."""
HEAD = '''"""Written by make_patch.py. 3x3, stride 1: each input tile [BC, BN] is loaded once for all outputs of a patch that it meets.

FLIP: the input gradient, whose taps run backwards. BASE: the first input of output 0.
"""

import triton
import triton.language as tl

'''
def kernel(PH, PW):
    o = [f'''
@triton.jit
def patch_{PH}x{PW}(x, w, bias, y, N, w_o, w_c, O: tl.constexpr, C: tl.constexpr, XH: tl.constexpr, XW: tl.constexpr,
               YH: tl.constexpr, YW: tl.constexpr, BASE_H: tl.constexpr, BASE_W: tl.constexpr, FLIP: tl.constexpr,
               HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, BO: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr):  # fmt: skip
    n_tiles: tl.constexpr = 1
    w_tiles: tl.constexpr = (YW + {PW - 1}) // {PW}
    tiles = tl.cdiv(N, BN)
    n = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    place = tl.program_id(0) // tiles
    qh, qw = place // w_tiles * {PH}, place % w_tiles * {PW}
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    ok = n < N
    plane = tl.zeros((), tl.int64) + XH * XW * N
    flip: tl.constexpr = 8 if FLIP else 0
    sign: tl.constexpr = -1 if FLIP else 1''']
    for a in range(PH):
        for b in range(PW): o.append(f"    acc{a}{b} = tl.zeros((BO, BN), tl.float32)")
    o.append("    for first in range(0, C, BC):")
    o.append("        c = first + tl.arange(0, BC)")
    o.append("        weights = w + (o * w_o)[:, None] + (c * w_c)[None, :]")
    o.append("        wanted = (o < O)[:, None] & (c < C)[None, :]")
    for t in range(9): o.append(f"        w{t} = tl.load(weights + (flip + sign * {t}), mask=wanted, other=0.0)")
    for ih in range(PH + 2):
        for iw in range(PW + 2):
            o.append(f"        h, v = qh + BASE_H + {ih}, qw + BASE_W + {iw}")
            o.append("        inside = (h >= 0) & (h < XH) & (v >= 0) & (v < XW)")
            o.append("        value = tl.load(x + (c * plane)[:, None] + ((h * XW + v) * N + n)[None, :], mask=(c < C)[:, None] & (ok & inside)[None, :], other=0.0)")
            for a in range(PH):
                for b in range(PW):
                    if 0 <= ih - a < 3 and 0 <= iw - b < 3:
                        o.append(f"        acc{a}{b} = tl.dot(w{(ih - a) * 3 + iw - b}, value, acc{a}{b}, input_precision=PRECISION)")
    o.append("    rows = o.to(tl.int64) * (YH * YW) * N")
    for a in range(PH):
        for b in range(PW):
            o.append(f"    if HAS_BIAS:\n        acc{a}{b} += tl.load(bias + o, mask=o < O, other=0.0)[:, None]")
            o.append(f"    tl.store(y + rows[:, None] + (((qh + {a}) * YW + qw + {b}) * N + n)[None, :], acc{a}{b}, mask=(o < O)[:, None] & (ok & (qh + {a} < YH) & (qw + {b} < YW))[None, :])")
    return "\n".join(o) + "\n"
open("kernels_patch.py", "w").write(HEAD + "\n".join(kernel(*p) for p in ((2, 2), (1, 4), (2, 4))))
