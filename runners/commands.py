"""The commands behind run.py and predict.py: they parse, call runners, and turn errors into messages and exit codes."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from cnn import ConfigError, ops
from cnn.arguments import Fault
from runners import debug, experiment, overrides, resume, schema
from runners.debug import DebugFailed
from runners.errors import ImageError, InputError
from runners.inference import Predictor, find_pictures
from runners.run_directory import new_name
from runners.signals import Interrupted, ask_on_signals

DONE, FAILED, BAD_INPUT = 0, 1, 2
COMPILING = "compiling kernels for this machine's processor: seconds, and only once"


def conclude(error: BaseException) -> int:
    """Say what went wrong and give the exit code for it; of a fault that nobody foresaw, show the traceback."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        error = overrides.from_hydra(error)
    if isinstance(error, ConfigError | InputError):
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return BAD_INPUT
    if isinstance(error, experiment.RunFailed):
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    if isinstance(error, DebugFailed):
        print(error)
        return FAILED
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted(signal.SIGINT)
    if isinstance(error, Interrupted):
        how = f"; python run.py resume={error.run} goes on" if error.run else ""
        print(f"interrupted by {error.name}{how}", file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return FAILED


def train(arguments: Sequence[str]) -> int:
    """Compose with Hydra, then run or sweep; or resume a run. Returns the exit code."""
    if any(argument.startswith("resume=") for argument in arguments):
        return _resume(arguments)
    prepared, faults = overrides.prepare(arguments)
    sweeping = any(argument in overrides.MULTIRUN for argument in arguments)
    if sweeping and faults:
        return conclude(ConfigError(faults))
    jobs = _Jobs(faults, sweeping)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them and exiting
    with tempfile.TemporaryDirectory() as scratch:
        if sweeping:
            prepared += _sweep_directories(prepared, scratch)
        sys.argv[1:] = prepared
        try:
            hydra.main(version_base="1.3", config_path=str(overrides.CONFIGS), config_name="config")(jobs.run)()
        except BaseException as error:
            jobs.blame(error)
    print("".join(f"{report}\n" for report in jobs.reports), end="")
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
    print(_told(result, []) if result else f"{run}: finished already; give more epochs=N to train on")
    return DONE


class _Jobs:
    """What Hydra calls, once for a run and once for each job of a sweep; remembers how each ended."""

    def __init__(self, faults: Sequence[Fault], sweeping: bool) -> None:
        self.faults = faults
        self.sweeping = sweeping
        self.reports: list[str] = []
        self.codes: list[int] = []

    def run(self, composed: DictConfig) -> None:
        try:
            self.reports.append(_run(composed, self.faults))
        except BaseException as error:
            self.codes.append(conclude(error))
            if self.sweeping:  # launchers and sweepers of Hydra learn of a failed job by its exception
                raise

    def blame(self, error: BaseException) -> None:
        """An error that came out of Hydra: one of a job that is known already, or one of composing the config."""
        if isinstance(error, SystemExit):  # --help and the like
            raise error
        if not self.codes:
            ours = ConfigError | InputError | DebugFailed | experiment.RunFailed | Interrupted | KeyboardInterrupt
            known = isinstance(error, ours)
            if not known and isinstance(error, Exception):
                error = ConfigError([*self.faults, *overrides.from_hydra(error).faults])
            self.codes.append(conclude(error))

    @property
    def exit_code(self) -> int:
        """A signal's before a failure's before bad input's."""
        signalled = [code for code in self.codes if code > BAD_INPUT]
        return signalled[0] if signalled else FAILED if FAILED in self.codes else max(self.codes, default=DONE)


def _sweep_directories(prepared: Sequence[str], scratch: str) -> list[str]:
    """What Hydra writes of a sweep goes to a temporary place; what we write, to one directory for all of its jobs."""
    given = {argument.lstrip("+").split("=")[0] for argument in prepared}
    defaults = {"hydra.sweep.dir": scratch, "++sweep_dir": f"outputs/sweeps/{new_name()}"}
    return [f"{key}={path}" for key, path in defaults.items() if key.lstrip("+") not in given]


def _run(composed: DictConfig, faults: Sequence[Fault]) -> str:
    """One run, from a composed config, and how it went; `faults` are those already known of its overrides."""
    context = HydraConfig.get()
    number = context.job.num if context.mode == RunMode.MULTIRUN else None
    typed = [override.lstrip("+") for override in context.overrides.task]
    raw, unresolved = overrides.resolve(composed, typed)
    known = [*faults, *unresolved]
    try:
        if known:
            _raise_with_all(raw, known)
        return _carry_out(raw, typed, number)
    except ConfigError as error:
        raise overrides.at_variables(composed, error) from None


def _carry_out(raw: Mapping[str, Any], typed: Sequence[str], number: int | None) -> str:
    """Train, or make the report that `debug` asks for."""
    mode = raw.get("debug")
    if mode in debug.REPORTS:
        heading = f"{_typed(typed)}\n" if number is not None else ""
        try:
            return heading + debug.run(raw, str(mode))
        except DebugFailed as error:
            raise DebugFailed(f"{heading}{error}") from None
    return _told(experiment.run(raw, typed, number), typed if number is not None else [])


def _raise_with_all(raw: Mapping[str, Any], known: Sequence[Fault]) -> NoReturn:
    """Raise the faults known already together with those that the schema finds in other places."""
    places = {fault.place for fault in known}
    try:
        schema.parse(raw)
    except ConfigError as error:
        raise ConfigError([*known, *(fault for fault in error.faults if fault.place not in places)]) from None
    raise ConfigError(known)


def _typed(overrides: Sequence[str]) -> str:
    """What makes a job of a sweep different, as it was typed."""
    return " ".join(override for override in overrides if not override.startswith("sweep_dir="))


def _told(result: experiment.Result, overrides: Sequence[str]) -> str:
    """How a run went and where it lies, in a few lines."""
    summary = result.summary
    best, test = summary["best"], summary["test"]
    lines = [_typed(overrides)] if overrides else []
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
        paths = find_pictures(options.images)
    except InputError as error:
        return conclude(error)
    exit_code = DONE
    for path in paths:
        try:
            prediction = predictor.predict(path)
        except ImageError as error:
            exit_code = BAD_INPUT
            if options.json:
                print(json.dumps({"path": str(path), "error": str(error)}))
            else:
                conclude(error)
            continue
        if options.json:
            print(json.dumps(prediction.as_json(options.top)))
        elif len(paths) == 1:
            print(prediction.in_words(options.top))
        else:
            print(prediction.in_a_line())
    return exit_code


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed, give a whole number >= 1")
    return int(text)


def guarded(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """The command's exit code; 1 where nobody reads what it prints, a signal's, all without a traceback."""
    ask_on_signals()
    if sys.stderr.isatty():
        ops.before_compiling(lambda: tqdm.write(COMPILING, file=sys.stderr))
    try:
        exit_code = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Interrupted as interruption:
        return interruption.exit_code
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC) or error.filename:
            raise
        if error.errno == errno.ENOSPC:
            print(f"error: what was to be printed can't be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return FAILED
    return exit_code
