"""The kernels of our captured step: launches, time, bytes, and the share of a copy's rate (benchmarks/gpu.py)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_sides import GpuCase, Ours
from benchmarks.gpu_timing import copy_rate, described
from benchmarks.timing import Row, table
from cnn.ops.cuda.launching import launched_by

REPLAYS = 5
NAME = 70
"""Characters of a kernel's name: those of torch's kernels have hundreds."""

COLUMNS = {
    "kernel": ("kernel", ""),
    "launches": ("launches", ".1f"),
    "microseconds": ("us", ".1f"),
    "share": ("of the step", ".1%"),
    "megabytes": ("MB", ".2f"),
    "copy_share": ("of the copy rate", ".0%"),
}


@contextmanager
def noted_bytes() -> Iterator[Counter[str]]:
    """What Triton's kernels are given in a `with` block: the bytes of their tensors, by the kernels' names."""
    found: Counter[str] = Counter()

    def launcher(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: int) -> None:
        tensors = {each.data_ptr(): each.nbytes for each in arguments if isinstance(each, Tensor)}
        found[kernel.__name__] += sum(tensors.values())
        kernel[grid](*arguments, **options)

    with launched_by(launcher):
        yield found


def bytes_of(ours: Ours) -> Mapping[str, float]:
    """The bytes of a captured step, by kernel. Its second call runs and is then captured: everything is noted twice."""
    ours.take()
    with noted_bytes() as found:
        ours.take()
    return {name: size / 2 for name, size in found.items()}


def kernels_of(ours: Ours) -> dict[str, tuple[float, float]]:
    """How often a replay launches each kernel, and the microseconds of all its launches."""
    replay = ours.replay
    replay()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(REPLAYS):
            replay()
        torch.cuda.synchronize()
    found: dict[str, tuple[float, float]] = {}
    for event in profiled.events() or []:
        if event.device_type.name == "CUDA":
            launches, taken = found.get(event.name, (0.0, 0.0))
            found[event.name] = launches + 1 / REPLAYS, taken + event.device_time / REPLAYS
    return found


def rows_of(kernels: Mapping[str, tuple[float, float]], moved: Mapping[str, float], rate: float) -> list[Row]:
    """A row for each kernel, the longest first. `rate`: bytes a second of a large copy."""
    whole = sum(taken for _, taken in kernels.values())
    rows = []
    for name, (launches, taken) in sorted(kernels.items(), key=lambda item: -item[1][1]):
        size = moved.get(name)
        rows.append(
            {
                "kernel": name[:NAME],
                "launches": round(launches, 2),
                "microseconds": round(taken, 2),
                "share": taken / whole if whole else 0.0,
                "megabytes": None if size is None else size / 1e6,
                "copy_share": None if size is None or not taken else size / (taken * 1e-6) / rate,
            }
        )
    return rows


def report(cases: Sequence[GpuCase], precisions: Sequence[Any], as_json: bool) -> None:
    """Print the kernels of each case."""
    rate = copy_rate()
    head = {"copy_bytes_a_second": rate}
    print(json.dumps(head) if as_json else f"a large copy reads and writes {rate / 1e12:.2f} TB/s")
    for case in cases:
        for precision in precisions:
            about: Row = {"model": case.model, "batch": case.batch, "precision": precision}
            try:
                ours = Ours(case, precision)
                moved = bytes_of(ours)
                ours.warm()
                rows = rows_of(kernels_of(ours), moved, rate)
            except Exception as error:
                about["failed"] = described(error)
                rows = []
            about["microseconds"] = round(sum(row["microseconds"] for row in rows), 1)
            about["nodes"] = round(sum(row["launches"] for row in rows), 1)
            if as_json:
                print(json.dumps({**about, "kernels": rows}), flush=True)
            else:
                print(", ".join(f"{name} {value}" for name, value in about.items()))
                print(table(rows, COLUMNS) if rows else "")
