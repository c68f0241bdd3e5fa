"""Time work that is queued on a GPU: whole steps by the clock, kernels by events around replays of a graph."""

from __future__ import annotations

import functools
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.timing import Row, Step

COPIED = 1 << 30
"""Bytes of the copy that stands for the card's memory: many times its cache."""

CHUNKS = 4
"""The GPU is waited for this often in a turn; each time it is idle for a moment."""


def machine() -> Row:
    """What was measured on, and with which versions."""
    import triton

    properties = torch.cuda.get_device_properties(0)
    return {
        "card": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
        "python": platform.python_version(),
    }


def seconds_a_step(step: Step, seconds: float, chunk: int) -> float:
    """The mean time of a step, repeated for at least this many seconds; the GPU is waited for after each chunk."""
    torch.cuda.synchronize()
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        for _ in range(chunk):
            step()
        torch.cuda.synchronize()
        count += chunk
        passed = time.perf_counter() - start
    return passed / count


def take_turns(
    steps: Mapping[str, Step], prepare: Mapping[str, Callable[[], object]], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds a step of each side in each round, and why sides failed. A round times all sides, one after another.

    `prepare`: what is called before each turn of a side, to set what is global.
    """
    times: dict[str, list[float]] = {side: [] for side in steps}
    failed: dict[str, str] = {}
    chunks: dict[str, int] = {}
    for _ in range(rounds):
        for side, step in steps.items():
            if side in failed:
                continue
            try:
                prepare[side]()
                if side not in chunks:
                    one = seconds_a_step(step, 0.001, 1)
                    chunks[side] = max(1, min(200, int(seconds / CHUNKS / one)))
                times[side].append(seconds_a_step(step, seconds, chunks[side]))
            except Exception as error:
                failed[side] = described(error)
    return {side: taken for side, taken in times.items() if side not in failed}, failed


def described(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


@functools.cache
def shared_pool() -> tuple[Any, Any, Any]:
    """Memory and a stream for many small graphs, and a graph that stays: without one, no other could use the memory."""
    pool, stream, value = torch.cuda.graph_pool_handle(), torch.cuda.Stream(), torch.zeros(1, device="cuda")  # type: ignore[no-untyped-call]
    value.add_(1)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool)
        vars(graph)["kept"] = value + 1
        graph.capture_end()
    return pool, stream, graph


def captured(call: Callable[[], object], times: int = 1) -> torch.cuda.CUDAGraph:
    """A graph of this many calls, which have run before. `torch.cuda.graph` takes longer, as it empties caches."""
    pool, stream, _ = shared_pool()
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool)
        try:
            vars(graph)["kept"] = [call() for _ in range(times)]
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def event_seconds(call: Callable[[], object], count: int, rounds: int = 3) -> float:
    """The GPU's time for a call of `count` calls in a row: the median of some rounds."""
    taken: list[float] = []
    for _ in range(rounds):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        for _ in range(count):
            call()
        last.record()
        last.synchronize()
        taken.append(first.elapsed_time(last) / count / 1000)
    return statistics.median(taken)


def kernel_seconds(call: Callable[[], object], times: int = 10) -> float:
    """The GPU's time for a call that is launched from a graph, as steps launch their kernels."""
    call()
    torch.cuda.synchronize()
    graph = captured(call, times)
    graph.replay()
    return event_seconds(graph.replay, 1) / times


def copy_rate() -> float:
    """Bytes a second that a large copy reads and writes."""
    source: Any = torch.zeros(COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * COPIED / event_seconds(lambda: target.copy_(source), 5)
