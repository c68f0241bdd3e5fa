"""A whole training step (forward, loss, backward, Adam) next to torch.nn's.

    python -m benchmarks.train_step [--models seed8,blocks,lenet,resnet13] [--batches 1,8,32,128,256,1024]
                                    [--threads 1,2] [--rounds 5] [--seconds 0.4] [--no-compile] [--json]

torch runs eager and with torch.compile, each in both memory formats, contiguous and channels last. Each round times all
sides for a while, one after another. Printed are the medians of images per second, and the median of the rounds' ratios
to the fastest of torch's four; above 1, ours is faster. --json has the ratios to eager and to the faster of eager and
compile in contiguous memory, too. Each number of threads is measured in its own process.

The last columns: our GFLOP/s, and their share of what a large float32 matrix product (torch.mm) reaches in the same
process. Operations are counted as by `debug=summary` for the forward pass, a multiply-add as two, times three for a
whole step, minus the first layer's input gradient, which isn't computed. They are those of the formulas: an algorithm
that needs fewer (Winograd's) may exceed the peak. Small layers are limited by memory, not by arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from benchmarks.peers import MODELS
from benchmarks.sides import TORCH, Case, make_step, sides, step_flops
from benchmarks.timing import BATCHES, Row, by_threads, compare, matrix_peak, one_and_all, parser, report, take_turns

COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "threads": ("threads", ""),
    "ours": ("ours images/s", ",.0f"),
    **{side: (side, ",.0f") for side in TORCH},
    "ratio_to_fastest": ("to the fastest", ".2f"),
    "gflops": ("ours GFLOP/s", ".1f"),
    "share_of_peak": ("of the peak", ".0%"),
}


def measure(cases: Sequence[Case], chosen: Sequence[str], threads: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each case, on one number of threads, in this process."""
    peak = matrix_peak(threads)
    rows = []
    for case in tqdm(cases, desc=f"threads {threads}", disable=None, leave=False):
        times = take_turns({side: make_step(side, case) for side in chosen}, rounds, seconds, threads)
        row = {"model": case.model, "batch": case.batch, "threads": threads, **compare(times, case.batch)}
        gflops = row["ours"] * step_flops(case.network()) / 1e9
        rows.append({**row, "gflops": gflops, "matrix_gflops": peak, "share_of_peak": gflops / peak})
    return rows


def main() -> None:
    options = parser(
        "train_step",
        __doc__,
        models=list(MODELS),
        batches=BATCHES,
        threads=one_and_all(),
        rounds=5,
        seconds=0.4,
        compile=True,
    ).parse_args()
    cases = [Case(model, batch) for model in options.models for batch in options.batches]
    report(by_threads(measure, cases, sides(options.compile), options), COLUMNS, options.json)


if __name__ == "__main__":
    main()
