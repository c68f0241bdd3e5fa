"""`python -m tests.faults [--count 100000] [--seed 0]`: the long form of the tests of faults, with figures.

pickles: files that are no checkpoints, or stopped being ones. Exit code 1 where something went otherwise than promised.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults import pickles


def main() -> int:
    described = (__doc__ or "").splitlines()[2]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=described)
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="files made at random in each group")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    print(f"{'pickles':<36}{'files':>9}{'refused':>9}{'read':>9}{'slowest s':>11}{'MB':>6}{'wrong':>7}")
    for group in pickles.GROUPS:
        with tempfile.TemporaryDirectory() as folder:
            found = pickles.alone(group, options.count, options.seed, Path(folder, "mark"))
        counts = "".join(f"{found[key]:>9,}" for key in ("files", "refused", "read"))
        print(f"{group:<36}{counts}{found['slowest']:>11.3f}{found['memory'] >> 20:>6}{len(found['wrong']):>7}")
        print("".join(f"    {problem}\n" for problem in found["wrong"][:20]), end="")
        wrong += len(found["wrong"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
