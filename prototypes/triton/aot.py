"""Compile what the sweep and the steps use for sm_90, without a GPU: python aot.py [every]; prints registers, spills, seconds."""
import os, sys, time, json
os.environ["PROBE_CPU"] = "1"
sys.argv = [sys.argv[0], "x"] + sys.argv[1:]
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
class Fake:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, *a): return 0
    def get_device_interface(self): return torch.cuda
    def get_active_torch_device(self): return torch.device("cpu")
    def map_python_to_cpp_type(self, ty): return ty
driver.set_active(Fake())
import probe as P, gpu_ops2 as G
from cnn.ops import backend
P.BATCHES = (128,)
done = []
def hook(kernel, grid, args, options):
    t = time.perf_counter()
    k = kernel.warmup(*args, grid=grid, **options)
    done.append((kernel.__name__, round(time.perf_counter() - t, 2), getattr(k.metadata, "shared", None)))
    return k
G.LAUNCH = hook
G.register()
every = int(sys.argv[2]) if len(sys.argv) > 2 else 20
bad = 0
def attempt(name, f):
    global bad
    n = len(done)
    try: f(); print(name, done[n:][:3], flush=True)
    except Exception as e: bad += 1; print("BAD", name, type(e).__name__, str(e)[-800:], flush=True)
if "steps" in sys.argv:
    for m in ("blocks", "resnet13"): attempt("step " + m, lambda: P.Ours(m, 128).step())
else:
    i = 0
    for kind, key, geom, options in P.points():
        for o in options:
            i += 1
            if i % every == 0: attempt(f"{key} {o}", lambda: P.operation(kind, geom, 128)[0](o))
    print(i, "in all")
print("bad", bad)
