"""Inference time of a trained network: ours next to torch.nn's and ONNX Runtime's.

    python -m benchmarks.inference [--models seed8,blocks,lenet,resnet13] [--batches 1,8,32,128,256,1024]
                                   [--threads 1,2] [--rounds 5] [--seconds 0.4] [--no-compile] [--no-onnx] [--json]

One forward pass in evaluation mode that keeps nothing for a backward pass. torch runs it in torch.inference_mode, eager
and with torch.compile, each in both memory formats, contiguous and channels last; ONNX Runtime on as many threads, with
all graph optimisations. Each round times all sides for a while, one after another. Printed are medians: milliseconds
per pass, which is the latency, our images per second, and the rounds' ratios to the fastest of torch's four and to ONNX
Runtime; above 1, ours is faster. --json has everyone's images per second and the ratios to eager and to the faster of
eager and compile in contiguous memory, too. Each number of threads is measured in its own process.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import torch
from tqdm import tqdm

from benchmarks import onnx_runtime
from benchmarks.peers import MODELS
from benchmarks.sides import TORCH, Case, sides
from benchmarks.timing import (
    BATCHES,
    Row,
    Step,
    by_threads,
    compare,
    median_ratio,
    one_and_all,
    parser,
    report,
    take_turns,
)
from cnn import Mode
from cnn.graphs.fusion import fuse
from cnn.ops.replays import Replayed

ONNX = "onnxruntime"
COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "threads": ("threads", ""),
    "ours_ms": ("ours ms", ",.3f"),
    **{f"{side}_ms": (f"{side} ms", ",.3f") for side in (*TORCH, ONNX)},
    "ours": ("ours images/s", ",.0f"),
    "ratio_to_fastest": ("to torch's fastest", ".2f"),
    f"ratio_to_{ONNX}": (f"to {ONNX}", ".2f"),
}
MISSING = dict.fromkeys([f"{ONNX}_ms", ONNX, f"ratio_to_{ONNX}"])
"""What a row has where ONNX Runtime was to be measured and couldn't be."""


def forward_pass(side: str, case: Case, threads: int) -> Step:
    x = case.draw().x
    if side == "ours":
        network, mode = fuse(case.network()), Mode(train=False, keep_cache=False)  # as evaluation and prediction do
        forward = Replayed(lambda x: network.forward(x, mode)[0])
        return lambda: forward.of(x)
    peer = case.peer().eval()
    if side == ONNX:
        return onnx_runtime.forward_pass(peer, TORCH["eager"].images(x), threads)
    way = TORCH[side]
    function, images = way.function(way.network(peer)), way.images(x)
    return torch.inference_mode()(lambda: function(images))


def speeds(times: dict[str, list[float]], images: int) -> Row:
    """Images per second, latencies and ratios; ONNX Runtime is none of torch's ways and has a ratio of its own."""
    row = compare({side: seconds for side, seconds in times.items() if side != ONNX}, images)
    if ONNX in times:
        row[ONNX] = images / statistics.median(times[ONNX])
        row[f"ratio_to_{ONNX}"] = median_ratio(times[ONNX], times["ours"])
    return {**{f"{side}_ms": 1000 * images / row[side] for side in times}, **row}


def measure(cases: Sequence[Case], chosen: Sequence[str], threads: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each case, on one number of threads, in this process."""
    rows = []
    for case in tqdm(cases, desc=f"threads {threads}", disable=None, leave=False):
        times = take_turns({side: forward_pass(side, case, threads) for side in chosen}, rounds, seconds, threads)
        rows.append({"model": case.model, "batch": case.batch, "threads": threads, **speeds(times, case.batch)})
    return rows


def main() -> None:
    options = parser(
        "inference",
        __doc__,
        models=list(MODELS),
        batches=BATCHES,
        threads=one_and_all(),
        rounds=5,
        seconds=0.4,
        compile=True,
        onnx=True,
    ).parse_args()
    chosen, empty = sides(options.compile), {}
    if options.onnx and (problem := onnx_runtime.problem()):
        print(f"ONNX Runtime is left out, install the extra [{onnx_runtime.EXTRA}] for it: {problem}", file=sys.stderr)
        empty = MISSING
    elif options.onnx:
        chosen.append(ONNX)
    cases = [Case(model, batch) for model in options.models for batch in options.batches]
    report([{**row, **empty} for row in by_threads(measure, cases, chosen, options)], COLUMNS, options.json)


if __name__ == "__main__":
    main()
