"""Jobs as tasks of Ray, on a running cluster or on one that is started for the sweep: `hydra/launcher=ray`."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from cnn.arguments import NonNegative, Positive, Text, check
from cnn.faults import ConfigError, Fault
from cnn.ops.threads import available_threads
from cnn.text import short
from runners.config.settings import VALUES
from runners.errors import missing_extra
from runners.signals import WATCHED
from runners.sweeps import allotted, process
from runners.sweeps.elsewhere import Elsewhere, Elsewheres
from runners.sweeps.job import Job
from runners.sweeps.jobs import Jobs

PLACE = "hydra.launcher"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No statistics are sent, and Ray doesn't warn of a variable whose default changes."""


class RaySettings(BaseModel):
    """What each job is given, and of which cluster; null is one on this machine, for this sweep alone."""

    model_config = VALUES

    address: Text | None = None
    cpus: Positive = 1
    gpus: NonNegative = 0
    memory: allotted.Memory | None = None


def settings(given: Mapping[str, Any]) -> RaySettings:
    """The settings with these values. Raises ConfigError for wrong ones, and InputError without Ray."""
    found = check(RaySettings, given, PLACE)
    try:
        import ray  # noqa: F401
    except ImportError:
        raise missing_extra("hydra/launcher", "ray", "ray") from None
    if found.address is None and found.cpus > available_threads():
        problem = f"{found.cpus} is not allowed, this machine has {available_threads()}"
        raise ConfigError([Fault(f"{PLACE}.cpus", problem)])
    return found


def run(given: RaySettings, jobs: Jobs, left: Sequence[Job]) -> None:
    """Run jobs on Ray."""
    with _connected(given):
        Elsewheres(jobs, Ray(given, jobs)).run(left)


@contextmanager
def _connected(given: RaySettings) -> Iterator[None]:
    """Connect to the cluster, and leave it at the end of the `with` block. Raises ConfigError if that fails."""
    import ray

    handlers = {number: signal.getsignal(number) for number in WATCHED}
    environment = dict(os.environ)
    os.environ.update({key: value for key, value in QUIET.items() if key not in environment})
    own = {"num_cpus": available_threads(), "include_dashboard": False} if given.address is None else {}
    try:
        ray.init(
            address=given.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": process.importing()},
            **own,
        )
    except Exception as error:  # ConnectionError, ValueError, RuntimeError
        if given.address is None:
            raise
        problem = f"there is no cluster at {given.address}: {short(' '.join(str(error).split()))}"
        raise ConfigError([Fault(f"{PLACE}.address", problem)]) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray has its own for SIGTERM
        os.environ.clear()
        os.environ.update(environment)
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class Ray:
    """The cluster: a task for each job."""

    settings: RaySettings
    jobs: Jobs
    _tasks: dict[int, Any] = field(default_factory=dict)
    _problems: dict[int, str] = field(default_factory=dict)
    _cancelled: set[int] = field(default_factory=set)

    def known(self, jobs: Sequence[Job]) -> list[Job]:
        return []

    def room(self, running: int) -> int:
        return max(0, self.jobs.terms.at_once - running)

    def start(self, jobs: Sequence[Job]) -> None:
        import ray

        given = self.settings
        memory = {} if given.memory is None else {"memory": allotted.megabytes(given.memory) * 2**20}
        options = ray.remote(num_cpus=given.cpus, num_gpus=given.gpus, max_retries=0, **memory)
        terms = replace(self.jobs.terms, at_once=1, threads=given.cpus)
        for job in jobs:
            self._tasks[job.number] = options(_run).remote(Elsewhere(self.jobs.sweep, terms, job))

    def live(self, *, soon: bool) -> set[int]:
        import ray

        waited = [*self._tasks.values()]
        ended = set(ray.wait(waited, num_returns=len(waited), timeout=0)[0]) if waited else set()
        for number in [number for number, task in self._tasks.items() if task in ended]:
            try:
                ray.get(self._tasks.pop(number))
            except Exception as error:
                self._problems[number] = short(str(error).strip().splitlines()[-1])
        return {*self._tasks}

    def cancel(self, jobs: Sequence[Job]) -> None:
        import ray

        for job in jobs:
            if job.number in self._tasks and job.number not in self._cancelled:
                self._cancelled.add(job.number)
                ray.cancel(self._tasks[job.number])

    def why(self, job: Job) -> str:
        return f"its task has ended: {self._problems.get(job.number, 'no reason given')}"


def _run(call: Elsewhere) -> None:
    """What Ray calls for a job."""
    call()
