"""Seconds to 99 % on the test digits: whole processes `python run.py experiment=mnist_99`, with several seeds.

Kernels are compiled before. A run tests the weights of the epoch that is best on held-out training digits.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from benchmarks.timing import Row, alone, matrix_peak, parser, run_quietly, table

COLUMNS = {
    "seed": ("seed", ""),
    "seconds": ("seconds", ".1f"),
    "accuracy": ("test accuracy", ".2%"),
    "best": ("best epoch", ""),
}
SEEDS = range(5)


def one(seed: int) -> Row:
    """A run's wall time and what its summary says."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_quietly(["run.py", "experiment=mnist_99", f"seed={seed}", f"run_dir={folder}/run"])
        seconds = time.perf_counter() - start
        summary = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "seconds": seconds,
        "accuracy": summary["test"]["test/accuracy"],
        "best": summary["best"]["epoch"],
    }


def main() -> None:
    options = parser("mnist_99", __doc__).parse_args()
    with TemporaryDirectory() as folder:
        run_quietly(["run.py", "experiment=mnist_99", "epochs=1", "data.num_examples=6000", f"run_dir={folder}/run"])
    rows = [one(seed) for seed in tqdm(SEEDS, disable=None, leave=False)]
    whole = {
        "mean_accuracy": statistics.mean(row["accuracy"] for row in rows),
        "median_seconds": statistics.median(row["seconds"] for row in rows),
        "matrix_gflops": alone(matrix_peak, 1),
    }
    if options.json:
        print(json.dumps({"runs": rows, **whole}, indent=2))
        return
    print(table(rows, COLUMNS))
    print(
        f"mean {whole['mean_accuracy']:.2%} in a median of {whole['median_seconds']:.1f} s; "
        f"a core does {whole['matrix_gflops']:.0f} GFLOP/s in a matrix product"
    )


if __name__ == "__main__":
    main()
