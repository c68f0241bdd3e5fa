"""Compile the kernels of the models' steps in several processes: Triton keeps them in its cache, on the disk.

    python -m benchmarks.gpu_warm [--models ...] [--batches ...] [--precisions ...] [--processes 12] [--seconds 100]

What is left over once the seconds have passed is compiled by whoever needs it. Prints a JSON line. Exit code 2 without
a GPU.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.gpu import parser
from benchmarks.gpu_sides import GpuCase
from benchmarks.gpu_timing import described
from benchmarks.timing import count, duration
from cnn import Mode, ops
from cnn.graphs.fusion import fuse
from cnn.losses import CrossEntropy
from cnn.ops import cuda
from cnn.ops.cuda.launching import launched_by
from cnn.ops.guard import Guard
from cnn.optimizers import Adam

COSTLY = "resnet20", "lenet", "seed8", "blocks", "resnet13"
"""The models by how much they have to compile. What resnet13 launches, resnet20 launches as well."""


def jobs(models: Sequence[str], batches: Sequence[int], precisions: Sequence[str]) -> list[tuple[str, int, str]]:
    """The steps to take, in the order in which they are measured, those first that compile most."""
    ordered = [model for model in COSTLY if model in models]
    return [(model, batch, precision) for batch in batches for precision in precisions for model in ordered]


@functools.cache
def use_triton_everywhere() -> None:
    """Let kernels for GPUs serve tensors of the CPU, in this process: memory that nobody writes to costs nothing."""
    ops.register(ops.Backend("compiled only", lambda device, dtype: True, cuda.BACKEND.functions, priority=9))


def compile_step(model: str, batch: int, precision: Any, end: float) -> str:
    """Compile what a step launches, without launching it, unless a time of the clock has passed; returns what failed.

    What a captured step notes of faults is compiled as well.
    """
    if time.time() > end:
        return "no time left"
    torch.set_num_threads(1)
    use_triton_everywhere()
    ops.set_precision(precision)
    try:
        with launched_by(lambda kernel, grid, *given, **options: kernel.warmup(*given, grid=grid, **options)):
            case, loss = GpuCase(model, batch), CrossEntropy()
            network = case.network()
            x, target = torch.zeros(*case.input_shape, batch), torch.zeros(batch, dtype=torch.int64)
            scored, flat, flag = fuse(network), network.flat, torch.zeros((), dtype=torch.int32)
            y, cache = scored.forward(x, Mode(train=True))
            value, kept = loss.forward(y, target)
            scored.backward(loss.backward(kept), cache, need_dx=False)
            Adam().step(flat)
            ops.count_hits(y, target)
            for checked in (flat.grad, value):
                cuda.guard.note_not_finite(checked, flag)
            cuda.guard.note_strays(target, y.shape[0], flag)
            held = Guard([flat.data], flag)
            held.save()
            held.put_back()
    except Exception as error:
        return described(error)
    return ""


def main() -> int:
    made = parser("gpu_warm", __doc__)
    made.add_argument("--processes", type=count, default=12, metavar="N")
    made.add_argument("--seconds", type=duration, default=100.0, metavar="S", help="after which nothing is begun")
    options = made.parse_args()
    if not torch.cuda.is_available():
        print("error: there is no GPU", file=sys.stderr)
        return 2
    start = time.time()
    work = jobs(options.models, options.batches, options.precisions)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        steps = [pool.submit(compile_step, *job, start + options.seconds) for job in work]
        found = {" ".join(map(str, job)): step.result() for job, step in zip(work, steps, strict=True)}
    wrong = {job: text for job, text in found.items() if text}
    print(json.dumps({"steps": len(work), "seconds": round(time.time() - start, 1), "wrong": wrong}))
    return int(any(text != "no time left" for text in wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
