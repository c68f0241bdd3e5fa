"""run.py from end to end: its loop next to the bare step, its start, and the default experiment next to torch.nn.

    python -m benchmarks.epoch [--models seed8] [--batches 32] [--threads 1,2] [--rounds 3] [--seconds 3] [--json]
                               [--examples 20000] [--epochs 4] [--parts loop,start]
    python -m benchmarks.epoch --default [--threads 2] [--rounds 3] [--json]

loop: images per second of `python run.py`, the median over epochs after the first in its metrics.csv, next to
the same training step repeated on one batch for `--seconds`. Both run in their own processes, in turn; printed are the
medians of the rounds and the median of their ratios. The difference to 1 is the cost of data, schedule and totals.

start: seconds from starting the process until the end of the first training step, in run.py's own code: once with an
empty cache of compiled kernels (first), then with the cache that this start has filled (second). Medians of the rounds.

default: seconds of the whole default experiment, `python run.py`, from starting the process to its end, next to
`benchmarks.torch_loop`, which does the same work with torch.nn, in turn; medians of the rounds. `--examples` and
`--epochs` then default to the experiment's (20000 and 10). Kernels are cached before. Prints both test accuracies.

Every row names its part; each part's table has its own columns.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from benchmarks.sides import Case, our_step
from benchmarks.timing import (
    WARM_UP,
    Row,
    alone,
    count,
    median_ratio,
    one_and_all,
    parser,
    run_quietly,
    seconds_a_step,
    table,
)
from cnn import ops
from cnn.ops.threads import available_threads
from runners.files import metrics_csv

DEFAULT = Case("seed8", 32)
SETTING = {"model": ("model", ""), "batch": ("batch", ""), "threads": ("threads", "")}
COLUMNS = {
    "loop": {
        **SETTING,
        "loop": ("run.py images/s", ",.0f"),
        "bare": ("bare step images/s", ",.0f"),
        "ratio": ("ratio", ".2f"),
    },
    "start": {**SETTING, "first": ("first start s", ".2f"), "second": ("second start s", ".2f")},
    "default": {
        **SETTING,
        "ours": ("run.py s", ".1f"),
        "eager": ("torch.nn s", ".1f"),
        "ratio": ("ratio", ".2f"),
        "ours_accuracy": ("run.py accuracy", ".2%"),
        "eager_accuracy": ("torch.nn accuracy", ".2%"),
    },
}


def overrides(case: Case, threads: int, examples: int, epochs: int) -> list[str]:
    given = {"model": case.model, "batch_size": case.batch, "threads": threads}
    given |= {"data.num_examples": examples, "epochs": epochs}
    return [f"{key}={value}" for key, value in given.items()]


def loop_speed(arguments: Sequence[str]) -> float:
    """Images per second of run.py's training epochs, without the first."""
    with TemporaryDirectory() as folder:
        run_quietly(["run.py", *arguments, f"run_dir={folder}/run"])
        rows = metrics_csv.read(Path(folder, "run", "metrics.csv"))
    return median(row["images_per_second"] for row in rows[1:])


def bare_speed(case: Case, threads: int, seconds: float) -> float:
    """Images per second of the step alone, in this process."""
    ops.set_threads(threads)
    step = our_step(case)
    for _ in range(WARM_UP):
        step()
    return case.batch / seconds_a_step(step, seconds)


def in_turn(rounds: int, *measurements: Callable[[], Any]) -> list[list[Any]]:
    """The results of each measurement by round; a round makes all of them, one after another."""
    results = [[measure() for measure in measurements] for _ in tqdm(range(rounds), disable=None, leave=False)]
    return [list(values) for values in zip(*results, strict=True)]


def loop(case: Case, threads: int, rounds: int, seconds: float, examples: int, epochs: int) -> Row:
    arguments = overrides(case, threads, examples, epochs)
    loops, bares = in_turn(rounds, lambda: loop_speed(arguments), lambda: alone(bare_speed, case, threads, seconds))
    return {"loop": median(loops), "bare": median(bares), "ratio": median_ratio(loops, bares)}


def start_seconds(arguments: Sequence[str], cache: str) -> float:
    """From starting the process to the end of its first training step."""
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        begun = time.perf_counter()
        run_quietly(["-m", "benchmarks.first_step", *arguments, f"run_dir={folder}/run"], environment)
        return time.perf_counter() - begun


def start(case: Case, threads: int, rounds: int, examples: int) -> Row:
    arguments = overrides(case, threads, examples, epochs=1)

    def both() -> tuple[float, float]:
        with TemporaryDirectory() as cache:
            return start_seconds(arguments, cache), start_seconds(arguments, cache)

    firsts, seconds = zip(*in_turn(rounds, both)[0], strict=True)
    return {"first": median(firsts), "second": median(seconds)}


def run_py(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds of a whole run, and its test accuracy."""
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run_quietly(["run.py", *arguments, f"run_dir={folder}/run"])
        seconds = time.perf_counter() - begun
        summary = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
    return seconds, summary["test"]["test/accuracy"]


def torch_loop(threads: int, examples: int, epochs: int) -> tuple[float, float]:
    """The same for torch.nn."""
    arguments = {"--threads": threads, "--examples": examples, "--epochs": epochs}
    begun = time.perf_counter()
    printed = run_quietly(["-m", "benchmarks.torch_loop", *(str(part) for pair in arguments.items() for part in pair)])
    return time.perf_counter() - begun, float(printed)


def default(threads: int, rounds: int, examples: int, epochs: int) -> Row:
    arguments = overrides(DEFAULT, threads, examples, epochs)
    run_py([*arguments, "debug=fast"])  # fill the cache of kernels
    ours, theirs = in_turn(rounds, lambda: run_py(arguments), lambda: torch_loop(threads, examples, epochs))
    (our_seconds, our_accuracies), (their_seconds, their_accuracies) = (
        zip(*side, strict=True) for side in (ours, theirs)
    )
    return {
        "ours": median(our_seconds),
        "eager": median(their_seconds),
        "ratio": median_ratio(their_seconds, our_seconds),
        "ours_accuracy": median(our_accuracies),
        "eager_accuracy": median(their_accuracies),
    }


def measure(part: str, case: Case, threads: int, options: argparse.Namespace) -> Row:
    rounds, examples = options.rounds, options.examples
    setting = {"part": part, "model": case.model, "batch": case.batch, "threads": threads}
    if part == "loop":
        return {**setting, **loop(case, threads, rounds, options.seconds, examples, options.epochs or 4)}
    if part == "start":
        return {**setting, **start(case, threads, rounds, examples)}
    return {**setting, **default(threads, rounds, examples, options.epochs or 10)}


def parts(text: str) -> list[str]:
    names = text.split(",")
    if set(names) - set(COLUMNS):
        raise argparse.ArgumentTypeError(f"give some of {', '.join(COLUMNS)}")
    return names


def arguments() -> argparse.Namespace:
    made = parser("epoch", __doc__, models=["seed8"], batches=[32], threads=None, rounds=3, seconds=3.0)
    made.add_argument("--examples", type=count, default=20000, metavar="N", help="training examples of an epoch")
    made.add_argument("--epochs", type=count, metavar="N", help="2 or more where the loop is measured")
    made.add_argument("--parts", type=parts, default=["loop", "start"], metavar="NAME,...")
    made.add_argument(
        "--default",
        action="store_const",
        dest="parts",
        const=["default"],
        help="measure the default experiment instead",
    )
    options = made.parse_args()
    if "loop" in options.parts and options.epochs == 1:
        made.error("argument --epochs: 1 is not allowed for the loop, whose first epoch doesn't count")
    return options


def main() -> None:
    options = arguments()
    rows = []
    for part in options.parts:
        cases = [Case(model, batch) for model in options.models for batch in options.batches]
        counts = options.threads or (one_and_all() if part != "default" else [available_threads()])
        for case in cases if part != "default" else [DEFAULT]:
            rows += [measure(part, case, threads, options) for threads in counts]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("\n\n".join(table([row for row in rows if row["part"] == part], COLUMNS[part]) for part in options.parts))


if __name__ == "__main__":
    main()
