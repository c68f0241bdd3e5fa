"""A training step on a GPU (clear, forward, loss, backward, finite check, Adam) next to torch.nn's.

    python -m benchmarks.gpu [--models seed8,blocks,lenet,resnet13,resnet20] [--batches 128,512,2048]
                             [--precisions float32,tf32,bf16] [--peers eager,graph,compile] [--rounds 5]
                             [--seconds 0.06] [--profile] [--json]

Ours is the step that run.py takes, captured as a CUDA graph and replayed; `replay` is the graph alone, without what
Python does in each step. torch.nn runs eager, with products in float32 and in TF32 and in both memory formats; eager
and captured by hand as one graph of the whole step, channels last, which is the strongest peer, in float32, TF32 and
with bf16 autocast; and with torch.compile(mode="reduce-overhead"), channels last. Adam is fused on every side.

Each round times all sides for a while, one after another. Printed are medians in microseconds, our images per second,
and the medians of the rounds' ratios of the smallest time of each kind of peer to ours: above 1, ours is faster. A side
that fails is named in its column, and the others are measured. With --json each row is a line as soon as it is
measured, after one on the machine, and has the ratios of the graph alone as well.

--profile prints the kernels of our step instead: how often each is launched, its microseconds, the bytes of the tensors
that it is given, and how much of the rate of a large copy that is. Exit code 2 without a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.gpu_sides import MODELS, PEERS, PRECISIONS, GpuCase, Ours, Peer, chosen_peers
from benchmarks.gpu_timing import described, machine, take_turns
from benchmarks.timing import Row, Step, count, counts, duration, median_ratio, table

KINDS = tuple(dict.fromkeys(peer.kind for peers in PEERS.values() for peer in peers))
COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "precision": ("precision", ""),
    "ours": ("ours us", ""),
    "replay": ("replay us", ""),
    "images": ("images/s", ""),
    **{kind: (kind, "") for kind in KINDS},
    **{f"ratio_to_{kind}": (f"to {kind}", "") for kind in KINDS},
}


def listed(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """A parser of names, separated by commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(allowed)}")
        return names

    return parse


def parser(name: str, documentation: str | None) -> argparse.ArgumentParser:
    """A parser with the options of the commands for GPUs."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(documentation or "").split("\n")[0]
    )
    made.add_argument("--models", type=listed(MODELS), default=[*MODELS], metavar="NAME,...")
    made.add_argument("--batches", type=counts, default=[128, 512, 2048], metavar="N,...", help="batch sizes")
    made.add_argument("--precisions", type=listed(PRECISIONS), default=[*PRECISIONS], metavar="NAME,...")
    return made


def measure(case: GpuCase, precisions: Sequence[Any], peers: Sequence[Peer], rounds: int, seconds: float) -> list[Row]:
    """A row for each precision."""
    steps: dict[str, Step] = {}
    prepare: dict[str, Callable[[], object]] = {}
    failed: dict[str, str] = {}
    for precision in precisions:
        try:
            ours = Ours(case, precision)
            ours.warm()
            steps |= {f"ours {precision}": ours.take, f"replay {precision}": ours.replay}
            prepare |= {f"{side} {precision}": ours.prepare for side in ("ours", "replay")}
        except Exception as error:
            failed[f"ours {precision}"] = described(error)
            clean()
    if any(peer.how == "compile" for peer in peers):
        torch.compiler.reset()  # else shapes of other cases would be taken for changing ones
    for peer in peers:
        try:
            steps[peer.name] = peer.step(case)
            prepare[peer.name] = peer.prepare
        except Exception as error:
            failed[peer.name] = described(error)
            clean()
    times, later = take_turns(steps, prepare, rounds, seconds)
    return rows_of(case, precisions, peers, times, failed | later)


def clean() -> None:
    """Give back what a side that failed has left."""
    gc.collect()
    torch.cuda.empty_cache()


def rows_of(
    case: GpuCase,
    precisions: Sequence[str],
    peers: Sequence[Peer],
    times: Mapping[str, Sequence[float]],
    failed: Mapping[str, str],
) -> list[Row]:
    """Microseconds, images per second and ratios of each precision; in place of a number, why there is none."""
    shared: Row = {}
    fastest: dict[str, list[float]] = {}
    for kind in dict.fromkeys(peer.kind for peer in peers):
        names = [peer.name for peer in peers if peer.kind == kind]
        measured = [times[name] for name in names if name in times]
        if measured:
            fastest[kind] = [min(each) for each in zip(*measured, strict=True)]
            shared[kind] = microseconds(fastest[kind])
        else:
            shared[kind] = "; ".join(failed[name] for name in names if name in failed)
    rows = []
    for precision in precisions:
        row: Row = {"model": case.model, "batch": case.batch, "precision": precision}
        ours, replay = (times.get(f"{side} {precision}") for side in ("ours", "replay"))
        missing = failed.get(f"ours {precision}") or failed.get(f"replay {precision}")
        row |= {"ours": microseconds(ours) if ours else missing, "replay": microseconds(replay) if replay else missing}
        row |= {"images": round(case.batch / statistics.median(ours)) if ours else None, **shared}
        for kind, taken in fastest.items():
            if kind.endswith("bf16") and precision != "bf16":
                continue
            row[f"ratio_to_{kind}"] = round(median_ratio(taken, ours), 3) if ours else None
            row[f"replay_ratio_to_{kind}"] = round(median_ratio(taken, replay), 3) if replay else None
        rows.append(row | {"failed": {name: text for name, text in failed.items() if name.split()[0] not in ("ours",)}})
    return rows


def microseconds(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e6, 1)


def shown(rows: Sequence[Row]) -> str:
    """The rows as a table; what isn't a number is cut short."""

    def cell(key: str, value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.2f}" if key.startswith("ratio") else f"{value:,.0f}"
        return f"{value:,}" if isinstance(value, int) else str(value or "-")[:24]

    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    cells = [{key: cell(key, row.get(key)) for key in keys} for row in rows]
    return table(cells, {key: COLUMNS[key] for key in keys})


def main() -> int:
    made = parser("gpu", __doc__)
    made.add_argument("--peers", type=listed([*PEERS]), default=[*PEERS], metavar="NAME,...")
    made.add_argument("--rounds", type=count, default=5, metavar="N")
    made.add_argument(
        "--seconds", type=duration, default=0.06, metavar="S", help="how long one side of a round is timed"
    )
    made.add_argument("--profile", action="store_true", help="print the kernels of our step instead")
    made.add_argument("--json", action="store_true", help="print a JSON line for each row")
    options = made.parse_args()
    if not torch.cuda.is_available():
        print("error: there is no GPU", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")  # of torch's, about settings that it will replace
    found = machine()
    print(json.dumps(found) if options.json else ", ".join(f"{name} {value}" for name, value in found.items()))
    cases = [GpuCase(model, batch) for batch in options.batches for model in options.models]
    if options.profile:
        from benchmarks import gpu_profile  # needs Triton

        gpu_profile.report(cases, options.precisions, options.json)
        return 0
    peers, rows = chosen_peers(options.peers, options.precisions), []
    for case in cases:
        for row in measure(case, options.precisions, peers, options.rounds, options.seconds):
            rows.append(row)
            if options.json:
                print(json.dumps(row), flush=True)
        clean()
    if not options.json:
        print(shown(rows))
    return int(any(not isinstance(row["ours"], float) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
