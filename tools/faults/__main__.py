"""`python -m tools.faults [--count 100000] [--trials 100] [--seed 0]`: the long form of the tests of faults.

pickles: files that are no checkpoints, or stopped being ones. runs: processes that are killed, and disks that fail.
Exit code 1 where something went otherwise than promised.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.faults import contents, pickles, runs
from tools.faults.trials import Server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description="Faults of files, processes and disks.")
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="files made at random in each group")
    parser.add_argument("--trials", type=int, default=100, metavar="N", help="runs in each group")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("runners").setLevel(logging.ERROR)  # previous stands in for last many times
    return 1 if _pickles(options.count, options.seed) + _runs(options.trials, options.seed) else 0


def _pickles(count: int, seed: int) -> int:
    wrong = 0
    print(f"{'pickles':<36}{'files':>9}{'refused':>9}{'read':>9}{'slowest s':>11}{'MB':>6}{'wrong':>7}")
    for group in pickles.GROUPS:
        with tempfile.TemporaryDirectory() as folder:
            wrong += _row(group, pickles.alone(pickles.outcome, group, count, seed, Path(folder, "mark")))
    with tempfile.TemporaryDirectory() as folder:
        wrong += _row(contents.GROUP, pickles.alone(contents.outcome, count // 50, seed, Path(folder)))
    return wrong


def _row(group: str, found: Mapping[str, Any]) -> int:
    counts = "".join(f"{found[key]:>9,}" for key in ("files", "refused", "read"))
    print(f"{group:<36}{counts}{found['slowest']:>11.3f}{found['memory'] >> 20:>6}{len(found['wrong']):>7}", flush=True)
    return _tell(found["wrong"])


def _runs(count: int, seed: int) -> int:
    wrong = 0
    print(f"\n{'runs':<36}{'trials':>9}{'faults':>9}{'saved':>9}{'resumed':>9}{'wrong':>7}")
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        trials = runs.Trials(server, Path(folder))
        for group in runs.GROUPS:
            found = trials.examine(group, count, seed)
            counts = "".join(f"{number:>9,}" for number in (found.trials, found.faults, found.begun, found.resumed))
            print(f"{group:<36}{counts}{len(found.wrong):>7}", flush=True)
            wrong += _tell(found.wrong)
    return wrong


def _tell(problems: Sequence[str]) -> int:
    print("".join(f"    {problem}\n" for problem in problems[:20]), end="")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
