"""A whole training step (forward, loss, backward, Adam) next to torch.nn's, eager and with torch.compile.

    python -m benchmarks.train_step [--models seed8,blocks,lenet,resnet13] [--batches 32,128,256] [--threads 1,2]
                                    [--rounds 5] [--seconds 0.4] [--no-compile] [--json]

Each round times all sides for a while, one after another. Printed are the medians of images per second, and the medians
of the rounds' ratios to eager and to the faster of the two peers; above 1, ours is faster. Each number of threads is
measured in its own process.

The last columns: our GFLOP/s, and their share of what a large float32 matrix product (torch.mm) reaches in the same
process. Operations are counted as by `debug=summary` for the forward pass, a multiply-add as two, times three for a
whole step, minus the first layer's input gradient, which isn't computed. They are those of the formulas: an algorithm
that needs fewer (Winograd's) may exceed the peak. Small layers are limited by memory, not by arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from benchmarks.sides import STEPS, Case, sides, step_flops
from benchmarks.timing import Row, alone, compare, matrix_peak, one_and_all, parser, report, take_turns
from cnn import ops

COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "threads": ("threads", ""),
    "ours": ("ours images/s", ",.0f"),
    "eager": ("eager images/s", ",.0f"),
    "compile": ("compile images/s", ",.0f"),
    "ratio_to_eager": ("to eager", ".2f"),
    "ratio_to_faster": ("to the faster", ".2f"),
    "gflops": ("ours GFLOP/s", ".1f"),
    "share_of_peak": ("of the peak", ".0%"),
}


def measure(cases: Sequence[Case], chosen: Sequence[str], threads: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each case, on one number of threads, in this process."""
    ops.set_threads(threads)
    peak = matrix_peak()
    rows = []
    for case in tqdm(cases, desc=f"threads {threads}", disable=None, leave=False):
        times = take_turns({side: STEPS[side](case) for side in chosen}, rounds, seconds)
        row = {"model": case.model, "batch": case.batch, "threads": threads, **compare(times, case.batch)}
        gflops = row["ours"] * step_flops(case.network()) / 1e9
        rows.append({**row, "gflops": gflops, "matrix_gflops": peak, "share_of_peak": gflops / peak})
    return rows


def main() -> None:
    options = parser(
        "train_step",
        __doc__,
        models=["seed8", "blocks", "lenet", "resnet13"],
        batches=[32, 128, 256],
        threads=one_and_all(),
        rounds=5,
        seconds=0.4,
        compile=True,
    ).parse_args()
    chosen = sides(options.compile)
    cases = [Case(model, batch) for model in options.models for batch in options.batches]
    rows = [
        row
        for threads in options.threads
        for row in alone(measure, cases, chosen, threads, options.rounds, options.seconds)
    ]
    report(rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
