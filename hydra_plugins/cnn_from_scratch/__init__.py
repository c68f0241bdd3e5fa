"""The launchers and the sweeper of this project, where Hydra looks for them: `hydra/launcher=slurm` and so on.

Every program that uses Hydra in this environment imports this file, so it imports nothing of the project until a
launcher is used. The work is done in runners/sweeps/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class LocalLauncher(Launcher):
    """Runs the jobs of a sweep on this machine, `jobs` at once, each in a process of its own."""

    name = "local"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.jobs: Any = task_function
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from runners.sweeps import launchers, launching

        def compose(overrides: Sequence[str]) -> DictConfig:
            return self.context.config_loader.load_sweep_config(self.config, list(overrides))

        settings: Any = OmegaConf.to_container(OmegaConf.create(self.settings))
        run = launchers.runner(self.name, settings)
        return launching.launch(self.jobs, run, job_overrides, initial_job_idx, compose)


class SlurmLauncher(LocalLauncher):
    """Runs the jobs of a sweep on a cluster with slurm."""

    name = "slurm"


class RayLauncher(LocalLauncher):
    """Runs the jobs of a sweep on a cluster of Ray's."""

    name = "ray"


class OptunaSweeper(Sweeper):
    """Asks Optuna for the values of each job: `hydra/sweeper=optuna`."""

    def __init__(self, **settings: Any) -> None:
        """The settings are read from the config, where they are plain values."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.jobs: Any = task_function
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from runners.sweeps import searching

        assert self.launcher
        assert self.hydra_context
        assert self.config
        loader = self.hydra_context.config_loader
        searching.search(self.jobs, self.config, arguments, self.launcher.launch, loader)


LAUNCHERS: dict[str, dict[str, Any]] = {
    "local": {"_target_": f"{__name__}.LocalLauncher"},
    "slurm": {
        "_target_": f"{__name__}.SlurmLauncher",
        "cluster": "slurm",
        "time": 60,
        "memory": None,
        "partition": None,
        "cpus": 1,
        "gpus": 0,
        "account": None,
        "qos": None,
        "constraint": None,
        "setup": [],
        "extra": {},
    },
    "ray": {"_target_": f"{__name__}.RayLauncher", "address": None, "cpus": 1, "gpus": 0, "memory": None},
}
"""The settings of each launcher, with their defaults. (Hydra runs this file in a way in which dataclasses fail.)"""

SWEEPERS: dict[str, dict[str, Any]] = {
    "optuna": {
        "_target_": f"{__name__}.OptunaSweeper",
        "n_trials": 20,
        "n_jobs": None,
        "sampler": "tpe",
        "pruner": None,
        "seed": 0,
        "objectives": None,
        "directions": None,
        "params": None,
    },
}
"""The same for sweepers. runners/sweeps/search_settings.py says what the settings are."""

for group, plugins in {"hydra/launcher": LAUNCHERS, "hydra/sweeper": SWEEPERS}.items():
    for name, settings in plugins.items():
        ConfigStore.instance().store(group=group, name=name, node=settings, provider="cnn-from-scratch")
