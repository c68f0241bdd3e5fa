"""The checks of tools/gpu_check, each in processes of its own: python -m tools.gpu_parts --help.

Results are JSON lines on stdout, and in a file, as they come: those that a part prints, with its name, and one for the
part itself. A part that fails or takes too long is reported and doesn't stop the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
PROCESSES = max(1, min(12, (os.cpu_count() or 2) - 2))
TAIL, REASON = 1500, 500
"""Characters of the end of a failing part's output, and of why a test failed."""

PATIENCE = 5
"""Seconds for what a command's children, in sessions of their own, may still print after its end."""

RESULTS = "PASSED", "FAILED", "ERROR", "SKIPPED"

VERSIONS = (
    "import json; from benchmarks.gpu_timing import copy_rate, machine; "
    "print(json.dumps(machine() | {'copy_bytes_a_second': copy_rate()}))"
)

Command = list[str]
Found = dict[str, Any]


def python(*arguments: str) -> Command:
    return [sys.executable, *arguments]


def tests(workers: int, *files: str) -> Command:
    """The tests of files that need a GPU. Warnings of other libraries than those of a test run are no faults."""
    options = ["-m", "gpu", "-n", str(workers), "--dist", "worksteal", "-vv", "--tb=line", "-rfE"]
    return python("-m", "pytest", *options, "-o", "filterwarnings=default", "-p", "no:cacheprovider", *files)


def speed(*arguments: str) -> Command:
    return python("-m", "benchmarks.gpu", "--json", *arguments)


def mnist(experiment: str, folder: str, *more: str) -> Command:
    return python("run.py", f"experiment={experiment}", "device=cuda", f"run_dir={folder}", *more)


@dataclass(frozen=True)
class Part:
    """Commands that run one after another, for at most `seconds`. `folders`: of the runs whose times are reported."""

    seconds: float
    commands: Sequence[Command]
    folders: Sequence[str] = field(default_factory=tuple)


def parts(folder: str) -> dict[str, Part]:
    """All parts by name, the most valuable ones first. `folder`: where runs are written."""
    runs = {f"{folder}/{name}": name for name in ("mnist_99", "mnist_99_again", "judge", "resnet13_mnist")}
    first, again, judge, resnet = runs
    trainings = [
        mnist("mnist_99", first),
        mnist("mnist_99", again, "seed=1"),
        mnist("judge", judge),
        mnist("resnet13_mnist", resnet),
    ]
    short = ["--peers", "eager,graph"]
    profiled = ["--profile", "--models", "seed8,resnet20", "--batches", "128,2048", "--precisions", "float32"]
    compiled = ["--peers", "compile", "--models", "seed8,lenet,resnet20", "--batches", "2048,128"]
    return {
        "versions": Part(40, [python("-c", VERSIONS)]),
        "warm": Part(120, [python("-m", "benchmarks.gpu_warm", "--processes", str(PROCESSES), "--seconds", "85")]),
        "tests": Part(150, [tests(PROCESSES, "tests/cnn/gpu/test_on_gpu.py")]),
        "bits": Part(
            120, [tests(min(6, PROCESSES), *(f"tests/runners/{wing}/test_on_gpu.py" for wing in ("training", "data")))]
        ),
        **{f"speed{batch}": Part(90, [speed("--batches", str(batch), *short)]) for batch in (128, 512, 2048)},
        "mnist": Part(90, trainings, tuple(runs)),
        "profile": Part(60, [speed(*profiled)]),
        "compile": Part(150, [speed(*compiled, "--precisions", "float32,tf32", "--rounds", "3")]),
    }


NAMES = tuple(parts(""))


class Report:
    """Prints JSON lines, and writes them to a file."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    def __call__(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row)
        for stream in (sys.stdout, self._file):
            if stream:
                print(line, file=stream, flush=True)


def run(command: Command, seconds: float, each: Callable[[str], object]) -> tuple[int | None, str]:
    """The exit code of a command, and its whole output; None if it took longer, and was killed with its children.

    `each` is called with each line as soon as it is printed.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "600"}  # pytest cuts what is longer
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **options)
    lines: list[str] = []

    def read() -> None:
        assert process.stdout
        with process.stdout as output:
            for line in output:
                lines.append(line)
                each(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    code: int | None = None
    try:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(max(seconds, 0.1))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    reader.join(PATIENCE)
    return code, "".join(lines)


def as_row(line: str) -> Found | None:
    """A line of JSON as an object, if it is one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def outcomes(output: str) -> Found:
    """How many tests passed, failed and so on, from the lines of a run that may not have come to its end."""
    results = re.findall(r"^\[gw\d+\] \[ *\d+%\] ([A-Z]+) (\S.*?) *$", output, re.M)
    if not results:
        return {}
    counts = {name.lower(): sum(result == name for result, _ in results) for name in RESULTS}
    reasons = dict(re.findall(r"^(?:FAILED|ERROR) (\S.*?) - (.*)$", output, re.M))
    wrong = {test: reasons.get(test, "")[:REASON] for result, test in results if result in ("FAILED", "ERROR")}
    return {**counts, "wrong": wrong}


def training_of(folder: Path) -> Found:
    """The accuracy of a run and its seconds: in training steps, and in all epochs with their validation."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    return {
        "run": folder.name,
        "test_accuracy": summary["test"]["test/accuracy"],
        "best_epoch": summary["best"]["epoch"],
        "training_seconds": round(sum(float(row["step_seconds"]) for row in rows), 3),
        "epoch_seconds": [round(float(row["seconds"]), 3) for row in rows],
        "images_per_second": [round(float(row["images_per_second"])) for row in rows],
    }


def check(name: str, part: Part, seconds: float, report: Callable[[Found], object]) -> bool:
    """Run a part for at most this many seconds, and report what it finds; returns whether all is well."""
    start = time.perf_counter()
    codes: list[int | None] = []
    output = ""

    def each(line: str) -> None:
        row = as_row(line)
        if row is not None:
            report({"part": name, **row})

    for number, command in enumerate(part.commands):
        began = time.perf_counter()
        code, text = run(command, seconds - (began - start), each)
        codes.append(code)
        output += text
        if part.folders:
            found: Found = {"part": name, "process_seconds": round(time.perf_counter() - began, 2)}
            try:
                found |= training_of(Path(part.folders[number]))
            except (OSError, ValueError, KeyError) as error:
                found |= {"run": Path(part.folders[number]).name, "failed": f"{type(error).__name__}: {error}"[:300]}
            report(found)
        if code is None:
            break
    well = all(code == 0 for code in codes) and len(codes) == len(part.commands)
    row: Found = {"part": name, "ok": well, "seconds": round(time.perf_counter() - start, 1), "exit": codes}
    row |= {"timed_out": None in codes, **outcomes(output)}
    report(row if well else {**row, "tail": output[-TAIL:]})
    return well


def listed(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(NAMES)}")
    return names


def minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e4:
        raise argparse.ArgumentTypeError(f"{text} is not allowed, give minutes > 0")
    return value


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bash tools/gpu_check", add_help=False, allow_abbrev=False)
    made.add_argument("--only", type=listed, default=[*NAMES], metavar="PART,...")
    made.add_argument("--minutes", type=minutes, default=8.0)
    made.add_argument("--out", type=Path)
    made.add_argument("--dry-run", action="store_true")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: part for name, part in parts(folder).items() if name in options.only}
        if options.dry_run:
            for name, part in chosen.items():
                for command in part.commands:
                    print(f"# {name}, at most {part.seconds:.0f} s\n{shlex.join(command)}")
            return 0
        try:
            opened = (options.out or Path(os.devnull)).open("a", encoding="utf-8")
        except OSError as error:
            parser().error(f"--out: {error.strerror}: {options.out}")
        with opened as file:
            report, failed = Report(file), []
            for name, part in chosen.items():
                left = options.minutes * 60 - (time.perf_counter() - start)
                if left < 5:
                    report({"part": name, "ok": False, "failed": "no time left"})
                    failed.append(name)
                elif not check(name, part, min(part.seconds, left), report):
                    failed.append(name)
            report(
                {"part": "all", "ok": not failed, "seconds": round(time.perf_counter() - start, 1), "failed": failed}
            )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
