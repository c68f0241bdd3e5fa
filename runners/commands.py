"""The commands behind run.py and predict.py: they parse, call runners, and say how it went."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from cnn import ConfigError
from cnn.faults import Fault
from runners import composition, debug, experiment, overrides, resume, schema, sweep, yaml_files
from runners.errors import DebugFailed, ImageError, InputError, RunFailed
from runners.exits import BAD_INPUT, DONE, FAILED, conclude
from runners.images import find_pictures, without_warnings
from runners.inference import Predictor
from runners.overrides import Command
from runners.run_directory import new_name
from runners.signals import Interrupted, raising_signals


def train(arguments: Sequence[str]) -> int:
    """Compose with Hydra, then run or sweep; or resume a run. Returns the exit code."""
    if any(resume.ASKED.match(argument) for argument in arguments):
        return _resume(arguments)
    command = overrides.prepare(arguments)
    folders = [overrides.CONFIGS, *command.folders]
    endless = yaml_files.explosions(folders)
    if endless or (command.faults and (command.sweeping or command.showing)):
        return conclude(ConfigError([*command.faults, *endless]))
    jobs = _Jobs(command)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them and exiting
    try:
        with raising_signals(), tempfile.TemporaryDirectory() as scratch, _sweep_directory(command) as jobs.sweep_dir:
            sys.argv[1:] = [*command.flags, *_hydra_settings(jobs.sweep_dir, scratch), *command.overrides]
            hydra.main(version_base="1.3", config_path=str(overrides.CONFIGS), config_name="config")(jobs.run)()
    except SystemExit:  # --help
        raise
    except BaseException as error:
        jobs.blame(error, folders)
    print("".join(f"{report}\n" for report in jobs.reports()), end="")
    return jobs.exit_code


def _resume(arguments: Sequence[str]) -> int:
    try:
        run, typed, may_change = resume.parse_arguments(arguments)
        path = resume.latest_unfinished() if run == "auto" else Path(run)
        if run == "auto":
            print(f"going on with {path}", flush=True)
        result = resume.resume(path, typed, may_change=may_change)
    except BaseException as error:
        return conclude(error)
    print(_told(result) if result else f"{run}: finished already; give more epochs=N to train on")
    return DONE


def _sweep_directory(command: Command) -> AbstractContextManager[Path | None]:
    if not command.sweeping:
        return nullcontext()
    return sweep.directory(command.sweep_dir or Path(f"outputs/sweeps/{new_name()}"))


def _hydra_settings(sweep_dir: Path | None, scratch: str) -> list[str]:
    """Where all jobs of a sweep go. What Hydra itself writes of one goes to a temporary place."""
    if sweep_dir is None:
        return ["hydra.mode=RUN"]
    quoted = overrides.quoted
    return ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(scratch)}", f"++sweep_dir={quoted(str(sweep_dir))}"]


@dataclass(frozen=True)
class _Report:
    """How a run went: all that is told of it, and what stands in a sweep's table."""

    text: str
    line: str


class _Jobs:
    """What Hydra calls, once for a run and once for each job of a sweep; remembers how each ended.

    A job that fails returns all the same, so that neither launcher nor sweeper give up the jobs after it. Only signals
    are raised, and what fails in a process of a launcher's own: nothing else of it would get back here.
    """

    sweep_dir: Path | None = None

    def __init__(self, command: Command) -> None:
        self.command = command
        self.texts: list[str] = []
        self.codes: list[int] = []
        self.ended: list[sweep.Job] = []
        self.told: BaseException | None = None
        self.process = os.getpid()

    def run(self, composed: DictConfig) -> None:
        context = HydraConfig.get()
        texts = OmegaConf.to_container(context.overrides.task, resolve=False)
        typed = [str(text).lstrip("+") for text in texts or ()]
        number = None if self.sweep_dir is None else context.job.num
        try:
            report = _run(composed, self.command, typed, number)
        except BaseException as error:
            self.told = error
            self.codes.append(conclude(error, "" if number is None else f"job {number}: "))
            if number is None:
                return
            self._record(error, composed, typed, number)
            if isinstance(error, Interrupted | KeyboardInterrupt) or os.getpid() != self.process:
                raise
        else:
            self.texts.append(report.text)
            if number is not None:
                self.ended.append(sweep.Job(number, typed, report.line))

    def _record(self, error: BaseException, composed: DictConfig, typed: Sequence[str], number: int) -> None:
        """Leave word of a job that ended with this error."""
        state, reason = _reason(error)
        self.ended.append(sweep.Job(number, list(typed), f"{state}: {reason}"))
        if self.sweep_dir and composition.select(composed, "debug") not in debug.REPORTS:
            sweep.record(self.sweep_dir / str(number), typed, state, reason)

    def blame(self, error: BaseException, folders: Sequence[Path]) -> None:
        """An error that came out of Hydra: one of a job that is told already, or one of composing the config."""
        if error is self.told:
            return
        if isinstance(error, composition.COMPLAINTS) and not isinstance(error, ConfigError):
            error = ConfigError([*self.command.faults, *composition.from_hydra(error, folders).faults])
        self.codes.append(conclude(error))

    def reports(self) -> list[str]:
        """All that is to be printed at the end."""
        reports = [text for text in self.texts if text]
        if self.ended:
            reports.append(sweep.table(self.ended))
        if self.sweep_dir and self.sweep_dir.exists():
            reports.append(f"sweep directory {self.sweep_dir}")
        return reports

    @property
    def exit_code(self) -> int:
        """A signal's before a failure's before bad input's."""
        signalled = [code for code in self.codes if code > BAD_INPUT]
        return signalled[0] if signalled else FAILED if FAILED in self.codes else max(self.codes, default=DONE)


def _reason(error: BaseException) -> tuple[str, str]:
    """What became of a job that ended with this error: its state and why."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "SIGINT"
    if isinstance(error, Interrupted):
        return ("done", f"{error.done}/summary.json tells how") if error.done else ("interrupted", error.name)
    if isinstance(error, DebugFailed):
        return "failed", str(error).splitlines()[-1]
    known = isinstance(error, ConfigError | InputError | RunFailed)
    return "failed", str(error) if known else f"{type(error).__name__}: {error}"


def _run(composed: DictConfig, command: Command, typed: Sequence[str], number: int | None) -> _Report:
    """One run, from a composed config, and how it went."""
    raw, unresolved = composition.resolve(composed, typed)
    places = {fault.place for fault in command.faults}  # of overrides that were left out
    known = [*command.faults, *(fault for fault in unresolved if fault.place not in places)]
    try:
        if known:
            _raise_with_all(raw, known, command.unjudged)
        return _carry_out(raw, typed, number)
    except ConfigError as error:
        raise composition.at_variables(composed, error) from None


def _carry_out(raw: Mapping[str, Any], typed: Sequence[str], number: int | None) -> _Report:
    """Train, or make the report that `debug` asks for."""
    mode = raw.get("debug")
    if mode not in debug.REPORTS:
        result = experiment.run(raw, typed, number)
        return _Report(_told(result) if number is None else "", _in_a_line(result))
    heading = f"job {number}\n" if number is not None else ""
    try:
        return _Report(heading + debug.run(raw, str(mode)), "done")
    except DebugFailed as error:
        raise DebugFailed(f"{heading}{error}") from None


def _raise_with_all(raw: Mapping[str, Any], known: Sequence[Fault], unjudged: Collection[str]) -> NoReturn:
    """Raise the faults known already together with those that the schema finds in other places."""
    places = {fault.place for fault in known}
    others = (fault for fault in schema.find_faults(raw, unjudged) if fault.place not in places)
    raise ConfigError([*known, *others])


def _told(result: experiment.Result) -> str:
    """How a run went and where it lies, in a few lines."""
    summary = result.summary
    best, test = summary["best"], summary["test"]
    lines = []
    if result.validated_on_test:
        lines.append("note: the best weights were chosen on test examples, so the test accuracy flatters them")
    lines += [
        f"test accuracy {test['test/accuracy']:.2%}, loss {test['test/loss']:.4f}, "
        f"with the weights of epoch {best['epoch']} (val accuracy {best['val/accuracy']:.2%}, the best)",
        f"{summary['parameters']:,} parameters, {summary['steps']:,} steps in {summary['seconds']:.1f} s, "
        f"{summary['images_per_second']:,.0f} images/s in training",
        f"run directory {result.directory}",
    ]
    return "\n".join(lines)


def _in_a_line(result: experiment.Result) -> str:
    best, test = result.summary["best"], result.summary["test"]
    note = " (of weights chosen on test examples)" if result.validated_on_test else ""
    return f"val accuracy {best['val/accuracy']:.2%}, test accuracy {test['test/accuracy']:.2%}{note}"


def predict(arguments: Sequence[str]) -> int:
    """Name what is on pictures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Name what is on pictures, with a trained network.")
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("images", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument("--top", type=_count, default=3, metavar="K", help="show the K likeliest classes (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    options = parser.parse_args(arguments)
    try:
        predictor = Predictor.load(options.run, options.checkpoint)
    except InputError as error:
        return conclude(error)
    paths = [path for given in options.images for path in _asked(given)]
    bar = tqdm(paths, unit="picture", leave=False, disable=None if len(paths) > 1 else True)
    try:
        with without_warnings():
            return max(_predict(predictor, path, options, alone=len(paths) == 1) for path in bar)
    except InputError as error:  # of the network, and so of every picture
        return conclude(error)


def _predict(predictor: Predictor, path: str, options: argparse.Namespace, alone: bool) -> int:
    """Name what is on one picture, or tell why it can't be read; returns the exit code for it."""
    try:
        if not path:
            raise ImageError("the name of a picture is empty, as of a variable in the shell that isn't set")
        prediction = predictor.predict(Path(path))
    except ImageError as error:
        with tqdm.external_write_mode():
            if not options.json:
                return conclude(error)
            print(json.dumps({"path": path, "error": error.reason}), flush=True)
            return BAD_INPUT
    with tqdm.external_write_mode():
        if options.json:
            print(json.dumps(prediction.as_json(options.top)), flush=True)
        else:
            print(prediction.in_words(options.top) if alone else prediction.in_a_line(), flush=True)
    return DONE


def _asked(given: str) -> list[str]:
    """The pictures that are meant, and what can't be read, which is told in its turn."""
    if not given:
        return [given]  # as a path it would be the working directory
    unlisted: list[Path] = []  # also what isn't a folder at all, but a picture
    found = find_pictures(Path(given), unlisted)
    return [str(path) for path in sorted([*found, *unlisted]) or [Path(given)]]


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0  # of 4,300 digits Python makes no number
    if number < 1:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise argparse.ArgumentTypeError(f"{shown} is not allowed, give a whole number >= 1 of at most 9 digits")
    return number
