"""check.py's cases for both versions, on the GPU or in the interpreter: python check2.py [--slice i/n] -> JSON lines."""
import json, os, sys, time
GPU = "--gpu" in sys.argv
if not GPU: os.environ["TRITON_INTERPRET"] = "1"
sys.path[:0] = [os.environ.get("REPO", ".")]
import torch
import gpu_ops as G1, gpu_ops2 as G2
from cnn import ops as repo
from cnn.ops import Window as W, reference, Running, PoolReLU, Route
from cnn.ops.reference import conv as rconv, pool as rpool, norm as rnorm, loss as rloss, optimizer as ropt, fused as rfused
torch.set_num_threads(1)
part, parts = map(int, next((a[8:] for a in sys.argv if a.startswith("--slice=")), "0/1").split("/"))
D = "cuda" if GPU else "cpu"
NS = (128, 100, 97) if GPU else (16, 19)
def say(**row): print(json.dumps(row), flush=True)
def rel(a, b):
    a, b = a.double().cpu(), b.double().cpu()
    if not bool(torch.isfinite(a).all()): return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
same_windows = [
    ("3x3", W((3,3),(1,1),(1,1),(0,0),(0,0)), (6,5)), ("3x3 same", W((3,3),(1,1),(1,1),(1,1),(1,1)), (5,6)),
    ("3x3 stride 2", W((3,3),(2,2),(1,1),(0,0),(0,0)), (8,7)), ("3x3 s2 p1", W((3,3),(2,2),(1,1),(1,1),(1,1)), (6,7)),
    ("1x1 stride 2", W((1,1),(2,2),(1,1),(0,0),(0,0)), (6,5)), ("dilation 2", W((2,3),(1,1),(2,2),(1,2),(2,1)), (6,6)),
    ("stride 2 dilation 2", W((3,2),(2,2),(2,2),(2,1),(2,1)), (7,6)), ("s3 d2", W((3,2),(3,3),(2,2),(2,1),(2,1)), (7,9)),
    ("1d", W((3,),(2,),(1,),(1,),(1,)), (9,)), ("3d", W((2,2,2),(1,2,1),(1,1,1),(1,0,1),(0,0,1)), (3,4,3)),
    ("negative after", W((3,3),(2,2),(1,1),(1,1),(-1,-1)), (7,7)),
]
cases = []
def case(f): cases.append(f); return f
def guarded(name, f, **more):
    try: f()
    except Exception as e: say(check=name, error=f"{type(e).__name__}: {e}"[-600:], **more)

def conv_case(label, window, size, groups, C, O, precisions, dtypes, versions, modes=(None,)):
    for N in NS if not GPU or (label in ('3x3', '3x3 s2 p1') and groups == 1) else (128, 97):
        gen = torch.Generator().manual_seed(N + C)
        R = lambda *s: torch.randn(*s, generator=gen, dtype=torch.float64)
        x, w, b = R(groups * C, *size, N), R(groups * O, C, *window.kernel), R(groups * O)
        for dtype in dtypes:
            xs, ws, bs = (t.to(dtype) for t in (x, w, b))
            y = rconv.conv(xs.double(), ws.double(), bs.double(), window, groups)
            dy = R(*y.shape).to(dtype)
            dx = rconv.conv_backward_input(dy.double(), ws.double(), size, window, groups)
            dw, db = torch.ones_like(w), torch.ones_like(b)
            rconv.add_conv_backward_weight(xs.double(), dy.double(), window, dw, groups, db)
            for version in versions:
                G = {1: G1, 2: G2}[version]
                for precision in precisions if dtype == torch.float32 else ("ieee",):
                    for mode in modes:
                        name = f"conv {label} g{groups} C{C} O{O} N{N}"
                        more = dict(version=version, precision=precision, dtype=str(dtype)[6:], mode=mode)
                        def go():
                            G.PRECISION = precision
                            def once():
                                fw, fb = torch.ones_like(ws).to(D), torch.ones_like(bs).to(D)
                                xd, wd, bd, dyd = (t.to(D) for t in (xs, ws, bs, dy))
                                how = {}
                                if mode: how = {"options": dict(MODE=mode, BO=16, BC=16, PH=1, PW=2, BN=64 if GPU else 16, num_warps=4, num_stages=2)}
                                G.add_conv_backward_weight(xd, dyd, window, fw, groups, fb)
                                return [G.conv(xd, wd, bd, window, groups, **how), G.conv_backward_input(dyd, wd, size, window, groups, **how), fw, fb]
                            G2.NAN = True
                            found, again = once(), once()
                            equal = all(torch.equal(p, q) for p, q in zip(found, again))
                            say(check=name, errors=[float(f"{rel(p, q):.2e}") for p, q in zip(found, [y, dx, dw, db])], twice=equal, **more)
                        guarded(name, go, **more)

f32, f64 = torch.float32, torch.float64
for label, window, size in same_windows:
    for groups, C, O in [(1, 1, 10), (1, 10, 10), (2, 3, 5)]:
        precisions = ("tf32x3", "ieee", "tf32") if GPU and label in ("3x3", "3x3 s2 p1") and groups == 1 else ("tf32x3",)
        dtypes = (f32, f64) if label in ("3x3", "3x3 s2 p1", "1x1 stride 2") else (f32,)
        modes = (None, "fma") if label in ("3x3", "3x3 same", "dilation 2", "3d") and groups == 1 else (None,)
        cases.append(lambda a=(label, window, size, groups, C, O, precisions, dtypes, (2,), modes): conv_case(*a))
        if groups == 1 and label in ("3x3", "3x3 s2 p1", "dilation 2", "stride 2 dilation 2", "3d"):
            cases.append(lambda a=(label, window, size, groups, C, O, ("tf32x3",), (f32,), (1,)): conv_case(*a))
if GPU:
    for label, window, size, C, O in [("resnet 64", W((3,3),(1,1),(1,1),(1,1),(1,1)), (7,7), 64, 64), ("lenet 2", W((3,3),(1,1),(1,1),(0,0),(0,0)), (14,14), 32, 64)]:
        cases.append(lambda a=(label, window, size, 1, C, O, ("tf32x3", "tf32", "ieee"), (f32,), (2,)): conv_case(*a))
        cases.append(lambda a=(label, window, size, 1, C, O, ("tf32x3",), (f32,), (1,)): conv_case(*a))

pools = [("2x2", W((2,2),(2,2),(1,1),(0,0),(0,0)), (6,7)), ("3x3 s1", W((3,3),(1,1),(1,1),(0,0),(0,0)), (6,5)),
         ("3x3 s2 p1", W((3,3),(2,2),(1,1),(1,1),(1,1)), (7,6)), ("d2", W((2,2),(1,1),(2,2),(1,1),(1,1)), (6,6))]
@case
def pool_cases():
    for label, window, size in pools:
        for N in NS:
            def go():
                gen = torch.Generator().manual_seed(N); R = lambda *s: torch.randn(*s, generator=gen)
                x = (R(3, *size, N) * 2).round(); x[R(*x.shape) > 1.8] = float("nan"); x[R(*x.shape) < -2] = -float("inf")
                y, win = rpool.max_pool(x, window)
                G2.NAN = True
                fy, fwin = G2.max_pool(x.to(D), window)
                dy = R(*y.shape)
                back = rel(G2.max_pool_backward(dy.to(D), fwin, size, window), rpool.max_pool_backward(dy.double(), win, size, window))
                say(check=f"max_pool {label} N{N}", y=torch.equal(fy.cpu().nan_to_num(99.), y.nan_to_num(99.)), winner=torch.equal(fwin.cpu(), win), errors=[back])
            guarded(f"max_pool {label} N{N}", go)
def norm_case(window, rectify, size, dtype):
    for N in NS:
        for training in (True, False):
            for far in (5.0, 1000.0):
                name = f"norm pool {window and window.kernel} relu {rectify} training {training} N{N} {str(dtype)[6:]} mean {far:g}"
                def go():
                    gen = torch.Generator().manual_seed(N); R = lambda *s: torch.randn(*s, generator=gen, dtype=torch.float64)
                    x, w, b, m, v = (t.to(dtype) for t in (R(3, *size, N) + far, R(3), R(3), R(3), R(3).abs() + .5))
                    m64, v64 = m.double().clone(), v.double().clone()
                    after = PoolReLU(window, rectify)
                    plain = window is None and not rectify
                    if plain: y, st = rnorm.batch_norm(x.double(), w.double(), b.double(), Running(m64, v64, .1, 1e-5), training=training); route = Route(y, None)
                    else: y, st, route = rfused.norm_pool_relu(x.double(), w.double(), b.double(), Running(m64, v64, .1, 1e-5), after, training=training)
                    dy = R(*y.shape).to(dtype)
                    G2.NAN = True
                    def once():
                        xd, wd, bd, dyd = (t.to(D) for t in (x, w, b, dy))
                        run = Running(m.to(D).clone(), v.to(D).clone(), .1, 1e-5)
                        if plain: fy, fst = G2.batch_norm(xd, wd, bd, run, training=training); fr = None
                        else: fy, fst, fr = G2.norm_pool_relu(xd, wd, bd, run, after, training=training)
                        out = [fy, fst, run.mean, run.var]
                        if training:
                            fw, fb = torch.ones(3, dtype=dtype, device=D), torch.ones(3, dtype=dtype, device=D)
                            out += [G2.batch_norm_backward(dyd, xd, fst, wd, (fw, fb)) if plain else G2.norm_pool_relu_backward(dyd, xd, fst, wd, (fw, fb), fr), fw, fb]
                        return out, fr
                    (found, fr), (again, _) = once(), once()
                    wanted = [y, st, m64, v64]
                    differ = 0
                    if window is not None: differ = int((fr.values.cpu() != route.values).sum())
                    if training:
                        dw, db = torch.ones(3).double(), torch.ones(3).double()
                        dx = (rnorm.batch_norm_backward(dy.double(), x.double(), st, w.double(), (dw, db)) if plain
                              else rfused.norm_pool_relu_backward(dy.double(), x.double(), st, w.double(), (dw, db), route))
                        wanted += [dx, dw, db]
                    say(check=name, errors=[float(f"{rel(p, q):.2e}") for p, q in zip(found, wanted)], routes_that_differ=differ,
                        twice=all(torch.equal(p, q) for p, q in zip(found, again)))
                guarded(name, go)
with repo.kernels("reference"):
    for window, rectify, size in [(None, False, (5,6)), (None, True, (9,8)), (pools[0][1], True, (6,7)), (pools[1][1], True, (6,5)), (pools[2][1], False, (7,6))]:
        for dtype in (f32, f64): cases.append(lambda a=(window, rectify, size, dtype): norm_case(*a))
@case
def losses():
    gen = torch.Generator().manual_seed(1); R = lambda *s: torch.randn(*s, generator=gen)
    for weight, s in [(None, 0.), (None, .1), (R(10).abs(), .1), (torch.zeros(10), .1)]:
        for N in NS:
            def go():
                z, t = R(10, N) * 5, torch.randint(0, 10, (N,), generator=gen)
                value, gradient = rloss.cross_entropy(z.double(), t, None if weight is None else weight.double(), s)
                fv, fg = G2.cross_entropy(z.to(D), t.to(D), None if weight is None else weight.to(D), s)
                say(check=f"cross_entropy weight {weight is not None} smoothing {s} N{N}", errors=[rel(fv, value), rel(fg, gradient)])
            guarded("cross_entropy", go)
@case
def optimizer():
    gen = torch.Generator().manual_seed(1); R = lambda *s: torch.randn(*s, generator=gen)
    for P in (3000, 4250, 100000):
        def go():
            class Flat: pass
            flat = Flat(); flat.data, flat.grad = R(P).to(D), R(P).to(D)
            q = flat.data.double().cpu().clone(); m, s = torch.zeros(P).double(), torch.zeros(P).double(); start = q.clone()
            opt = G2.Adam(flat, 0.01); loss = torch.zeros((), device=D)
            for t in range(1, 6):
                opt.step(loss); ropt.adam(q, flat.grad.double().cpu(), m, s, (.9, .999), 1e-8, .01 / (1 - .9**t), (1 - .999**t) ** .5)
            before = [z.clone() for z in (flat.data, opt.mean, opt.square)]
            kept = flat.grad[P - 5].clone(); flat.grad[P - 5] = float("nan"); opt.step(loss)
            stays = all(torch.equal(a, b) for a, b in zip(before, (flat.data, opt.mean, opt.square)))
            flat.grad[P - 5] = kept; opt.step(torch.full((), float("inf"), device=D))
            stays &= all(torch.equal(a, b) for a, b in zip(before, (flat.data, opt.mean, opt.square)))
            say(check=f"adam P{P}", errors=[rel(flat.data.cpu().double() - start, q - start), rel(opt.mean, m), rel(opt.square, s)], fault_changes_nothing=stays)
        guarded("adam", go)
    def go():
        rows = torch.randint(0, 256, (9, 100), dtype=torch.uint8, generator=gen); chosen = torch.randint(0, 9, (50,), generator=gen)
        x = torch.full((100, 50), float("nan"), device=D)
        G1.take_examples(x, rows.to(D), chosen.to(D), 1 / 255, -.5)
        say(check="take_examples", errors=[rel(x, rows[chosen].t().double() / 255 - .5)])
        a, b = R(1000), R(1000)
        G2.NAN = True
        y = G2.relu(a.to(D)); say(check="relu", errors=[rel(y, a.clamp(min=0)), rel(G2.relu_backward(b.to(D), y), b.masked_fill(a <= 0, 0))])
    guarded("rest", go)
start = time.perf_counter()
with repo.kernels("reference"):
    for i, f in enumerate(cases):
        if i % parts == part: f()
say(check="end", part=part, seconds=round(time.perf_counter() - start, 1))
