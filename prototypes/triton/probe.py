"""What waits for a GPU, measured: python probe.py warm --slice=i/n | main. JSON lines to stdout and $OUT."""
import json, math, os, statistics, sys, time
START = time.perf_counter()
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.environ.get("REPO", ".")]
import torch
import triton
import gpu_ops as G1, gpu_ops2 as G
from cnn import Mode, build_model
from cnn.graphs.fusion import fuse
from cnn.graphs.graph import Graph
from cnn.graphs.residual import Residual
from cnn.graphs.sequential import Sequential
from cnn.layers.activation import ReLU
from cnn.ops.values import Route
import copy
from cnn.ops import backend, Window, Running, PoolReLU
from cnn.ops.reference import conv as rconv, loss as rloss, optimizer as ropt
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.environ.get("OUT", "/tmp/out"); os.makedirs(OUT, exist_ok=True)
MODELS = json.load(open(f"{HERE}/models.json"))
CPU = os.environ.get("PROBE_CPU") == "1"
D = "cpu" if CPU else "cuda"
BATCHES = (128, 512, 2048) if not CPU else (16,)
LIMIT = float(os.environ.get("LIMIT", "320"))
torch.set_num_threads(1)
_files = {}
def say(file="main", show=True, **row):
    line = json.dumps(row)
    f = _files.setdefault(file, open(f"{OUT}/{file}.jsonl", "a"))
    f.write(line + "\n"); f.flush()
    if show: print(line, flush=True)
def left(): return LIMIT - (time.perf_counter() - START)
def guarded(name, f, *a):
    t = time.perf_counter()
    try: r = f(*a)
    except Exception as e:
        import traceback
        say(part=name, error=f"{type(e).__name__}: {e}"[-500:], at=traceback.format_exc()[-700:]); r = None
        if D == "cuda":
            try: torch.cuda.synchronize()
            except Exception: pass
    took = time.perf_counter() - t
    if took > 3: say(part=name, took=round(took, 1), clock=round(time.perf_counter() - START))
    return r

# ------------------------------------------------------------------ what is swept
GEOMS = [  # model, O, C, kernel, stride, pad, size, bias
    ("seed8", 10, 1, 3, 1, 0, 28, True), ("seed8", 10, 10, 3, 2, 0, 26, True), ("seed8", 10, 10, 3, 1, 0, 10, True),
    ("seed8", 10, 10, 3, 1, 0, 8, True), ("seed8", 10, 10, 3, 2, 0, 6, True),
    ("blocks", 10, 1, 3, 1, 1, 28, True), ("blocks", 10, 10, 3, 1, 1, 14, True),
    ("lenet", 32, 1, 3, 1, 0, 28, True), ("lenet", 64, 32, 3, 1, 0, 26, True),
    ("resnet", 16, 1, 3, 1, 1, 28, False), ("resnet", 16, 16, 3, 1, 1, 28, False), ("resnet", 32, 16, 3, 2, 1, 28, False),
    ("resnet", 32, 32, 3, 1, 1, 14, False), ("resnet", 32, 16, 1, 2, 0, 28, False), ("resnet", 64, 32, 3, 2, 1, 14, False),
    ("resnet", 64, 64, 3, 1, 1, 7, False), ("resnet", 64, 32, 1, 2, 0, 14, False),
]
def window_of(k, s, p): return Window((k, k), (s, s), (1, 1), (p, p), (p, p))

def gather_options(O, C, window, strided):
    """O outputs, C inputs of the gathering; strided: several phases."""
    BO, tiles = G.power(O, most=64), []
    if C == 1:
        for PH, PW, BN, w in [(1, 1, 64, 4), (1, 1, 128, 4), (1, 2, 64, 4), (2, 2, 32, 4), (1, 2, 128, 8), (1, 1, 128, 2)]:
            tiles.append(dict(MODE="merged", BO=BO, BC=16, PH=PH, PW=PW, BN=BN, num_warps=w, num_stages=1))
    else:
        BC = G.power(C, most=32)
        for PH, PW, BN, w, st in [(1, 1, 64, 4, 3), (1, 1, 128, 4, 3), (1, 1, 128, 4, 1), (1, 2, 64, 4, 3), (2, 2, 32, 4, 3),
                                  (1, 1, 128, 8, 3), (1, 2, 128, 8, 3), (1, 1, 128, 4, 4), (1, 1, 128, 2, 3)]:
            tiles.append(dict(MODE="dot", BO=BO, BC=BC, PH=PH, PW=PW, BN=BN, num_warps=w, num_stages=st))
        if BC > 16: tiles.append(dict(MODE="dot", BO=BO, BC=16, PH=1, PW=1, BN=128, num_warps=4, num_stages=3))
        if BO == 64: tiles.append(dict(MODE="dot", BO=32, BC=BC, PH=1, PW=1, BN=128, num_warps=4, num_stages=3))
    if not strided and O <= 32:
        for PH, PW, BN, w in [(1, 1, 64, 2), (1, 1, 128, 4), (1, 2, 128, 4)]:
            tiles.append(dict(MODE="fma", BO=BO, BC=16, PH=PH, PW=PW, BN=BN, num_warps=w, num_stages=1))
    return tiles
def weight_options(O, C, window):
    BO, wide = G.power(O, most=64), C * window.tap_count
    if wide <= 16: combos = [(16, 32, 4, 3), (16, 64, 4, 3), (16, 128, 4, 3), (16, 64, 2, 3), (16, 128, 2, 2)]
    elif wide <= 32: combos = [(16, 64, 4, 3), (32, 64, 4, 3), (32, 128, 4, 2)]
    else: combos = [(64, 32, 4, 3), (64, 64, 4, 3), (32, 64, 4, 3), (128, 32, 4, 3), (64, 32, 8, 3), (32, 32, 2, 3), (64, 128, 4, 2), (32, 128, 4, 2)]
    return [dict(BO=BO, BK=a, BN=b, num_warps=w, num_stages=s) for a, b, w, s in combos]

def points():
    """kind, key without N, geometry, list of options."""
    for geom in GEOMS:
        model, O, C, k, s, p, size, bias = geom
        window = window_of(k, s, p)
        yield "forward", ("forward", O, C, window.kernel, window.stride, (size, size)), geom, gather_options(O, C, window, False)
        if C > 1: yield "input", ("input", C, O, window.kernel, window.stride, (size, size)), geom, gather_options(C, O, window, s > 1)
        yield "weight", ("weight", O, C, window.kernel, window.stride, (size, size)), geom, weight_options(O, C, window)

def operation(kind, geom, N):
    """run(options), reference(), bytes, flops"""
    _, O, C, k, s, p, size, bias = geom
    window = window_of(k, s, p)
    gen = torch.Generator(device=D).manual_seed(1)
    R = lambda *shape: torch.randn(*shape, generator=gen, device=D)
    out = window.output_size((size, size))
    positions = math.prod(out)
    flops = 2 * O * C * k * k * positions * N
    if s == 1 or kind != "input": pass
    nx, ny, nw = C * size * size * N * 4, O * positions * N * 4, O * C * k * k * 4
    w, b = R(O, C, k, k), R(O) if bias else None
    if kind == "forward":
        x = R(C, size, size, N)
        return (lambda o: G.conv(x, w, b, window, 1, options=o)), (lambda: rconv.conv(x, w, b, window, 1)), nx + ny + nw, flops
    dy = R(O, *out, N)
    if kind == "input":
        return (lambda o: G.conv_backward_input(dy, w, (size, size), window, 1, options=o)), (lambda: rconv.conv_backward_input(dy, w, (size, size), window, 1)), nx + ny + nw, flops
    x = R(C, size, size, N)
    dw, db = torch.zeros_like(w), torch.zeros(O, device=D) if bias else None
    def run(o): G.add_conv_backward_weight(x, dy, window, dw, 1, db, options=o); return dw
    def ref():
        dw2, db2 = torch.zeros_like(w), torch.zeros(O, device=D) if bias else None
        rconv.add_conv_backward_weight(x, dy, window, dw2, 1, db2); return dw2
    run.reset = dw.zero_
    return run, ref, nx + ny + nw, flops

# ------------------------------------------------------------------ timing
POOL = SIDE = ANCHOR = None
def captured(f, times=1):
    global POOL
    global SIDE, ANCHOR
    if POOL is None:  # a pool whose graphs are all gone can't be used again: one stays
        POOL, SIDE, z = torch.cuda.graph_pool_handle(), torch.cuda.Stream(), torch.zeros(1, device=D)
        z.add_(1)
        torch.cuda.synchronize()
        ANCHOR = torch.cuda.CUDAGraph()
        with torch.cuda.stream(SIDE):
            ANCHOR.capture_begin(pool=POOL)
            ANCHOR.kept = z + 1
            ANCHOR.capture_end()
    g, side = torch.cuda.CUDAGraph(), SIDE
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        g.capture_begin(pool=POOL)
        try:
            for _ in range(times): r = f()
        finally: g.capture_end()
    torch.cuda.current_stream().wait_stream(side)
    g.kept = r
    return g
def events(f, count, rounds=3):
    out = []
    for _ in range(rounds):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(count): f()
        b.record(); b.synchronize()
        out.append(a.elapsed_time(b) / count * 1e-3)
    return statistics.median(out)
def time_kernel(f, times=10):
    f(); torch.cuda.synchronize()
    g = captured(f, times)
    g.replay()
    return events(g.replay, 1, 3) / times

# ------------------------------------------------------------------ whole steps
MERGE = False
class Aligned:
    """Flat vectors in which each parameter starts at 16 bytes; the network's parameters become views of it."""
    def __init__(self, net):
        parameters = net.flat.parameters
        starts, at = [], 0
        for p in parameters: starts.append(at); at += -(-p.numel // 4) * 4
        at = -(-at // 16) * 16
        self.data, self.grad = torch.zeros(at, device=D), torch.zeros(at, device=D)
        for p, s in zip(parameters, starts):
            self.data[s:s + p.numel].view(p.shape).copy_(p.data)
            p.data, p.grad = self.data[s:s + p.numel].view(p.shape), self.grad[s:s + p.numel].view(p.shape)

class ResidualReLU(Graph):
    """A residual block whose body ends in a batch norm, and the ReLU after it: relu(norm(x2) + shortcut(x)) in one pass."""
    kind = "residual_relu"
    def __init__(self, residual):
        super().__init__(residual.layers)
        layers = dict(residual.layers["body"].layers)
        self.norm = layers.pop(list(layers)[-1])
        self.body = Sequential(layers); self.shortcut = residual.layers.get("shortcut")
    def forward(self, x, mode):
        x2, c1 = self.body.forward(x, mode)
        s, c2 = (x, None) if self.shortcut is None else self.shortcut.forward(x, mode)
        running, _ = self.norm.running(x2, mode)
        y, statistics = G.norm_add_relu(x2, *self.norm.scale_and_shift(x2), running, s)
        return y, mode.keep(c1, c2, x2, statistics, y)
    def backward(self, dy, cache, *, need_dx=True, need_dparams=True):
        c1, c2, x2, statistics, y = cache.take()
        weight, _ = self.norm.scale_and_shift(x2)
        g = G.norm_pool_relu_backward(dy, x2, statistics, weight, self.norm.gradients(True), Route(y, None))
        dx = self.body.backward(g, c1)
        if self.shortcut is None: return G.add_masked(dx, dy.contiguous(), y)
        other = self.shortcut.backward(G.relu_backward(dy, y), c2)
        return torch.add(dx, other)
def merge_residuals(graph):
    layers, out, names = dict(graph.layers), {}, list(graph.layers)
    i = 0
    while i < len(names):
        layer = layers[names[i]]
        if isinstance(layer, Residual) and i + 1 < len(names) and isinstance(layers[names[i + 1]], ReLU):
            out[names[i]] = ResidualReLU(layer); i += 2; continue
        out[names[i]] = merge_residuals(layer) if isinstance(layer, Sequential) and not layer.is_fused else layer
        i += 1
    graph = copy.copy(graph); graph.layers = out
    return graph

class Ours:
    def __init__(self, model, N, reference=False):
        self.net = build_model(MODELS[model], (1, 28, 28), seed=0, device=D)
        self.flat = Aligned(self.net)
        self.scored = fuse(self.net.without_last("softmax"))
        if MERGE and not reference: self.scored = merge_residuals(self.scored)
        gen = torch.Generator().manual_seed(0)
        self.x, self.t = torch.randn(1, 28, 28, N, generator=gen).to(D), torch.randint(0, 10, (N,), generator=gen).to(D)
        self.opt, self.mode, self.reference = G.Adam(self.flat), Mode(train=True), reference
    def step(self):
        self.flat.grad.zero_()
        y, cache = self.scored.forward(self.x, self.mode)
        self.loss, dy = (rloss if self.reference else G).cross_entropy(y, self.t, None, 0.0)
        self.scored.backward(dy, cache, need_dx=False)
        G.join()
        if self.reference: ropt.adam(self.flat.data, self.flat.grad, self.opt.mean, self.opt.square, (0.9, 0.999), 1e-8, 0.01, 0.3)
        else: self.opt.step(self.loss)
        return self.loss
    def bits(self): return [self.flat.data.clone(), self.opt.mean.clone(), self.opt.square.clone(), self.loss.clone(),
                            *(b.data.clone() for _, b in self.net.named_buffers())]

# ------------------------------------------------------------------ parts
def warm(part, parts):
    """Compile, without launching, what the sweep and the steps use."""
    G.LAUNCH = lambda kernel, grid, args, options: kernel.warmup(*args, grid=grid, **options)
    work = []
    G.register()
    for precision in ("tf32x3", "tf32"):
        for model in MODELS: work.append(("step", precision, model))
    for kind, key, geom, options in points():
        for o in options: work.append((kind, geom, o))
    mine = work[part::parts]
    N, n, bad = BATCHES[0], 0, 0
    for item in mine:
        if time.perf_counter() - START > float(os.environ.get("WARM_LIMIT", "150")): break
        try:
            if item[0] == "step":
                G.PRECISION = item[1]
                for n_ in BATCHES: Ours(item[2], n_).step()
                G.PRECISION = "tf32x3"
            else: operation(item[0], item[1], N)[0](item[2])
            n += 1
        except Exception as e:
            bad += 1
            say(file=f"warm", part="warm", item=str(item)[:200], error=f"{type(e).__name__}: {e}"[-300:])
    say(file="warm", part="warm", slice=part, compiled=n, of=len(mine), bad=bad, seconds=round(time.perf_counter() - START, 1))

BANDWIDTH = 3e12
def machine():
    global BANDWIDTH
    import platform
    p = torch.cuda.get_device_properties(0)
    say(part="versions", card=p.name, sms=p.multi_processor_count, l2_mb=p.L2_cache_size / 1e6, torch=torch.__version__, cuda=torch.version.cuda,
        triton=triton.__version__, python=platform.python_version(), cudnn=torch.backends.cudnn.version(), cores=os.cpu_count())
    a = torch.randn(1 << 28, device="cuda"); b = torch.empty_like(a)
    b.copy_(a); BANDWIDTH = 2 * a.numel() * 4 / events(lambda: b.copy_(a), 5)
    say(part="bandwidth", copy_tb_s=round(BANDWIDTH / 1e12, 3))
    z = torch.zeros(64, device="cuda")
    for name, f in [("torch add_ of 64 values", lambda: z.add_(1)), ("memset", lambda: z.zero_()), ("triton relu of 64 values", lambda: G.relu(z))]:
        f(); g = captured(f, 200); g.replay()
        say(part="graph node", what=name, us_a_node=round(events(g.replay, 5) / 200 * 1e6, 3))
        torch.cuda.synchronize(); t = time.perf_counter()
        for _ in range(500): f()
        torch.cuda.synchronize(); say(part="launch", what=name, us=round((time.perf_counter() - t) / 500 * 1e6, 2))
    g = captured(lambda: z.add_(1)); torch.cuda.synchronize(); t = time.perf_counter()
    for _ in range(500): g.replay()
    torch.cuda.synchronize(); say(part="graph replay of one node", us=round((time.perf_counter() - t) / 500 * 1e6, 2))

def reference_runs():
    for model in MODELS:
        def go():
            with backend.kernels("reference"):
                runs = []
                for _ in range(2):
                    o = Ours(model, 128, reference=True)
                    for _ in range(3): o.step()
                    runs.append(o)
                torch.cuda.synchronize(); t = time.perf_counter()
                for _ in range(10): o.step()
                torch.cuda.synchronize(); seconds = (time.perf_counter() - t) / 10
                say(part="reference set on cuda", model=model, N=128, ms_a_step=round(seconds * 1e3, 3), loss=float(o.loss))
        guarded("reference " + model, go)

def reference_captured():
    """In a process of its own: a capture that fails may leave the allocator in a bad state."""
    for model in ("resnet20", "resnet13", "blocks"):
        for N in (128, 2048):
            def go():
                with backend.kernels("reference"):
                    o = Ours(model, N, reference=True)
                    for _ in range(2): o.step()
                    g = captured(o.step); g.replay(); torch.cuda.synchronize()
                    say(part="reference set captured", model=model, N=N, us=round(events(g.replay, 10) * 1e6, 1), file="reference")
            guarded("reference captured " + model, go)

def peer_model(model):
    from benchmarks import peers
    from torch import nn
    if model != "resnet20": return peers.MODELS[model]()
    w, R = 16, peers.Residual
    return nn.Sequential(nn.Conv2d(1, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(), R(w, w), R(w, w), R(w, w), R(w, 2 * w, 2), R(2 * w, 2 * w),
                         R(2 * w, 2 * w), R(2 * w, 4 * w, 2), R(4 * w, 4 * w), R(4 * w, 4 * w), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 10))
def peer_step(model, N, tf32, last, graph, compiled=None):
    from torch import nn
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    net, x, t = peer_model(model).cuda(), torch.randn(N, 1, 28, 28, device="cuda"), torch.randint(0, 10, (N,), device="cuda")
    if last: net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 0.01, fused=True, capturable=graph)
    loss = lambda x: nn.functional.cross_entropy(net(x), t)
    if compiled:
        torch.compiler.reset(); loss = torch.compile(loss, dynamic=False, mode=compiled)
    def step(): optimizer.zero_grad(set_to_none=True); loss(x).backward(); optimizer.step()
    side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4): step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    if not graph: return step
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g): step()
    step.graph, step.net, step.x = g, net, x
    return step
def wall(step, seconds=0.12):
    for _ in range(3): step()
    torch.cuda.synchronize(); rounds = []
    for _ in range(3):
        n, t = 0, time.perf_counter()
        while time.perf_counter() - t < seconds / 3:
            for _ in range(20): step()
            n += 20
            torch.cuda.synchronize()
        rounds.append((time.perf_counter() - t) / n)
    return statistics.median(rounds)
PEERS = {}
def graph_peers(models=tuple(MODELS), batches=BATCHES, kinds=((True, False), (True, True), (False, False), (False, True))):
    for model in models:
        for N in batches:
            for tf32, last in kinds:
                if True:
                    def go():
                        step = peer_step(model, N, tf32, last, True)
                        s = wall(step.graph.replay)
                        PEERS[model, N, "graph", tf32, last] = s
                        say(part="peer", how="eager in one graph", model=model, N=N, tf32=tf32, channels_last=last, us=round(s * 1e6, 1), images_s=round(N / s), show=False, file="peers")
                    guarded(f"graph peer {model} {N}", go)
def eager_peers(models=tuple(MODELS), batches=BATCHES):
    for model in models:
        for N in batches:
            for tf32, last in ((True, False), (False, False), (True, True)):
                if left() < 12: return
                def go():
                    s = wall(peer_step(model, N, tf32, last, False))
                    PEERS[model, N, "eager", tf32, last] = s
                    say(part="peer", how="eager", model=model, N=N, tf32=tf32, channels_last=last, us=round(s * 1e6, 1), images_s=round(N / s), show=False, file="peers")
                guarded(f"eager peer {model} {N}", go)
def compiled_peers(cases, mode="reduce-overhead"):
    for model, N in cases:
        if left() < 25: return
        def go():
            t = time.perf_counter(); step = peer_step(model, N, True, False, False, mode); took = time.perf_counter() - t
            s = wall(step); PEERS[model, N, "compile", True, False] = s
            say(part="peer", how=f"compile {mode}", model=model, N=N, tf32=True, us=round(s * 1e6, 1), images_s=round(N / s), compile_s=round(took, 1), file="peers")
        guarded(f"compile peer {model} {N}", go)

BEST = {}
def sweep(batches=BATCHES, budget=90):
    begin = time.perf_counter()
    for N in batches:
        for kind, key, geom, options in points():
            if time.perf_counter() - begin > budget: say(part="sweep", stopped=f"at N={N} {key}"); return
            def go():
                run, ref, nbytes, flops = operation(kind, geom, N)
                rows = []
                wanted = ref() if N == batches[0] else None
                tried = list(options)
                if kind == "weight": tried = [dict(o, PROGRAMS=528) for o in options]
                def one(o):
                    try:
                        error = None
                        if wanted is not None:
                            if kind == "weight": run.reset()
                            found = run(o)
                            error = float((found - wanted).abs().max() / wanted.abs().max())
                        s = time_kernel(lambda: run(o))
                        rows.append((s, o))
                        say(file="sweep", show=False, kind=kind, model=geom[0], key=str(key), N=N, options=o, us=round(s * 1e6, 2), error=error,
                            memory_share=round(nbytes / s / BANDWIDTH, 3), tflops=round(flops / s / 1e12, 2))
                    except Exception as e:
                        say(file="sweep", show=False, kind=kind, key=str(key), N=N, options=o, failed=f"{type(e).__name__}: {e}"[-200:])
                for o in tried: one(o)
                if not rows: return
                rows.sort(key=lambda r: r[0])
                if kind == "weight":
                    for programs in (132, 264, 1056, 2112):
                        for _, o in rows[:2]: one(dict(o, PROGRAMS=programs))
                    rows.sort(key=lambda r: r[0])
                    base = rows[0][1]
                    for S, B in ((32, 16), (128, 8), (64, 32), (256, 16)): one(dict(base, S=S, B=B))
                    rows.sort(key=lambda r: r[0])
                s, o = rows[0]
                BEST[(*key, N)] = o
                say(file="best", show=False, kind=kind, model=geom[0], key=str(key), N=N, options=o, us=round(s * 1e6, 2), floor_us=round(nbytes / BANDWIDTH * 1e6, 2),
                    memory_share=round(nbytes / s / BANDWIDTH, 3), tflops=round(flops / s / 1e12, 2), worst_us=round(rows[-1][0] * 1e6, 1))
            guarded(f"sweep {key} {N}", go)

def steps(models=tuple(MODELS), batches=BATCHES, label="best", bits=True, check=False):
    for model in models:
        for N in batches:
            if left() < 5: return
            def go():
                a = Ours(model, N)
                for _ in range(2): a.step()
                torch.cuda.synchronize()
                b = Ours(model, N)
                for _ in range(2): b.step()
                g = captured(b.step)
                same = None
                if bits:
                    for _ in range(5): a.step()
                    for _ in range(5): g.replay()
                    torch.cuda.synchronize()
                    same = all(torch.equal(p, q) for p, q in zip(a.bits(), b.bits()))
                error = None
                if check:
                    with backend.kernels("reference"):
                        r = Ours(model, N, reference=True); r.step()
                    c = Ours(model, N); c.step(); error = float((c.flat.grad - r.flat.grad).abs().max() / r.flat.grad.abs().max())
                s = wall(g.replay)
                eager = wall(a.step) if bits and N == 128 else None
                G.LOG = []; a.step(); n = len(G.LOG); G.LOG = None
                peers = {f"{k[2]} tf32={k[3]} last={k[4]}": round(v / s, 2) for k, v in PEERS.items() if k[:2] == (model, N)}
                say(part="step", tiles=label, precision=G.PRECISION, model=model, N=N, us=round(s * 1e6, 1), images_s=round(N / s), same_bits_as_launches=same,
                    launches_us=eager and round(eager * 1e6, 1), triton_launches=n, gradient_error=error, finite=bool(torch.isfinite(b.loss)), times_faster_than=peers, file="steps")
                return g, b
            guarded(f"step {model} {N}", go)

def profile(name, replay, times=5):
    from torch.profiler import ProfilerActivity, profile as prof
    replay(); torch.cuda.synchronize()
    with prof(activities=[ProfilerActivity.CUDA]) as p:
        for _ in range(times): replay()
        torch.cuda.synchronize()
    rows = {}
    for e in p.events():
        if e.device_type == torch.autograd.DeviceType.CUDA:
            r = rows.setdefault(e.name[:90], [0, 0.0]); r[0] += 1; r[1] += e.device_time if hasattr(e, "device_time") else e.cuda_time
    table = sorted(((round(t / times, 2), n / times, k) for k, (n, t) in rows.items()), reverse=True)
    say(part="profile", what=name, total_us=round(sum(r[0] for r in table), 1), nodes=sum(r[1] for r in table), rows=table[:30], file="profiles", show=False)
def profiles(cases, peers=True):
    for model, N in cases:
        def ours():
            b = Ours(model, N)
            for _ in range(2): b.step()
            g = captured(b.step); profile(f"ours {model} {N}", g.replay)
            G.LOG = []; b.step()
        guarded(f"profile ours {model} {N}", ours)
        if peers: guarded(f"profile peer {model} {N}", lambda: profile(f"peer {model} {N} tf32", peer_step(model, N, True, False, True).graph.replay))

def wait_for(pattern, count, seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        import glob
        if len(glob.glob(pattern)) >= count: return True
        time.sleep(0.2)
    say(part="wait", missing=pattern); return False

def main():
    guarded("machine", machine)
    G.register()
    guarded("graph peers", lambda: graph_peers(kinds=((True, True), (False, True))))
    wait_for("/tmp/done/warm*", int(os.environ["WARMERS"]), 100)
    say(part="clock", warm_done=round(time.perf_counter() - START, 1))
    guarded("steps rule", lambda: steps(label="rule", check=True))
    guarded("sweep", lambda: sweep(budget=max(20, left() - 85)))
    G.TILES.update(BEST)
    guarded("steps best", lambda: steps(label="best", check=True))
    guarded("graph peers again", lambda: graph_peers(models=("seed8", "resnet20"), batches=(128,)))
    guarded("profiles", lambda: profiles([("seed8", 128), ("lenet", 2048), ("resnet20", 128), ("seed8", 2048), ("resnet20", 2048), ("lenet", 128)]))
    guarded("eager peers", eager_peers)
    G.PRECISION = "tf32"; G.TILES.clear(); guarded("steps tf32", lambda: steps(label="rule", bits=False)); G.PRECISION = "tf32x3"
    say(part="end", clock=round(time.perf_counter() - START, 1))

if __name__ == "__main__":
    if sys.argv[1] == "warm":
        part, parts = map(int, sys.argv[2].split("=")[1].split("/"))
        warm(part, parts)
    elif sys.argv[1] == "refcap": reference_captured()
    else: main()
