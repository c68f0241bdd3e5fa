"""Jobs on a cluster with slurm, by way of submitit: `hydra/launcher=slurm`.

A batch of jobs is one job array. The array outlives this process if that is killed; `slurm/jobs.json` in the sweep's
directory has its numbers, so that the next start of the sweep waits for it instead of submitting it again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from cnn.arguments import NonNegative, Positive, Text, check
from cnn.faults import ConfigError, Fault
from cnn.text import short
from runners.config.settings import VALUES
from runners.errors import InputError, missing_extra, print_to_stderr
from runners.files import atomic
from runners.sweeps import allotted, process
from runners.sweeps.elsewhere import Elsewhere, Elsewheres
from runners.sweeps.job import Job
from runners.sweeps.jobs import Jobs

PLACE = "hydra.launcher"
FOLDER, IDS = "slurm", "jobs.json"
"""Where submitit keeps its files in the directory of a sweep, and the numbers of slurm's jobs there."""
MAX_ARRAY = 1000
"""Jobs in an array; slurm takes 1,001 unless it is configured otherwise."""
MAX_REQUEUES = 1000
"""Times that a job may use up its time and go on. Each time it gets further."""
SECONDS, SOON = 5.0, 0.5
"""Between two questions to slurm, which answers those of everybody; and while jobs are expected to end."""
TIMEOUT = 60


class SlurmSettings(BaseModel):
    """What each job is given, and where. What is null is left to slurm."""

    model_config = VALUES

    cluster: Literal["slurm", "local"] = "slurm"
    time: allotted.Time = 60
    memory: allotted.Memory | None = None
    partition: Text | None = None
    cpus: Positive = 1
    gpus: NonNegative = 0
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    setup: Sequence[Text] = ()
    extra: Mapping[str, Any] = {}


def settings(given: Mapping[str, Any]) -> SlurmSettings:
    """The settings with these values. Raises ConfigError for wrong ones, and InputError without submitit."""
    found = check(SlurmSettings, given, PLACE)
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise missing_extra("hydra/launcher", "submitit", "slurm") from None
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if found.cluster == "slurm" and missing:
        problem = f"there is no {missing[0]} here, so this machine can't start jobs on a cluster with slurm"
        raise ConfigError([Fault(f"{PLACE}.cluster", f"{problem}; local tries the launcher without one")])
    return found


def run(given: SlurmSettings, jobs: Jobs, left: Sequence[Job]) -> None:
    """Run jobs on slurm."""
    terms = replace(jobs.terms, threads=given.cpus)
    cluster = (Slurm if given.cluster == "slurm" else Local)(given, replace(jobs, terms=terms))
    Elsewheres(jobs, cluster).run(left)


@dataclass
class Slurm:
    """The cluster, as submitit and slurm's own commands reach it."""

    settings: SlurmSettings
    jobs: Jobs
    _ids: dict[int, str] = field(default_factory=dict)
    """What slurm calls the jobs."""
    _live: set[str] = field(default_factory=set)
    _last: float = -SECONDS
    """When slurm was last asked."""

    @property
    def folder(self) -> Path:
        return (self.jobs.terms.folder / self.jobs.sweep.path / FOLDER).resolve()

    def known(self, jobs: Sequence[Job]) -> list[Job]:
        try:
            saved = json.loads((self.folder / IDS).read_text(encoding="utf-8"))
            ids = {int(number): str(name) for number, name in saved.items()}
        except (OSError, ValueError, AttributeError):
            return []
        live = _queue()
        if live is None:
            raise InputError(f"{self.folder / IDS}: an earlier start has left jobs, and squeue doesn't say which live")
        found = [job for job in jobs if ids.get(job.number) in live]
        self._ids |= {job.number: ids[job.number] for job in found}
        return found

    def room(self, running: int) -> int:
        return 0 if running else MAX_ARRAY  # one array at a time: its jobs are bounded by slurm

    def start(self, jobs: Sequence[Job]) -> None:
        is_first = not self.folder.exists()
        try:
            submitted = self._submit(jobs)
        except Exception as error:  # submitit's own, ValueError and CalledProcessError
            if is_first:
                shutil.rmtree(self.folder, ignore_errors=True)
            problem = f"these jobs can't be submitted: {short(' '.join(str(error).split()))}"
            raise ConfigError([Fault("hydra/launcher", problem)]) from None
        self._ids |= dict(zip((job.number for job in jobs), submitted, strict=True))
        atomic.write(self.folder / IDS, json.dumps(self._ids, indent=1).encode())
        self._last = -SECONDS

    def _submit(self, jobs: Sequence[Job]) -> list[str]:
        from submitit import SlurmExecutor

        executor = SlurmExecutor(self.folder, max_num_timeout=MAX_REQUEUES)
        executor.update_parameters(**self._parameters())
        calls = [Elsewhere(self.jobs.sweep, self._terms, job, ends_with_sweep=False) for job in jobs]
        with _environment():
            return [job.job_id for job in executor.submit_array(calls)]

    @property
    def _terms(self) -> Any:
        return replace(self.jobs.terms, at_once=1)

    def _parameters(self) -> dict[str, Any]:
        """The settings by submitit's names."""
        given = self.settings
        chosen = {
            "partition": given.partition,
            "account": given.account,
            "qos": given.qos,
            "constraint": given.constraint,
            "mem": None if given.memory is None else f"{allotted.megabytes(given.memory)}MB",
            "gpus_per_node": given.gpus or None,
            "setup": list(given.setup) or None,
        }
        return {
            "job_name": self.jobs.sweep.path.name,
            "time": allotted.minutes(given.time),
            "cpus_per_task": given.cpus,
            "array_parallelism": self.jobs.terms.at_once,
            "srun_args": [f"--cpus-per-task={given.cpus}"],  # which srun doesn't take from sbatch
            "additional_parameters": {"requeue": True, **given.extra},
            **{key: value for key, value in chosen.items() if value is not None},
        }

    def live(self, *, soon: bool) -> set[int]:
        if time.monotonic() >= self._last + (SOON if soon else SECONDS):
            found = _queue()
            self._live = {*self._ids.values()} if found is None else found
            self._last = time.monotonic()
        return {number for number, name in self._ids.items() if name in self._live}

    def cancel(self, jobs: Sequence[Job]) -> None:
        ids = [self._ids[job.number] for job in jobs if job.number in self._ids]
        if ids:
            _ask(["scancel", *ids])

    def why(self, job: Job) -> str:
        name = self._ids[job.number]
        files = sorted(self.folder.glob(f"{name}_*_log.err"))
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1].strip()}" if lines else ""
        return f"slurm's job {name} has ended{last} (see {self.folder})"


@dataclass
class Local(Slurm):
    """Submitit's processes on this machine instead of slurm's. They end with the sweep."""

    _submitted: dict[int, Any] = field(default_factory=dict)

    def known(self, jobs: Sequence[Job]) -> list[Job]:
        return []

    def room(self, running: int) -> int:
        return max(0, self.jobs.terms.at_once - running)

    def _submit(self, jobs: Sequence[Job]) -> list[str]:
        from submitit import LocalExecutor

        executor = LocalExecutor(self.folder, max_num_timeout=MAX_REQUEUES)
        given = self._parameters()
        executor.update_parameters(
            timeout_min=given["time"], setup=given.get("setup", []), gpus_per_node=self.settings.gpus
        )
        calls = [Elsewhere(self.jobs.sweep, self._terms, job) for job in jobs]
        with _environment():
            submitted = [executor.submit(call) for call in calls]
        self._submitted |= dict(zip((job.number for job in jobs), submitted, strict=True))
        return [job.job_id for job in submitted]

    def live(self, *, soon: bool) -> set[int]:
        return {number for number, job in self._submitted.items() if not job.done()}

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.number in self.live(soon=True):
                with suppress(ProcessLookupError):  # submitit's own `cancel` kills a second later
                    os.kill(int(self._ids[job.number]), signal.SIGTERM)


def _queue() -> set[str] | None:
    """What slurm calls the jobs of this user that are waiting or running; None if it doesn't answer."""
    printed = _ask(["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i"])
    return None if printed is None else set(printed.split())


def _ask(command: Sequence[str]) -> str | None:
    """What one of slurm's commands prints, or None, with a warning, if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
    except subprocess.CalledProcessError as error:
        problem = error.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    print_to_stderr(f"warning: {command[0]}: {short(' '.join(problem.split()))}")
    return None


@contextmanager
def _environment() -> Iterator[None]:
    """What is started inside the `with` block imports this code."""
    before = dict(os.environ)
    os.environ.update(process.importing())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
