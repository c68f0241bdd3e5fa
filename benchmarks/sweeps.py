"""The same sweep of 8 jobs with every launcher, and what sharing the cores costs.

    python -m benchmarks.sweeps [--examples 2000] [--epochs 2] [--launchers local,local2,joblib,slurm,ray] [--json]

launchers: seconds from starting `python run.py -m seed=range(0,8) threads=1 ...` until its end, and whether each job
computed the same bits as under the first launcher. `local` runs one job at a time, the others two: local2, Hydra's
joblib, slurm on submitit's processes on this machine, and ray on a cluster that is started for the sweep. A launcher
whose package is missing is left out. Kernels are compiled before.

cores: images per second, of the two jobs together, while two jobs of one thread run at once, next to one job of two
threads; the medians over their epochs after the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.timing import Row, table
from runners.files import metrics_csv
from tools.small_runs import outcome

ROOT = Path(__file__).parents[1]
LAUNCHERS = {
    "local": (["jobs=1"], "torch"),
    "local2": (["jobs=2"], "torch"),
    "joblib": (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "hydra_plugins.hydra_joblib_launcher"),
    "slurm": (["hydra/launcher=slurm", "hydra.launcher.cluster=local", "jobs=2"], "submitit"),
    "ray": (["hydra/launcher=ray", "jobs=2"], "ray"),
}
"""The arguments that choose each launcher, and the module that it needs."""
COLUMNS = {
    "launchers": {
        "launcher": ("launcher", ""),
        "at_once": ("jobs at once", ""),
        "seconds": ("s", ".1f"),
        "same_bits": ("same bits", ""),
    },
    "cores": {"jobs": ("jobs at once", ""), "threads": ("threads each", ""), "speed": ("images/s in sum", ",.0f")},
}


def sweep(folder: Path, name: str, arguments: Sequence[str], given: Sequence[str]) -> float:
    """Run a sweep in `folder / name`; returns its seconds."""
    command = [sys.executable, str(ROOT / "run.py"), "-m", *arguments, *given, f"sweep_dir={folder / name}"]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr}")
    return time.perf_counter() - begin


def compared(folder: Path, names: Sequence[str], given: Sequence[str], jobs: int = 8) -> list[Row]:
    """A row for each launcher."""
    rows: list[Row] = []
    for name in names:
        arguments, _ = LAUNCHERS[name]
        seconds = sweep(folder, name, [f"seed=range(0,{jobs})", "threads=1", *arguments], given)
        same = all(outcome(folder / name / str(job)) == outcome(folder / names[0] / str(job)) for job in range(jobs))
        at_once = 1 if name == "local" else 2
        rows.append({"part": "launchers", "launcher": name, "at_once": at_once, "seconds": seconds, "same_bits": same})
    return rows


def cores(folder: Path, given: Sequence[str]) -> list[Row]:
    """Two jobs of one thread, and one job of two."""
    rows: list[Row] = []
    for jobs, threads in ((2, 1), (1, 2)):
        name = f"cores{jobs}"
        sweep(folder, name, [f"seed=range(0,{jobs})", f"threads={threads}", f"jobs={jobs}"], given)
        runs = [metrics_csv.read(folder / name / str(job) / "metrics.csv") for job in range(jobs)]
        speed = sum(median(float(row["images_per_second"] or 0) for row in run[1:] or run) for run in runs)
        rows.append({"part": "cores", "jobs": jobs, "threads": threads, "speed": speed})
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=2000)
    arguments.add_argument("--epochs", type=int, default=2)
    arguments.add_argument("--launchers", default=",".join(LAUNCHERS))
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    names = [name for name in options.launchers.split(",") if is_there(LAUNCHERS[name][1])]
    given = [f"data.num_examples={options.examples}", f"epochs={options.epochs}"]
    with TemporaryDirectory() as made:
        folder = Path(made)
        sweep(folder, "warm", ["seed=0", "threads=1"], ["data.num_examples=200", "epochs=1"])
        rows = [*compared(folder, names, given), *cores(folder, [*given, f"epochs={max(options.epochs, 4)}"])]
    if options.json:
        print(json.dumps(rows))
        return
    for part, columns in COLUMNS.items():
        print(table([row for row in rows if row["part"] == part], columns), end="\n\n")


def is_there(module: str) -> bool:
    """Whether a module is installed."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
