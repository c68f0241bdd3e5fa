"""Compile the kernels of the models' steps in several processes: Triton keeps them in its cache, on the disk.

    python -m benchmarks.gpu_warm [--models ...] [--batches ...] [--precisions ...] [--processes 12] [--seconds 100]

Each process takes a step of one model after another; a kernel takes about a second. What is left over once the seconds
have passed is compiled by whoever needs it. Prints a JSON line. Exit code 2 without a GPU.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.gpu import parser
from benchmarks.gpu_sides import GpuCase, Ours
from benchmarks.gpu_timing import described
from benchmarks.timing import count, duration

COSTLY = "resnet20", "lenet", "seed8", "blocks", "resnet13"
"""The models by how much they have to compile. What resnet13 launches, resnet20 launches as well."""


def jobs(models: Sequence[str], batches: Sequence[int], precisions: Sequence[str]) -> list[tuple[str, int, str]]:
    """The steps to take, in the order in which they are measured, those first that compile most."""
    ordered = [model for model in COSTLY if model in models]
    return [(model, batch, precision) for batch in batches for precision in precisions for model in ordered]


def take_step(model: str, batch: int, precision: Any, end: float) -> str:
    """Take a step, unless a time of the clock has passed; returns what went wrong."""
    if time.time() > end:
        return "no time left"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        ours = Ours(GpuCase(model, batch), precision)
        ours.take()
        ours.take()  # it is captured, with the kernels of faults
        torch.cuda.synchronize()
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
        steps = [pool.submit(take_step, *job, start + options.seconds) for job in work]
        found = {" ".join(map(str, job)): step.result() for job, step in zip(work, steps, strict=True)}
    wrong = {job: text for job, text in found.items() if text}
    print(json.dumps({"steps": len(work), "seconds": round(time.time() - start, 1), "wrong": wrong}))
    return int(any(text != "no time left" for text in wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
