"""Training steps, ours and torch.nn's, next to other programs on the same cores.

    python -m benchmarks.contention [--models seed8,lenet] [--batches 32] [--threads 1,2] [--rounds 5] [--seconds 1]
                                    [--json]

Images per second of a training that is a process of its own:

quiet: alone on the machine. busy: next to a busy process for each core but one. first, second: next to each other, two
trainings of the same kind on as many threads each; and their sum.

Ratios of speeds, all of one side: of busy, first and second to what one thread does on the quiet machine; of the sum to
one training alone on the largest number of threads. One thread is always measured. Each round measures everything, one
after another; printed are the medians of the rounds and of their ratios.

torch.nn runs eager, in the memory format that is the faster one on the quiet machine with this number of threads. Each
measurement begins with steps that aren't counted, while whatever adapts to the other programs does so, and of two
trainings each goes on until both are measured.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from benchmarks.sides import Case, make_step
from benchmarks.timing import (
    PAUSE,
    WARM_UP,
    Row,
    Step,
    median_ratio,
    one_and_all,
    parser,
    report,
    seconds_a_step,
    set_threads,
)
from cnn.ops.threads import available_cores

EAGER = ("eager", "eager, channels last")
UNCOUNTED = 0.3
"""Of the seconds of a measurement, the part before it that isn't counted."""

BUSY = """
import os, sys, threading
threading.Thread(target=lambda: os._exit(len(sys.stdin.read()))).start()
print("busy", flush=True)
while True: pass
"""
"""What a busy process runs. It also ends with the process that started it, however that ends: then its stdin does."""

COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "side": ("side", ""),
    "threads": ("threads", ""),
    "quiet": ("quiet images/s", ",.0f"),
    "busy": ("busy", ",.0f"),
    "first": ("first", ",.0f"),
    "second": ("second", ",.0f"),
    "sum": ("sum", ",.0f"),
    "busy_to_one_thread": ("busy to one thread", ".2f"),
    "first_to_one_thread": ("first to it", ".2f"),
    "second_to_one_thread": ("second to it", ".2f"),
    "sum_to_alone": ("sum to alone", ".2f"),
}

SITUATIONS = ("quiet", "busy", "first", "second")
Speeds = Mapping[str, list[float]]
"""Images per second in each situation, by round."""

STOP = None
"""The message after which a training's process goes on to what comes next."""


@contextmanager
def busy(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """This many processes that each keep a core busy; they have begun to, and are killed at the end."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", BUSY]
            processes.append(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout
            process.stdout.readline()
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def train(connection: Connection, threads: int) -> None:
    """A training's process: it makes the steps of each case that it is sent, and measures those that it is asked for.

    It ends when the process that started it does.
    """
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            case: Case = connection.recv()
            steps = {side: make_step(side, case) for side in ("ours", *EAGER)}
            for side, step in steps.items():
                set_threads(side, threads, fixed=False)
                for _ in range(WARM_UP):
                    step()
            connection.send(None)
            while asked := connection.recv():
                side, seconds = asked
                set_threads(side, threads, fixed=False)
                connection.send(case.batch / measured(steps[side], seconds))
                while not connection.poll():
                    steps[side]()
                connection.send(connection.recv())


def measured(step: Step, seconds: float) -> float:
    """Seconds per step, once it has adapted."""
    seconds_a_step(step, UNCOUNTED * seconds)
    return seconds_a_step(step, seconds)


@contextmanager
def training(threads: int) -> Iterator[Connection]:
    """A process that trains when it is asked to."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=train, args=(there, threads), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.kill()
        process.join()


def ask(trainings: Sequence[Connection], message: object) -> list[Any]:
    """Send all of them a message, and the answers once all have come."""
    for connection in trainings:
        connection.send(message)
    return [connection.recv() for connection in trainings]


def speeds_of(trainings: Sequence[Connection], side: str, seconds: float) -> list[float]:
    """Images per second of each while all of them train."""
    speeds = ask(trainings, (side, seconds))
    ask(trainings, STOP)
    time.sleep(PAUSE)
    return speeds


def measure(case: Case, pairs: Mapping[int, Sequence[Connection]], rounds: int, seconds: float) -> list[Row]:
    """A row for each side and number of threads. pairs: two trainings for each number of threads."""
    kinds = {}
    for threads, pair in pairs.items():
        for connection in pair:  # one after another: they would slow each other down
            ask([connection], case)
        kinds["ours", threads] = "ours"
        kinds["torch", threads] = max(EAGER, key=lambda side: speeds_of(pair[:1], side, seconds)[0])
    speeds: dict[tuple[str, int], Speeds] = {kind: {name: [] for name in SITUATIONS} for kind in kinds}
    for _ in tqdm(range(rounds), desc=f"{case.model} {case.batch}", disable=None, leave=False):
        for kind, side in kinds.items():
            speeds[kind]["quiet"] += speeds_of(pairs[kind[1]][:1], side, seconds)
        with busy(available_cores() - 1):
            for kind, side in kinds.items():
                speeds[kind]["busy"] += speeds_of(pairs[kind[1]][:1], side, seconds)
        for kind, side in kinds.items():
            first, second = speeds_of(pairs[kind[1]], side, seconds)
            speeds[kind]["first"].append(first)
            speeds[kind]["second"].append(second)
    for pair in pairs.values():
        for connection in pair:
            connection.send(STOP)
    return [
        {
            **{"model": case.model, "batch": case.batch, "side": side, "threads": kind[1]},
            **compare(speeds[kind], speeds[kind[0], 1]["quiet"], speeds[kind[0], max(pairs)]["quiet"]),
        }
        for kind, side in kinds.items()
    ]


def compare(speeds: Speeds, one: Sequence[float], alone: Sequence[float]) -> Row:
    """Medians of the rounds, and of their ratios. one, alone: on the quiet machine, on one thread and on the most."""
    both = {**speeds, "sum": [sum(pair) for pair in zip(speeds["first"], speeds["second"], strict=True)]}
    return {
        **{name: statistics.median(by_round) for name, by_round in both.items()},
        **{f"{name}_to_one_thread": median_ratio(speeds[name], one) for name in ("busy", "first", "second")},
        "sum_to_alone": median_ratio(both["sum"], alone),
    }


def main() -> None:
    options = parser(
        "contention", __doc__, models=["seed8", "lenet"], batches=[32], threads=one_and_all(), rounds=5, seconds=1
    ).parse_args()
    cases = [Case(model, batch) for model in options.models for batch in options.batches]
    with ExitStack() as stack:
        pairs = {
            threads: [stack.enter_context(training(threads)) for _ in range(2)]
            for threads in sorted({1, *options.threads})
        }
        rows = [row for case in cases for row in measure(case, pairs, options.rounds, options.seconds)]
    report(rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
