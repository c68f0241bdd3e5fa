"""Time tiles of the models' convolutions on a GPU, and write the table of the fastest: cnn/ops/cuda/tiles_table.py.

    python -m benchmarks.gpu_tiles [--models seed8,blocks,lenet,resnet13,resnet20] [--batches 128,512,2048]
                                   [--precisions float32,tf32] [--seconds 300] [--processes 12] [--output FILE] [--json]

Each candidate is launched some times from a graph that is replayed between two events. Tiles in use are tried first and
stay unless others are at least 2 % faster; what gives another result than they do is left out. Processes compile the
candidates before; the seconds are those of the whole command. Whatever hasn't been measured when they are over stays as
it is in the table. bf16 has the tiles of tf32. Training never measures: run this, and commit the table.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu_timing
from benchmarks.gpu import parser
from benchmarks.gpu_candidates import FEW_EXAMPLES, Point, Tiles, candidates, forced, more_sums, points_of
from benchmarks.timing import count, duration
from cnn.ops import set_precision
from cnn.ops.cuda import tiles as rules
from cnn.ops.cuda import tiles_table
from cnn.ops.cuda.launching import launched_by, products_in
from cnn.ops.cuda.tiles import WeightTiles

TABLE = Path(tiles_table.__file__)
GAIN = 0.98
"""Other tiles than those in use have to be that much faster: a smaller difference may be noise."""

TOLERANCES = {"tf32x3": 1e-5, "tf32": 5e-3}
COMPILING = 0.6
"""The share of the seconds after which nothing more is compiled beforehand."""

Rows = dict[tuple[Any, ...], tuple[Any, ...]]
Timed = Callable[[Tiles], float]


def in_use(point: Point, examples: int, products: str) -> Tiles:
    """What the table or the rules give."""
    shape = point.shape(examples, products)
    if point.kind == "weight":
        return rules.weight_tiles(shape)
    return rules.gather_tiles(shape, backward=point.kind == "input")


def fastest(
    tried: Iterable[Tiles], current: Tiles, timed: Timed, more: bool = True
) -> tuple[Tiles, dict[Tiles, float]]:
    """The tiles to use from now on, and the seconds of all that could be timed: infinite where `timed` raises."""
    seconds: dict[Tiles, float] = {}

    def go(each: Iterable[Tiles]) -> Tiles:
        for tiles in each:
            if tiles not in seconds:
                try:
                    seconds[tiles] = timed(tiles)
                except Exception:  # too much shared memory, or another result
                    seconds[tiles] = float("inf")
        return min(seconds, key=lambda tiles: seconds[tiles])

    best = go([current, *tried])
    if isinstance(best, WeightTiles) and more:
        best = go(more_sums(best))
    return (best if seconds[best] < GAIN * seconds[current] else current), seconds


def timer(call: Callable[[], Tensor], current: Tiles, tolerance: float) -> Timed:
    """Times a call with given tiles. Raises ValueError for another result than that of the current ones."""
    with forced(current):
        wanted = call()

    def timed(tiles: Tiles) -> float:
        with forced(tiles):
            difference = float((call() - wanted).abs().max() / wanted.abs().max())
            if not difference <= tolerance:
                raise ValueError(f"off by {difference:.1e}")
            return gpu_timing.kernel_seconds(call)

    return timed


def compile_part(models: Sequence[str], precisions: Sequence[Any], part: int, parts: int, end: float) -> int:
    """Compile a part of all candidates, without launching them, until a time of the clock; returns how many."""
    torch.set_num_threads(1)
    work = []
    for precision in precisions:
        set_precision(precision)
        products = products_in(torch.float32)
        for point in points_of(models):
            shared = dict.fromkeys((in_use(point, 128, products), *candidates(point, products)))
            work += [(precision, point, tiles) for tiles in shared]
    done = 0
    for precision, point, tiles in work[part::parts]:
        if time.time() > end:
            break
        set_precision(precision)
        with (
            forced(tiles),
            launched_by(lambda kernel, grid, *given, **options: kernel.warmup(*given, grid=grid, **options)),
        ):
            try:
                point.call(FEW_EXAMPLES, "cpu")()
                done += 1
            except Exception:  # what can't be compiled is left out when it is timed
                continue
    return done


def sweep(options: Any, end: float, say: Callable[[Mapping[str, Any]], None]) -> tuple[Rows, Rows]:
    """The rows of the table that were measured before a time of the clock."""
    gathers: Rows = {}
    weights: Rows = {}
    points = points_of(options.models)
    for examples in options.batches:
        for precision in options.precisions:
            set_precision(precision)
            products = products_in(torch.float32)
            for point in points:
                if time.time() > end:
                    return gathers, weights
                current = in_use(point, examples, products)
                about = {"key": str(point.key(examples, products))}
                try:
                    timed = timer(point.call(examples, "cuda"), current, TOLERANCES[products])
                    best, seconds = fastest(candidates(point, products), current, timed)
                except Exception as error:
                    say({**about, "failed": gpu_timing.described(error)})
                    continue
                rows = weights if point.kind == "weight" else gathers
                rows[point.key(examples, products)] = astuple(best)
                found = {"microseconds": round(seconds[best] * 1e6, 2), "before": round(seconds[current] * 1e6, 2)}
                rate = round(point.flops(examples) / seconds[best] / 1e12, 1)
                say({**about, "tiles": str(astuple(best)), **found, "tflops": rate, "tried": len(seconds)})
    return gathers, weights


def written(gathers: Mapping[Any, Any], weights: Mapping[Any, Any], cards: str) -> str:
    """The table's module."""

    def lines(name: str, rows: Mapping[Any, Any]) -> list[str]:
        body = [f"    {quoted(key)}: {quoted(rows[key])}," for key in sorted(rows)]
        return [f"{name}: dict[tuple[object, ...], tuple[object, ...]] = {{", *body, "}"]

    by = f"written by `python -m benchmarks.gpu_tiles` on {cards}."
    head = f'''"""The fastest tiles that were measured, by shape; {by}

Keys: precision, (kind,) and of the convolution outputs, channels, kernel, stride, input size, examples. Values: the
fields of GatherTiles and of WeightTiles.
"""

# fmt: off
from __future__ import annotations
'''
    return "\n".join([head, *lines("GATHERS", gathers), *lines("WEIGHTS", weights), ""])


def quoted(value: tuple[Any, ...]) -> str:
    return repr(value).replace("'", '"')


def cards_of(documentation: str, card: str) -> str:
    """On which cards a table was measured, once this one has added to it."""
    before = documentation.split("`python -m benchmarks.gpu_tiles` on ", 1)[1].split(".\n", 1)[0]
    article = f"an {card}" if card.startswith("NVIDIA") else f"a {card}"
    return before if article in before else f"{before} and {article}"


def main() -> int:
    made = parser("gpu_tiles", __doc__)
    made.set_defaults(precisions=["float32", "tf32"])
    made.add_argument("--seconds", type=duration, default=300.0, metavar="S", help="of the whole command")
    made.add_argument("--processes", type=count, default=12, metavar="N", help="that compile")
    made.add_argument("--output", type=Path, default=TABLE, metavar="FILE", help="default: the table itself")
    made.add_argument("--json", action="store_true", help="print JSON lines")
    options = made.parse_args()
    others = sorted({*options.batches} - {*rules.MEASURED}), "bf16" in options.precisions
    if any(others):
        made.error(f"the table is looked up for {rules.MEASURED} examples, and for float32 and tf32")
    if not torch.cuda.is_available():
        print("error: there is no GPU", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    start = time.time()
    end = start + options.seconds
    parts = options.processes

    def say(row: Mapping[str, Any]) -> None:
        print(json.dumps(row) if options.json else ", ".join(f"{k} {v}" for k, v in row.items()), flush=True)

    if not options.output.parent.is_dir() or options.output.is_dir():
        made.error(f"--output: {options.output} can't be written")
    say(gpu_timing.machine())
    compiled = start + COMPILING * options.seconds
    with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
        given = options.models, options.precisions
        jobs = [pool.submit(compile_part, *given, part, parts, compiled) for part in range(parts)]
        done = sum(job.result() for job in jobs)
    say({"compiled": done, "seconds": round(time.time() - start, 1)})
    gathers, weights = sweep(options, end, say)
    cards = cards_of(tiles_table.__doc__ or "", torch.cuda.get_device_properties(0).name)
    text = written({**tiles_table.GATHERS, **gathers}, {**tiles_table.WEIGHTS, **weights}, cards)
    options.output.write_text(text, encoding="utf-8")
    say({"rows": len(gathers) + len(weights), "file": str(options.output)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
