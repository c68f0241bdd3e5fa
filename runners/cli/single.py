"""What Hydra calls for a single run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cnn import ConfigError
from cnn.faults import Fault
from runners.config import composition, extensions, schema
from runners.config.overrides import Command
from runners.training import debug, experiment


class SingleRun:
    """Runs what Hydra has composed. `text` is then the report to print, or `error` why there is none.

    It returns normally even then: Hydra would print more about an error.
    """

    def __init__(self, command: Command) -> None:
        self.command = command
        self.text = ""
        self.error: BaseException | None = None

    def __call__(self, composed: DictConfig) -> None:
        try:
            self.text = self._run(composed)
        except BaseException as error:
            self.error = error

    def _run(self, composed: DictConfig) -> str:
        texts = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        overrides = [str(text).lstrip("+") for text in texts or ()]
        command = self.command
        raw, unresolved = composition.resolve(composed, overrides)
        places = {fault.place for fault in command.faults}  # of overrides that weren't passed on
        known = [*command.faults, *(fault for fault in unresolved if fault.place not in places)]
        try:
            extensions.load(raw.get("extensions"))
            raw = extensions.without_defaults(raw, overrides) if raw.get("extensions") else raw
            raw = schema.without_default_model(raw, overrides)
            if known:
                _raise_with_all(raw, known, command.unchecked)
            mode = str(raw.get("debug"))
            reports = mode in debug.REPORTS
            return debug.run(raw, mode) if reports else experiment.run(raw, overrides).as_text()
        except ConfigError as error:
            raise composition.at_variables(composed, error) from None


def _raise_with_all(raw: Mapping[str, Any], known: Sequence[Fault], unchecked: Collection[str]) -> NoReturn:
    """Raise the known faults together with those that the schema finds in other places."""
    places = {fault.place for fault in known}
    others = (fault for fault in schema.find_faults(raw, unchecked) if fault.place not in places)
    raise ConfigError([*known, *others])
