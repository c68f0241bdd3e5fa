"""Common code of the commands: options, rounds, separate processes, the matrix peak, and tables."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from benchmarks.peers import MODELS
from cnn import ops
from cnn.ops.threads import available_threads
from cnn.text import columns as aligned

ROOT = Path(__file__).parents[1]
WARM_UP = 5
"""Steps before timing begins: kernels are loaded or compiled, buffers allocated."""

PAUSE = 0.1
"""Seconds between two sides' turns: threads that wait for their next work by spinning, as ONNX Runtime's do for about
45 ms, have gone to sleep before another side is timed."""

BATCHES = [1, 8, 32, 128, 256, 1024]
MATRIX_SIZE = 1536
Step = Callable[[], object]
Row = dict[str, Any]
Columns = Mapping[str, tuple[str, str]]
"""For each column of a table: the key in a row, the title and the format."""

P = ParamSpec("P")
R = TypeVar("R")


def known_models(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(MODELS)}")
    return names


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed, give a whole number >= 1")
    return int(text)


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not allowed, give seconds > 0")
    return seconds


def thread_count(text: str) -> int:
    return thread_counts(text)[0]


def thread_counts(text: str) -> list[int]:
    numbers = counts(text)
    if max(numbers) > available_threads():
        raise argparse.ArgumentTypeError(f"this process may use {available_threads()} threads, not {max(numbers)}")
    return numbers


OPTIONS: dict[str, dict[str, Any]] = {
    "models": {"type": known_models, "metavar": "NAME,..."},
    "batches": {"type": counts, "metavar": "N,...", "help": "batch sizes"},
    "threads": {"type": thread_counts, "metavar": "N,...", "help": "numbers of threads"},
    "rounds": {"type": count, "metavar": "N"},
    "seconds": {"type": duration, "metavar": "S", "help": "how long one side of a round is timed"},
    "compile": {"action": argparse.BooleanOptionalAction, "help": "measure torch.compile, too"},
    "onnx": {"action": argparse.BooleanOptionalAction, "help": "measure ONNX Runtime, too"},
}


def parser(name: str, documentation: str | None, **defaults: object) -> argparse.ArgumentParser:
    """A parser with `--json` and those of the shared options that are given a default."""
    described = (documentation or "").splitlines()[0]
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=described)
    for option, default in defaults.items():
        made.add_argument(f"--{option}", default=default, **OPTIONS[option])
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return made


def one_and_all() -> list[int]:
    """The default numbers of threads."""
    return sorted({1, available_threads()})


def alone(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the function in a fresh process, without traces of earlier measurements."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def by_threads(
    measure: Callable[..., list[Row]], cases: Sequence[Any], chosen: Sequence[str], options: Any
) -> list[Row]:
    """The rows of `measure(cases, chosen, threads, rounds, seconds)`, each number of threads in its own process."""
    return [
        row
        for threads in options.threads
        for row in alone(measure, cases, chosen, threads, options.rounds, options.seconds)
    ]


def run_quietly(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """The output of a Python command. If it fails, exit with its error output."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def seconds_a_step(step: Step, seconds: float) -> float:
    """The mean time of a step, repeated for at least this many seconds."""
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not count:
        step()
        count += 1
    return passed / count


def set_threads(side: str, count: int, *, fixed: bool = True) -> None:
    """Let a side run on `count` threads: next to our kernels, torch uses one. `fixed` as in `ops.set_threads`."""
    if side == "ours":
        ops.set_threads(count, fixed=fixed)
    else:
        torch.set_num_threads(count)


def take_turns(steps: Mapping[str, Step], rounds: int, seconds: float, threads: int) -> dict[str, list[float]]:
    """Seconds per step of each side in each round; a round times all sides, one after another.

    What a side does once, such as compiling, it does before the first round.
    """
    for side, step in steps.items():
        set_threads(side, threads)
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(rounds):
        for side, step in steps.items():
            time.sleep(PAUSE)
            set_threads(side, threads)
            times[side].append(seconds_a_step(step, seconds))
    return times


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows down a whole round cancels out."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def compare(times: Mapping[str, Sequence[float]], images: int) -> Row:
    """Images per second of ours and of torch's ways, and our speed relative to theirs.

    ratio_to_fastest: to the fastest in each round. ratio_to_eager and ratio_to_faster: to eager, and to the faster of
    eager and compile, in contiguous memory alone.
    """
    peers = [side for side in times if side != "ours"]

    def ratio(chosen: Sequence[str]) -> float:
        fastest = [min(taken) for taken in zip(*(times[side] for side in chosen), strict=True)]
        return median_ratio(fastest, times["ours"])

    return {
        **{side: images / statistics.median(seconds) for side, seconds in times.items()},
        "ratio_to_eager": ratio(["eager"]),
        "ratio_to_faster": ratio([side for side in peers if side in ("eager", "compile")]),
        "ratio_to_fastest": ratio(peers),
    }


def matrix_peak(threads: int) -> float:
    """GFLOP/s of a large float32 matrix product of torch, the best of several."""
    torch.set_num_threads(threads)
    a, b = (torch.randn(MATRIX_SIZE, MATRIX_SIZE) for _ in range(2))
    out = torch.empty_like(a)
    best = min(seconds_a_step(lambda: torch.mm(a, b, out=out), 0) for _ in range(8))
    return 2 * MATRIX_SIZE**3 / best / 1e9


def table(rows: Sequence[Row], columns: Columns) -> str:
    """The rows as a text table; columns that the rows don't have are left out, and a cell of None is empty."""
    shown = {key: column for key, column in columns.items() if key in rows[0]}
    lines = [[title for title, _ in shown.values()]]
    lines += [["" if row[key] is None else format(row[key], form) for key, (_, form) in shown.items()] for row in rows]
    return "\n".join(aligned(lines, ">"))


def report(rows: Sequence[Row], columns: Columns, as_json: bool) -> None:
    print(json.dumps(rows, indent=2) if as_json else table(rows, columns))
