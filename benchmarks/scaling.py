"""How the images per second of a training step grow with batch, width and image size, as a figure and a table.

    python -m benchmarks.scaling [--output scaling.png] [--threads 2] [--rounds 3] [--seconds 0.4]
                                 [--compile] [--json] [--batches 1,2,...,1024] [--widths 8,...,128] [--sizes 14,...,112]

Batch: of seed8. Width, and height and width of the images: of blocks at batch 32. Sides take turns as in
benchmarks.train_step; printed are the same medians. The figure shows images per second above and, below, the GFLOP/s
that they come to, with what a large matrix product reaches in the same process as a dotted line. Where GFLOP/s grow
with the work of a step, time goes into beginning operations and into what doesn't grow along; where they stay the same,
a step is bound by the machine: by its arithmetic near that line, by its memory far below it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter
from tqdm import tqdm

from benchmarks.sides import CONTIGUOUS, Case, make_step, sides, step_flops
from benchmarks.timing import Row, alone, compare, counts, matrix_peak, parser, table, take_turns, thread_count
from cnn.ops.threads import available_threads

BATCH = 32
COLOURS = {"ours": "#2a6f97", "eager": "#e07a1f", "compile": "#6a994e"}
NAMES = {"ours": "ours", "eager": "torch.nn", "compile": "torch.compile"}
TITLES = {
    "batch": ("seed8", "images in a batch"),
    "width": (f"blocks, batch {BATCH}", "channels of each convolution"),
    "size": (f"blocks, batch {BATCH}", "height and width of an image"),
}
COLUMNS = {
    "axis": ("axis", ""),
    "value": ("value", ""),
    "ours": ("ours images/s", ",.0f"),
    "eager": ("eager images/s", ",.0f"),
    "compile": ("compile images/s", ",.0f"),
    "ratio_to_eager": ("to eager", ".2f"),
    "ratio_to_faster": ("to the faster", ".2f"),
    "gflops": ("ours GFLOP/s", ".1f"),
}

Points = Sequence[tuple[str, int, Case]]
"""An axis of the figure, a value on it, and what is measured there."""


def measure(points: Points, chosen: Sequence[str], threads: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each point, in this process."""
    peak = matrix_peak(threads)
    rows = []
    for axis, value, case in tqdm(points, disable=None, leave=False):
        row = compare(
            take_turns({side: make_step(side, case) for side in chosen}, rounds, seconds, threads), case.batch
        )
        flops = step_flops(case.network())
        rows.append(
            {
                **{"axis": axis, "value": value, "model": case.model, "threads": threads},
                **row,
                **{"flops_per_image": flops, "gflops": row["ours"] * flops / 1e9, "matrix_gflops": peak},
            }
        )
    return rows


def draw(rows: Sequence[Row], chosen: Sequence[str], file: Path) -> None:
    """Images per second above GFLOP/s, a column for each axis, everything on logarithmic scales."""
    figure = Figure(figsize=(12, 6.4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(TITLES), sharex="col", sharey="row")
    for (axis, (title, label)), (speed, work) in zip(TITLES.items(), panels.T, strict=True):
        points = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in points]
        for side in chosen:
            style = {"color": COLOURS[side], "marker": "o", "ms": 4, "label": NAMES[side]}
            speed.plot(values, [row[side] for row in points], **style)
            work.plot(values, [row[side] * row["flops_per_image"] / 1e9 for row in points], **style)
        work.axhline(points[0]["matrix_gflops"], color="grey", ls=":", label="matrix product")
        for axes, unit in ((speed, "images/s"), (work, "GFLOP/s")):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.grid(alpha=0.3)
            if axis == "batch":
                axes.set_ylabel(unit)
        work.set_xticks(values)
        work.xaxis.set_major_formatter(ScalarFormatter())
        work.xaxis.set_minor_locator(NullLocator())
        work.tick_params(axis="x", labelsize="small")
        work.set_xlabel(label)
        speed.set_title(title)
    panels[1][0].legend()
    threads = rows[0]["threads"]
    figure.suptitle(f"A training step on {threads} thread{'s' * (threads > 1)}")
    figure.savefig(file)


def main() -> None:
    made = parser("scaling", __doc__, batches=[2**n for n in range(11)], rounds=3, seconds=0.4, compile=False)
    made.add_argument("--widths", type=counts, default=[8, 16, 32, 64, 128], metavar="N,...", help="of blocks")
    made.add_argument("--sizes", type=counts, default=[14, 28, 56, 112], metavar="N,...", help="of the images")
    made.add_argument("--threads", type=thread_count, default=available_threads(), metavar="N")
    made.add_argument("--output", type=Path, default=Path("scaling.png"), help="the figure")
    options = made.parse_args()
    if not options.output.parent.is_dir():
        made.error(f"argument --output: there is no folder {options.output.parent}")
    points = [
        *(("batch", batch, Case("seed8", batch)) for batch in options.batches),
        *(("width", width, Case("blocks", BATCH, width=width)) for width in options.widths),
        *(("size", size, Case("blocks", BATCH, size=size)) for size in options.sizes),
    ]
    chosen = sides(options.compile, CONTIGUOUS)
    rows = alone(measure, points, chosen, options.threads, options.rounds, options.seconds)
    print(json.dumps(rows, indent=2) if options.json else table(rows, COLUMNS))
    draw(rows, chosen, options.output)


if __name__ == "__main__":
    main()
