"""How jobs fail: why, as far as their processes say, and what of it is printed and recorded."""

from __future__ import annotations

import sys
from contextlib import suppress

from tqdm import tqdm

from runners.errors import RunDirectoryError, printable
from runners.exit_codes import BAD_INPUT, FAILED
from runners.files.run_directory import RunDirectory
from runners.sweeps.job import Job
from runners.sweeps.process import signal_name
from runners.training import debug

ERROR = "error: "
TRACEBACK = "Traceback (most recent call last):"


def makes_report(job: Job) -> bool:
    """Whether a job prints a report, as `debug=summary` does, instead of making a run directory."""
    return any(text.partition("=")[::2] == ("debug", mode) for text in job.overrides for mode in debug.REPORTS)


def reason(job: Job, code: int, printed: str) -> str:
    """Why a job has failed: what its run has recorded, else what its process has printed last."""
    if code < 0:
        killed = signal_name(code)
        return f"killed by {killed}{', perhaps for want of memory' if killed == 'SIGKILL' else ''}"
    status = job.status
    if _has_recorded(job, code) and isinstance(status.get("reason"), str):
        return str(status["reason"])
    errors = error_lines(printed)
    if errors:
        return "\n".join(errors)
    last = [line for line in printed.splitlines() if line.strip()][-1:]
    return last[0].strip() if last else f"exit code {code}"


def error_lines(printed: str) -> list[str]:
    """The errors among the lines that a command has printed."""
    return [line.removeprefix(ERROR) for line in printed.splitlines() if line.startswith(ERROR)]


def report(job: Job, code: int, printed: str) -> None:
    """Print why a job has failed, with the job before each line."""
    lines = error_lines(printed) if code in (1, BAD_INPUT) else []
    if not lines and not makes_report(job):
        where = f" (see {job.output if job.path.is_dir() else job.early_output})" if TRACEBACK in printed else ""
        lines = [f"{reason(job, code, printed)}{where}"]
    with suppress(OSError):  # a closed terminal doesn't stop a sweep
        for line in lines:
            tqdm.write(f"{ERROR}job {job.number}: {printable(line)}", file=sys.stderr)


def report_recorded(job: Job) -> None:
    """Print why a job has failed, as its directory has it: it ran on another machine."""
    with suppress(OSError):
        for line in str(job.status.get("reason")).splitlines():
            tqdm.write(f"{ERROR}job {job.number}: {printable(line)} (see {job.output})", file=sys.stderr)


def _has_recorded(job: Job, code: int) -> bool:
    """Whether the run itself has recorded this failure: not bad input, nor what killed its process."""
    return code == FAILED and job.state == "failed"


def record(job: Job, code: int, why: str) -> None:
    """Record in its directory why a job has failed, unless its run has done so."""
    if _has_recorded(job, code):
        return
    # the directory is in use after all, or the disk is full: the reason has been printed anyway
    with suppress(RunDirectoryError, OSError):
        made = RunDirectory.open(job.path) if job.path.is_dir() else RunDirectory.make(job.path, job.overrides)
        with made as directory:
            directory.status("failed", reason=why, exit_code=max(code, 1))
