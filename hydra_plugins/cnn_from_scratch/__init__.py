"""The launchers of this project, where Hydra looks for them: `hydra/launcher=local`.

Every program that uses Hydra in this environment imports this file, so it imports nothing of the project until a
launcher is used. The work is done in runners/sweeps/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Runs the jobs of a sweep on this machine, `jobs` at once, each in a process of its own."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.jobs: Any = task_function
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from runners.sweeps import launching

        def compose(overrides: Sequence[str]) -> DictConfig:
            return self.context.config_loader.load_sweep_config(self.config, list(overrides))

        return launching.launch(self.jobs, launching.run_here, job_overrides, initial_job_idx, compose)


LAUNCHERS: dict[str, dict[str, Any]] = {
    "local": {"_target_": f"{__name__}.LocalLauncher"},
}
"""The settings of each launcher, with their defaults. (Hydra runs this file in a way in which dataclasses fail.)"""

for name, settings in LAUNCHERS.items():
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=settings, provider="cnn-from-scratch")
