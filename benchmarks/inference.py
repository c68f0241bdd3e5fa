"""Inference time of a trained network: ours next to torch.nn's, eager and with torch.compile.

    python -m benchmarks.inference [--models seed8,blocks,lenet,resnet13] [--batches 1,256] [--threads 1,2]
                                   [--rounds 5] [--seconds 0.4] [--no-compile] [--json]

One forward pass in evaluation mode that keeps nothing for a backward pass; torch's runs in torch.inference_mode. Each
round times all sides for a while, one after another. Printed are medians: milliseconds per pass, which is the latency,
images per second, and the rounds' ratios to eager and to the faster of the two peers; above 1, ours is faster. Each
number of threads is measured in its own process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from benchmarks.sides import Case, batch_first, compile_anew, sides
from benchmarks.timing import Row, Step, alone, compare, one_and_all, parser, report, take_turns
from cnn import Mode, ops
from cnn.graphs.fusion import fuse

COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "threads": ("threads", ""),
    "ours_ms": ("ours ms", ",.3f"),
    "eager_ms": ("eager ms", ",.3f"),
    "compile_ms": ("compile ms", ",.3f"),
    "ours": ("ours images/s", ",.0f"),
    "eager": ("eager images/s", ",.0f"),
    "compile": ("compile images/s", ",.0f"),
    "ratio_to_eager": ("to eager", ".2f"),
    "ratio_to_faster": ("to the faster", ".2f"),
}


def passes(case: Case, chosen: Sequence[str]) -> dict[str, Step]:
    """The forward pass of each side."""
    network, peer, x = fuse(case.network()), case.peer().eval(), case.draw().x  # as evaluation and prediction do
    images, mode = batch_first(case.draw()), Mode(train=False, keep_cache=False)
    compiled = compile_anew(peer) if "compile" in chosen else peer
    every: dict[str, Step] = {
        "ours": lambda: network.forward(x, mode),
        "eager": torch.inference_mode()(lambda: peer(images)),
        "compile": torch.inference_mode()(lambda: compiled(images)),
    }
    return {side: every[side] for side in chosen}


def measure(cases: Sequence[Case], chosen: Sequence[str], threads: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each case, on one number of threads, in this process."""
    ops.set_threads(threads)
    rows = []
    for case in tqdm(cases, desc=f"threads {threads}", disable=None, leave=False):
        row = compare(take_turns(passes(case, chosen), rounds, seconds), case.batch)
        latencies = {f"{side}_ms": 1000 * case.batch / row[side] for side in chosen}
        rows.append({"model": case.model, "batch": case.batch, "threads": threads, **latencies, **row})
    return rows


def main() -> None:
    options = parser(
        "inference",
        __doc__,
        models=["seed8", "blocks", "lenet", "resnet13"],
        batches=[1, 256],
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
