"""The second measurement: more tiles, patches, turned weights, tf32 tiles, norms' blocks, weight gradients on a second stream,
merged residual blocks, gradients beside float64, injected NaN, bf16 and compiled peers: python probe3.py warm --slice=i/n | main"""
import ast, json, math, os, sys, time
import torch
import probe as P, gpu_ops2 as G
from probe import say, guarded, left, Ours, BATCHES, GEOMS, MODELS, window_of, operation, time_kernel, captured, D, START
from cnn import build_model
from cnn.graphs.fusion import fuse
from cnn.ops import backend, Running, PoolReLU
from cnn.ops.reference import loss as rloss

OLD = {}
for line in open(f"{P.HERE}/best2.jsonl"):
    r = json.loads(line)
    key = ast.literal_eval(r["key"])
    OLD[(*key, r["N"])] = {k: v for k, v in r["options"].items() if v is not None}

def old(key):
    found = []
    for (*k, N), o in OLD.items():
        if tuple(k) == key and o not in found: found.append(o)
    return found
def unique(options):
    out = []
    for o in options:
        if o not in out: out.append(o)
    return out
def gather_more(key, O, C, k, s, tf32):
    """O outputs, C inputs."""
    bests = old(key)
    BO, BC = G.power(O, most=32), G.power(C, most=32)
    D_ = lambda BO, BC, PH, PW, BN, w, st, **m: dict(MODE="dot", BO=BO, BC=BC, PH=PH, PW=PW, BN=BN, num_warps=w, num_stages=st, **m)
    out = [] if tf32 else list(bests)
    if C == 1: return out + [dict(o, num_warps=w) for o in bests for w in (2, 4)]
    patch = k == 3 and s == 1
    if patch:
        shapes = [(2, 2, 64, 4), (2, 2, 128, 4), (1, 4, 64, 4)] if tf32 else [(2, 2, 64, 4), (2, 2, 32, 2), (1, 4, 64, 4)] + ([(2, 4, 32, 4)] if O <= 16 else [])
        for PH, PW, BN, w in shapes: out.append(dict(MODE="patch", BO=BO, BC=BC if tf32 else 16, PH=PH, PW=PW, BN=BN, num_warps=w, num_stages=1))
        if O > 16: out.append(dict(MODE="patch", BO=16, BC=16, PH=2, PW=2, BN=64, num_warps=4, num_stages=1))
    more = [D_(BO, BC, 1, 1, 128, 2, 3), D_(BO, BC, 1, 1, 128, 4, 3), D_(BO, BC, 1, 1, 64, 2, 3), D_(BO, BC, 1, 2, 64, 2, 3), D_(BO, BC, 1, 1, 128, 2, 4), D_(BO, BC, 1, 2, 128, 4, 3)]
    if not tf32: more += [D_(BO, BC, 2, 2, 32, 4, 1), D_(BO, BC, 2, 2, 64, 4, 1), D_(BO, BC, 1, 4, 64, 4, 1), D_(BO, BC, 1, 1, 128, 2, 2)]
    if O == 64: more += [D_(64, BC, 1, 1, 128, 4, 3), D_(64, BC, 1, 2, 128, 8, 3), D_(64, BC, 1, 1, 64, 4, 3)] if tf32 else [D_(16, BC, 1, 1, 128, 2, 3), D_(32, 16, 1, 1, 128, 4, 4)]
    turned = [dict(o, WT=True) for o in (bests if not tf32 else [D_(BO, BC, 1, 1, 128, 2, 3), D_(BO, BC, 1, 1, 128, 4, 3)]) if o["MODE"] == "dot"]
    out += more + turned
    if tf32: out = [dict(o, PRECISION="tf32") for o in out]
    return unique(out)
def weight_more(key, O, C, k, tf32):
    bests = [{a: b for a, b in o.items() if a not in ("S", "B", "PROGRAMS")} for o in old(key)]
    BO, wide = G.power(O, most=64), C * k * k
    W = lambda BO, BK, BN, w, s: dict(BO=BO, BK=BK, BN=BN, num_warps=w, num_stages=s)
    if wide <= 16: more = [W(BO, 16, 64, 1, 3), W(BO, 16, 32, 1, 3), W(BO, 16, 64, 2, 3), W(BO, 16, 32, 2, 4), W(BO, 16, 128, 1, 2)]
    elif wide <= 32: more = [W(BO, 32, 32, 2, 3), W(BO, 32, 64, 2, 3), W(BO, 16, 32, 2, 3)]
    else: more = [W(BO, 32, 32, 1, 3), W(BO, 64, 32, 2, 3), W(BO, 32, 64, 2, 3), W(BO, 32, 32, 2, 4), W(BO, 128, 32, 4, 3), W(BO, 64, 32, 4, 3), W(BO, 64, 64, 4, 3), W(BO, 32, 32, 2, 3)]
    if O == 64: more += [W(32, 64, 32, 4, 3), W(32, 64, 32, 2, 3)]
    out = unique(bests + more)
    return [dict(o, PRECISION="tf32") for o in out] if tf32 else out
def points(tf32):
    for geom in GEOMS:
        model, O, C, k, s, p, size, bias = geom
        window = window_of(k, s, p)
        key = ("forward", O, C, window.kernel, window.stride, (size, size))
        options = gather_more(key, O, C, k, s, tf32)
        if C > 1 or not tf32: yield "forward", key, geom, options
        if C > 1:
            key = ("input", C, O, window.kernel, window.stride, (size, size))
            yield "input", key, geom, gather_more(key, C, O, k, s, tf32)
        key = ("weight", O, C, window.kernel, window.stride, (size, size))
        yield "weight", key, geom, weight_more(key, O, C, k, tf32)

NORMS = [(16, 784), (32, 196), (64, 49), (10, 676), (10, 144), (32, 676), (64, 576)]
NORM_SETTINGS = [dict(B=1024, SB=1024, num_warps=4, BW=4, most=64), dict(B=2048, SB=2048, num_warps=4, BW=4, most=64), dict(B=4096, SB=4096, num_warps=8, BW=8, most=64),
                 dict(B=1024, SB=1024, num_warps=8, BW=8, most=64), dict(B=2048, SB=2048, num_warps=8, BW=8, most=128), dict(B=1024, SB=1024, num_warps=4, BW=4, most=256),
                 dict(B=512, SB=512, num_warps=4, BW=4, most=128), dict(B=4096, SB=2048, num_warps=4, BW=8, most=256)]
def norms(setting, programs, C, S, N, label):
    G.NORM.update(setting); G.NORM_PROGRAMS = programs
    R = lambda *s: torch.randn(*s, device=D)
    x, w, b, run = R(C, S, N), R(C), R(C), Running(torch.zeros(C, device=D), torch.ones(C, device=D), .1, 1e-5)
    y, st, route = G.norm_pool_relu(x, w, b, run, PoolReLU(None, True), training=True)
    dy, dw, db = R(C, S, N), torch.zeros(C, device=D), torch.zeros(C, device=D)
    if G.LAUNCH is not None: G.norm_pool_relu_backward(dy, x, st, w, (dw, db), route); return
    one = x.numel() * 4 / P.BANDWIDTH * 1e6
    m = time_kernel(lambda: G.moments(x, C, S * N, x.dtype))
    f = time_kernel(lambda: G.norm_pool_relu(x, w, b, run, PoolReLU(None, True), training=True))
    k = time_kernel(lambda: G.norm_pool_relu_backward(dy, x, st, w, (dw, db), route))
    say(file="norms", show=False, C=C, S=S, N=N, setting=setting, programs=programs, moments_us=round(m * 1e6, 2), forward_us=round(f * 1e6, 2), backward_us=round(k * 1e6, 2),
        one_pass_us=round(one, 2), forward_passes=3, backward_passes=7)
def norm_sweep():
    for C, S in NORMS:
        for N in (128, 2048):
            for setting in NORM_SETTINGS:
                for programs in (528, 1056, 2112):
                    guarded("norms", lambda: norms(setting, programs, C, S, N, ""))
    G.NORM.update(NORM_SETTINGS[0]); G.NORM_PROGRAMS = 528

BEST, BEST32 = {}, {}
def sweep(tf32, budget):
    best = BEST32 if tf32 else BEST
    begin = time.perf_counter()
    for N in (128, 2048, 512):
        for kind, key, geom, options in points(tf32):
            if time.perf_counter() - begin > budget: say(part="sweep3", tf32=tf32, stopped=f"at N={N} {key}"); return
            def go():
                run, ref, nbytes, flops = operation(kind, geom, N)
                wanted, rows = ref() if N == 128 else None, []
                def one(o):
                    try:
                        error = None
                        if wanted is not None:
                            if kind == "weight": run.reset()
                            error = float((run(o) - wanted).abs().max() / wanted.abs().max())
                        s = time_kernel(lambda: run(o)); rows.append((s, o))
                        say(file="sweep3", show=False, kind=kind, model=geom[0], key=str(key), N=N, options=o, us=round(s * 1e6, 2), error=error,
                            memory_share=round(nbytes / s / P.BANDWIDTH, 3), tflops=round(flops / s / 1e12, 2))
                    except Exception as e: say(file="sweep3", show=False, kind=kind, key=str(key), N=N, options=o, failed=f"{type(e).__name__}: {e}"[-200:])
                for o in options: one(dict(o, PROGRAMS=528, S=256, B=16) if kind == "weight" else o)
                if not rows: return
                rows.sort(key=lambda r: r[0])
                if kind == "weight":
                    for programs in (264, 1056, 2112):
                        for _, o in rows[:2]: one(dict(o, PROGRAMS=programs))
                    rows.sort(key=lambda r: r[0])
                    base = rows[0][1]
                    for S, B in ((64, 16), (128, 16), (64, 32), (128, 8)): one(dict(base, S=S, B=B))
                    if OLD.get((*key, N)) and not tf32: one(OLD[(*key, N)])
                    rows.sort(key=lambda r: r[0])
                s, o = rows[0]
                best[(*key, N)] = o
                say(file="best3", show=False, kind=kind, model=geom[0], key=str(key), N=N, tf32=tf32, options=o, us=round(s * 1e6, 2), floor_us=round(nbytes / P.BANDWIDTH * 1e6, 2),
                    memory_share=round(nbytes / s / P.BANDWIDTH, 3), tflops=round(flops / s / 1e12, 2), worst_us=round(rows[-1][0] * 1e6, 1))
            guarded(f"sweep {key} {N}", go)

def gradients():
    for model in MODELS:
        for N in (128, 97):
            def go():
                with backend.kernels("reference"):
                    net = build_model(MODELS[model], (1, 28, 28), seed=0, device=D, dtype=torch.float64)
                    scored = fuse(net.without_last("softmax"))
                    r = Ours(model, N, reference=True); r.step()
                    y, cache = scored.forward(r.x.double(), r.mode); loss, dy = rloss.cross_entropy(y, r.t, None, 0.0); scored.backward(dy, cache, need_dx=False)
                wanted = {n: p.grad for n, p in net.named_parameters()}
                rows = {}
                for label, precision, merge in (("tf32x3", "tf32x3", False), ("tf32x3 merged", "tf32x3", True), ("tf32", "tf32", False)):
                    G.PRECISION, P.MERGE = precision, merge
                    c = Ours(model, N); c.step(); rows[label] = c
                G.PRECISION, P.MERGE = "tf32x3", False
                rows["reference float32"] = r
                def worst(o): 
                    got = dict(o.net.named_parameters())
                    return max((float((got[n].grad.double() - g).norm() / g.norm().clamp(min=1e-12)), n) for n, g in wanted.items() if float(g.norm()) > 1e-6)
                say(part="gradient beside float64", model=model, N=N, norm_of_difference={k: [float(f"{worst(o)[0]:.2e}"), worst(o)[1][-30:]] for k, o in rows.items()},
                    loss={k: float(o.loss) - float(loss) for k, o in rows.items()})
            guarded("gradients " + model, go)

def injected():
    for model in ("seed8", "resnet20"):
        def go():
            b = Ours(model, 128)
            for _ in range(2): b.step()
            g = captured(b.step); g.replay(); torch.cuda.synchronize()
            before = [t.clone() for t in (b.flat.data, b.opt.mean, b.opt.square)]
            kept = b.x[0, 3, 3, 5].clone(); b.x[0, 3, 3, 5] = float("nan"); g.replay(); torch.cuda.synchronize()
            same = all(torch.equal(p, q) for p, q in zip(before, (b.flat.data, b.opt.mean, b.opt.square)))
            say(part="NaN injected", model=model, nothing_changed=same, flags=int(b.opt.flags.max()), loss=str(float(b.loss)), steps_counted=float(b.opt.state[0]),
                running_mean_is_nan=any(bool(t.data.isnan().any()) for _, t in b.net.named_buffers()))
        guarded("injected", go)

def bf16_peers():
    for model in MODELS:
        for N in BATCHES:
            def go():
                from torch import nn
                torch.backends.cudnn.benchmark = True
                net, x, t = P.peer_model(model).cuda().to(memory_format=torch.channels_last), torch.randn(N, 1, 28, 28, device="cuda").to(memory_format=torch.channels_last), torch.randint(0, 10, (N,), device="cuda")
                opt = torch.optim.Adam(net.parameters(), 0.01, fused=True, capturable=True)
                def step():
                    opt.zero_grad(set_to_none=True)
                    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False): loss = nn.functional.cross_entropy(net(x), t)
                    loss.backward(); opt.step()
                side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(4): step()
                torch.cuda.current_stream().wait_stream(side); torch.cuda.synchronize()
                g = torch.cuda.CUDAGraph()
                with torch.cuda.graph(g): step()
                s = P.wall(g.replay)
                say(part="peer", how="bf16 autocast in one graph", model=model, N=N, channels_last=True, us=round(s * 1e6, 1), images_s=round(N / s), file="peers3", show=False)
            guarded(f"bf16 peer {model} {N}", go)

def compiled(cases):
    for model, N, last in cases:
        if left() < 30: return
        def go():
            t = time.perf_counter(); step = P.peer_step(model, N, True, last, False, "reduce-overhead"); took = time.perf_counter() - t
            s = P.wall(step)
            say(part="peer", how="compile reduce-overhead", model=model, N=N, tf32=True, channels_last=last, us=round(s * 1e6, 1), images_s=round(N / s), compile_s=round(took, 1), file="peers3")
        guarded(f"compile peer {model} {N}", go)

def take():
    for N in (128, 2048):
        def go():
            import gpu_ops as G1
            rows, chosen, x = torch.randint(0, 256, (60000, 784), dtype=torch.uint8, device=D), torch.randint(0, 60000, (N,), device=D), torch.empty(784, N, device=D)
            s = time_kernel(lambda: G1.take_examples(x, rows, chosen, 1 / 255, 0.0))
            say(part="take_examples", N=N, us=round(s * 1e6, 2), floor_us=round(784 * N * 5 / P.BANDWIDTH * 1e6, 2))
        guarded("take", go)

def combos(label, precision, tiles, side, merge, models=tuple(MODELS), **how):
    G.PRECISION, P.MERGE, G.SIDE = precision, merge, side
    G.TILES.clear(); G.TILES.update(tiles)
    guarded("steps " + label, lambda: P.steps(models=models, label=label, **how))
    G.PRECISION, P.MERGE, G.SIDE = "tf32x3", False, None

def warm(part, parts):
    G.LAUNCH = lambda kernel, grid, args, options: kernel.warmup(*args, grid=grid, **options)
    G.register()
    work = [("norm", s, C) for s in NORM_SETTINGS for C in NORMS]
    for precision in ("tf32x3", "tf32"):
        for model in MODELS: work += [("step", precision, model, merge) for merge in (False, True)]
    for tf32 in (False, True):
        for kind, key, geom, options in points(tf32):
            for o in options: work.append((kind, geom, o))
    work.sort(key=lambda item: not (isinstance(item[-1], dict) and item[-1].get('MODE') == 'patch'))
    mine, n, bad = work[part::parts], 0, 0
    for item in mine:
        if time.perf_counter() - START > float(os.environ.get("WARM_LIMIT", "150")): break
        try:
            if item[0] == "norm":
                for programs in (528, 1056, 2112):
                    for N in (128, 2048): norms(item[1], programs, *item[2], N, "")
            elif item[0] == "step":
                G.NORM.update(NORM_SETTINGS[0]); G.NORM_PROGRAMS = 528
                G.PRECISION, P.MERGE = item[1], item[3]
                for N in (*BATCHES, 97): Ours(item[2], N).step()
                G.PRECISION, P.MERGE = "tf32x3", False
            else: operation(item[0], item[1], BATCHES[0])[0](item[2])
            n += 1
        except Exception as e:
            bad += 1
            say(file="warm", part="warm", item=str(item)[:200], error=f"{type(e).__name__}: {e}"[-300:])
    say(file="warm", part="warm", slice=part, compiled=n, of=len(mine), bad=bad, seconds=round(time.perf_counter() - START, 1))

def main():
    guarded("machine", P.machine)
    G.register()
    guarded("graph peers", lambda: P.graph_peers(kinds=((True, True), (False, True))))
    P.wait_for("/tmp/done/warm*", int(os.environ["WARMERS"]), 110)
    say(part="clock", warm_done=round(time.perf_counter() - START, 1))
    guarded("gradients", gradients); guarded("injected", injected); guarded("take", take)
    combos("run 2", "tf32x3", OLD, None, False)
    second = torch.cuda.Stream()
    combos("run 2, second stream", "tf32x3", OLD, second, False)
    combos("run 2, merged", "tf32x3", OLD, None, True, models=("resnet13", "resnet20"))
    guarded("sweep3", lambda: sweep(False, 75))
    say(part="clock", sweep_done=round(time.perf_counter() - START, 1))
    tiles = {**OLD, **BEST}
    combos("run 3", "tf32x3", tiles, None, False)
    combos("run 3, merged, second stream", "tf32x3", tiles, second, True)
    guarded("sweep3 tf32", lambda: sweep(True, 50))
    tiles32 = {**OLD, **BEST32}
    combos("run 3, merged, second stream", "tf32", tiles32, second, True)
    combos("run 3, merged", "tf32", tiles32, None, True, bits=False)
    guarded("norm sweep", norm_sweep)
    P.MERGE = True; G.TILES.clear(); G.TILES.update(tiles)
    guarded("profiles", lambda: P.profiles([("seed8", 128), ("resnet20", 128), ("resnet20", 2048), ("lenet", 2048)], peers=False))
    P.MERGE = False
    guarded("bf16 peers", bf16_peers)
    guarded("compiled", lambda: compiled([("seed8", 128, False), ("resnet20", 128, True), ("lenet", 128, True), ("resnet20", 2048, True), ("lenet", 2048, True), ("seed8", 2048, True), ("blocks", 128, False), ("resnet13", 128, True), ("blocks", 2048, True), ("resnet13", 2048, True)]))
    say(part="end", clock=round(time.perf_counter() - START, 1))

if __name__ == "__main__":
    if sys.argv[1] == "warm": warm(*map(int, sys.argv[2].split("=")[1].split("/")))
    elif sys.argv[1] == "main": main()
