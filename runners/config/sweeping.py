"""The settings of a sweep, given on the command line: how its jobs run, and nothing of what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field

from cnn.arguments import Positive, check
from cnn.faults import ConfigError, Fault
from runners.config.settings import VALUES

NOT_SWEEPING = "is only used by a sweep (-m)"


class SweepSettings(BaseModel):
    """How the jobs of a sweep run.

    `jobs`: this many at once. `retry`: a job that fails is tried again this many times.
    `stop_on_failure`: once a job has failed, no other is started.
    """

    model_config = VALUES

    jobs: Positive = 1
    retry: Annotated[int, Field(ge=0)] = 0
    stop_on_failure: bool = False


KEYS = tuple(SweepSettings.model_fields)


def parse(given: Mapping[str, Any]) -> tuple[SweepSettings, list[Fault]]:
    """The settings with these values, and their faults."""
    try:
        return check(SweepSettings, given), []
    except ConfigError as error:
        return SweepSettings(), list(error.faults)
