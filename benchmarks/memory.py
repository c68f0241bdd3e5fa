"""Peak memory of a training step, ours next to torch.nn's, eager and with torch.compile.

    python -m benchmarks.memory [--models lenet] [--batches 256] [--threads 2] [--no-compile] [--json]

Each side is measured in a fresh process. Steps with a tiny batch first import everything and load all kernels; the
resident memory at that point is the baseline. The result is how far resident memory rises above it in some steps with
the full batch, in MB (10^6 bytes): the batch, the weights, their gradients, Adam's moments, what the forward pass keeps
and what the backward pass needs, on all sides alike. Memory that the tiny steps used may be reused without being
counted: for batches not much larger than theirs, that is most of it.

Compilation isn't counted: kernels are cached on disk by a process that only warms up, and torch.compile takes its first
step before counting begins. Linux can reset the peak of a process. Elsewhere it is the peak since the process started,
so the difference is a lower bound and includes compilation by torch.compile.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.sides import CONTIGUOUS, Case, make_step, sides
from benchmarks.timing import Row, alone, parser, report, set_threads
from cnn.ops.threads import available_threads

TINY = 16
"""The number of images in one vector of the kernels: fewer might take other paths than a large batch."""

STEPS_COUNTED = 4
PAGE = 4096
"""The least that is reported: memory is counted in pages, and a ratio can't be made with 0."""

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "threads": ("threads", ""),
    "ours": ("ours MB", ",.1f"),
    "eager": ("eager MB", ",.1f"),
    "compile": ("compile MB", ",.1f"),
    "ratio_to_eager": ("ours / eager", ".2f"),
}


def reset_peak() -> None:
    """Reset the peak to what is resident now, if the system can."""
    if RESET.exists():
        RESET.write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """The peak of resident memory since the last reset."""
    if STATUS.exists():
        fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    import resource  # not available on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def warm_up(chosen: Sequence[str], model: str, threads: int) -> None:
    for side in chosen:
        set_threads(side, threads)
        step = make_step(side, Case(model, TINY))
        for _ in range(STEPS_COUNTED):
            step()


def measure(side: str, case: Case, threads: int) -> float:
    """MB of one side, in this process."""
    warm_up([side], case.model, threads)
    gc.collect()
    reset_peak()
    before = peak_bytes()
    step = make_step(side, case)
    if side == "compile":
        step()
        gc.collect()
        reset_peak()
    for _ in range(STEPS_COUNTED):
        step()
    return max(peak_bytes() - before, PAGE) / 1e6


def main() -> None:
    options = parser(
        "memory", __doc__, models=["lenet"], batches=[256], threads=[available_threads()], compile=True
    ).parse_args()
    chosen = sides(options.compile, CONTIGUOUS)
    cases = [(Case(model, batch), n) for model in options.models for batch in options.batches for n in options.threads]
    for model in options.models:
        alone(warm_up, chosen, model, options.threads[0])
    rows: list[Row] = []
    for case, threads in tqdm(cases, disable=None, leave=False):
        taken = {side: alone(measure, side, case, threads) for side in chosen}
        row = {"model": case.model, "batch": case.batch, "threads": threads, **taken}
        rows.append({**row, "ratio_to_eager": taken["ours"] / taken["eager"]})
    report(rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
