"""The launchers by name: the settings of each, checked before the sweep starts, and what runs jobs with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel

from cnn.arguments import check
from runners.config.settings import VALUES
from runners.sweeps import launching, ray, slurm
from runners.sweeps.launching import Run

CLUSTERS = ("slurm", "ray")
NAMES = ("local", *CLUSTERS)
"""Launchers for which `jobs` says how many jobs run at once."""


class LocalSettings(BaseModel):
    """Those of the launcher `local`: none, as `jobs` and `threads` are keys of the command."""

    model_config = VALUES


def runner(name: str, given: Mapping[str, Any]) -> Run:
    """What runs jobs. Raises ConfigError or InputError if the settings are wrong, or a package isn't installed."""
    if name == "slurm":
        return partial(slurm.run, slurm.settings(given))
    if name == "ray":
        return partial(ray.run, ray.settings(given))
    check(LocalSettings, given, "hydra.launcher")
    return launching.run_here
