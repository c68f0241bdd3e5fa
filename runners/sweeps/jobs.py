"""What Hydra calls: a single run, or each job of a sweep. Remembers how each ended."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cnn import ConfigError
from cnn.faults import Fault
from runners.config import composition, extensions, hydra_settings, schema
from runners.config.overrides import NOT_IN_A_SWEEP, Command
from runners.errors import DebugFailed, InputError, RunFailed
from runners.exit_codes import BAD_INPUT, DONE, FAILED, report_error
from runners.signals import Interrupted
from runners.sweeps.directory import record
from runners.sweeps.report import Job, table
from runners.training import debug, experiment


@dataclass(frozen=True)
class Report:
    """The result of a run: its whole report, and its line in a sweep's table."""

    text: str
    line: str


class Jobs:
    """`run` is called by Hydra, once for a single run and once for each job of a sweep; remembers how each ended.

    A job that fails returns normally, so that neither launcher nor sweeper abandons the jobs after it. Only signals are
    raised, and any error in another process of a launcher, because nothing else would be passed back from there.
    """

    sweep_dir: Path | None = None

    def __init__(self, command: Command) -> None:
        self.command = command
        self.texts: list[str] = []
        self.codes: list[int] = []
        self.ended: list[Job] = []
        self.reported: BaseException | None = None
        self.process = os.getpid()

    def run(self, composed: DictConfig) -> None:
        context = HydraConfig.get()
        texts = OmegaConf.to_container(context.overrides.task, resolve=False)
        overrides = [str(text).lstrip("+") for text in texts or ()]
        number = None if self.sweep_dir is None else context.job.num
        try:
            report = _run(composed, self.command, overrides, number)
        except BaseException as error:
            self.reported = error
            self.codes.append(report_error(error, "" if number is None else f"job {number}: "))
            if number is None:
                return
            self._record(error, composed, overrides, number)
            if isinstance(error, Interrupted | KeyboardInterrupt) or os.getpid() != self.process:
                raise
        else:
            self.texts.append(report.text)
            if number is not None:
                self.ended.append(Job(number, overrides, report.line))

    def _record(self, error: BaseException, composed: DictConfig, overrides: Sequence[str], number: int) -> None:
        """Record that a job ended with this error."""
        state, reason = _reason(error)
        self.ended.append(Job(number, list(overrides), f"{state}: {reason}"))
        if self.sweep_dir and str(composition.select(composed, "debug")) not in debug.REPORTS:
            record(self.sweep_dir / str(number), overrides, state, reason)

    def report_failure(self, error: BaseException, folders: Sequence[Path]) -> None:
        """Report an error that Hydra raised: a job's, if not yet reported, or one from composing the config."""
        if error is self.reported:
            return
        setting_up = self.sweep_dir and not (self.codes or self.texts or isinstance(error, ConfigError | InputError))
        if setting_up and isinstance(error, Exception) and (found := hydra_settings.failure(error, self.command)):
            error = found
        if isinstance(error, composition.COMPOSITION_ERRORS) and not isinstance(error, ConfigError):
            error = ConfigError([*self.command.faults, *composition.from_hydra(error, folders).faults])
        self.codes.append(report_error(error))

    def reports(self) -> list[str]:
        """Everything to print at the end."""
        reports = [text for text in self.texts if text]
        if self.ended:
            reports.append(table(self.ended))
        if self.sweep_dir and self.sweep_dir.exists():
            reports.append(f"sweep directory {self.sweep_dir}")
        return reports

    @property
    def exit_code(self) -> int:
        """The most important of the exit codes: a signal's, then a failure's, then that of bad input."""
        signalled = [code for code in self.codes if code > BAD_INPUT]
        return signalled[0] if signalled else FAILED if FAILED in self.codes else max(self.codes, default=DONE)


def _reason(error: BaseException) -> tuple[str, str]:
    """The state of a job that ended with this error, and why."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "SIGINT"
    if isinstance(error, Interrupted):
        return ("done", f"see {error.done}/summary.json") if error.done else ("interrupted", error.name)
    if isinstance(error, DebugFailed):
        return "failed", str(error).splitlines()[-1]
    known = isinstance(error, ConfigError | InputError | RunFailed)
    return "failed", str(error) if known else f"{type(error).__name__}: {error}"


def _run(composed: DictConfig, command: Command, overrides: Sequence[str], number: int | None) -> Report:
    """Run one job from its composed config."""
    raw, unresolved = composition.resolve(composed, overrides)
    places = {fault.place for fault in command.faults}  # of overrides that weren't passed on
    known = [*command.faults, *(fault for fault in unresolved if fault.place not in places)]
    if number is not None and raw.get("run_dir") is not None:  # set by a sweeper: elsewhere it is refused before
        known.append(Fault("run_dir", NOT_IN_A_SWEEP))
    try:
        extensions.load(raw.get("extensions"))
        raw = extensions.without_defaults(raw, overrides) if raw.get("extensions") else raw
        raw = schema.without_default_model(raw, overrides)
        if known:
            _raise_with_all(raw, known, command.unchecked)
        return _carry_out(raw, overrides, number)
    except ConfigError as error:
        raise composition.at_variables(composed, error) from None


def _carry_out(raw: Mapping[str, Any], overrides: Sequence[str], number: int | None) -> Report:
    """Train, or produce the report that `debug` selects."""
    mode = str(raw.get("debug"))
    if mode not in debug.REPORTS:
        result = experiment.run(raw, overrides, number)
        return Report(result.as_text() if number is None else "", result.as_line())
    heading = f"job {number}\n" if number is not None else ""
    try:
        return Report(heading + debug.run(raw, mode), "done")
    except DebugFailed as error:
        raise DebugFailed(f"{heading}{error}") from None


def _raise_with_all(raw: Mapping[str, Any], known: Sequence[Fault], unchecked: Collection[str]) -> NoReturn:
    """Raise the known faults together with those that the schema finds in other places."""
    places = {fault.place for fault in known}
    others = (fault for fault in schema.find_faults(raw, unchecked) if fault.place not in places)
    raise ConfigError([*known, *others])
