"""Going on with a run that ended too early, in its own directory and to the same bits: `run.py resume=RUN`."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from cnn.faults import ConfigError, Fault
from cnn.schedules import RunLength, Schedule
from cnn.text import show
from runners.config import extensions
from runners.config.overrides import given_twice
from runners.config.saved import flat, with_typed
from runners.config.schema import Config
from runners.data import Dataset
from runners.errors import CheckpointError, DataError, RunDirectoryError, printable, short, typed_path
from runners.files import atomic, checkpoint
from runners.files.checkpoint import Checkpoint
from runners.files.run_directory import RunDirectory
from runners.files.status import now, read_status, state
from runners.signals import watch_signals
from runners.training import setup, snapshot
from runners.training.experiment import Experiment, carry_out, versions
from runners.training.loop import Plan
from runners.training.progress import Progress
from runners.training.result import Result

log = logging.getLogger(__name__)

ASKED = re.compile(r"\+{0,2}resume=")
"""How an argument begins that asks for a resume."""
FIXED = ("task", "extensions", "dtype", "debug", "experiment", "run_dir", "sweep_dir", "init_from")
"""What a resume can't change at all."""
HARMLESS = ("patience", "checkpoint.every_steps", "data.path")
"""What changes nothing that a run computes: when it ends and is saved, and where its data lie, which are compared."""
MOST_COMPARED = 1000
"""At so many steps of a run its learning rates are compared with those of one with more epochs."""
BETWEEN_EPOCHS = ("batch_size", "accumulate", "seed", "data")
"""What decides which examples, with which noise, the steps of an epoch see."""


def resume(path: Path, typed: Sequence[str] = (), *, may_change: bool = False) -> Result | None:
    """Go on with a run, its config changed by what is typed.

    None: it is finished, there is nothing to do. Raises ConfigError or InputError, with the run as it was, for what
    can't be resumed, and where something typed changes what the run computes and `may_change` is false.
    """
    with watch_signals() as watch, RunDirectory.open(path) as directory:
        files, typed = extensions.load_typed(typed)
        saved, file = _read(path)
        _require_extensions(saved, files)
        _warn_of_edits(path, saved)
        raw = with_typed(saved.config, typed, lambda key: _refusal(key, [*FIXED, *saved.networks]))
        changed = _changed(saved.config, raw)
        if directory.told("state", "") == "done" and not changed:
            return None
        config = setup.prepare(raw, begins=False)
        decisive = _decisive(changed, saved, config)
        if not may_change:
            _require_none(path, {key: changed[key] for key in decisive})
        config, dataset = setup.load(config)
        _require_data(dataset, saved, may_change)
        task = setup.build(config, dataset)
        progress = snapshot.restore(saved, config, task)
        plan = setup.plan_training(config, dataset)
        other_data = dataset.fingerprint != saved.data.fingerprint
        _require_place(progress, plan, [*changed, *(["data"] if other_data else [])])
        if directory.told("state", "") == "done" and plan.is_done(progress):
            return None
        _warn_of_versions(directory, config)
        same_course = not decisive and not other_data
        try:
            _settle_checkpoints(directory, saved, file, progress, same_course)
        except OSError as error:
            raise RunDirectoryError(f"{error.filename or path}: can't be written: {error.strerror}") from None
        watch.check()
        told = {"time": now(), "epoch": progress.epoch, "step": progress.step, "overrides": list(typed)}
        return carry_out(Experiment(config, dataset, task, progress), directory, watch, resumed=told)


def latest_unfinished(outputs: Path = Path("outputs")) -> Path:
    """The run that was saved last of those that aren't done, haven't diverged, and that no process works on.

    Raises RunDirectoryError.
    """
    saved: dict[Path, float] = {}
    for file in (
        *outputs.rglob(f"checkpoints/{checkpoint.LAST}"),
        *outputs.rglob(f"checkpoints/{checkpoint.PREVIOUS}"),
    ):
        with suppress(FileNotFoundError):  # of a run that is at work
            saved[file.parent.parent] = max(file.stat().st_mtime, saved.get(file.parent.parent, 0))
    unfinished = [
        run for run in saved if state(run) in ("interrupted", "died", "failed") and not read_status(run).get("diverged")
    ]
    if not unfinished:
        raise RunDirectoryError(f"resume: there is no unfinished run in {outputs}, give resume=RUN")
    return max(unfinished, key=lambda run: saved[run])


def _read(path: Path) -> tuple[Checkpoint, Path]:
    """The state to go on from, and its file. Raises CheckpointError for none, or one that doesn't fit together."""
    if not any((path / "checkpoints" / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        if (path / "checkpoints" / "best.pkl").exists():
            hint = f"begin a new run from its best weights with {typed_path('init_from', path)}"
            raise CheckpointError(f"{path}: its checkpoints last and previous are gone; {hint}")
        raise CheckpointError(f"{path}: the run ended before its first step, begin it anew (overrides.yaml says how)")
    saved, file = checkpoint.load_last(path)
    for name, network in saved.networks.items():
        section = saved.config.get(name)
        if not isinstance(section, Mapping) or section.get("layers") != network.model.get("layers"):
            raise CheckpointError(f"{path}: the {name} in the checkpoint's config isn't that of its weights")
    return saved, file


def _require_extensions(saved: Checkpoint, typed: Sequence[str]) -> None:
    """Raise ConfigError where the run uses files that aren't typed again: a saved config imports nothing."""
    used = saved.config.get("extensions")
    if used and not typed:
        files = ",".join([used] if isinstance(used, str) else map(str, used))
        problem = "this run uses files of its own, which are imported only where they are typed"
        raise ConfigError([Fault("extensions", f"{problem}: add extensions=[{files}]")])


def _warn_of_edits(path: Path, saved: Checkpoint) -> None:
    """Somebody may have edited config.yaml and believe that it counts; or put another run's checkpoint here."""
    try:
        told = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    differing = list(_changed(saved.config, told)) if isinstance(told, dict) else []
    if differing:
        names = short(", ".join(differing[:3]) + (", ..." if len(differing) > 3 else ""))
        log.warning(
            "warning: %s: isn't the checkpoint's config, which a resume takes (%s); type what is to change",
            printable(path / "config.yaml"),
            names,
        )


def _refusal(key: str, fixed: Collection[str]) -> str | None:
    if key.split(".")[0] in fixed:
        return "can't be changed in a resume; begin a new run from these weights with init_from=RUN"
    return None


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with both of them."""
    old, new = flat(before), flat(after)
    return {key: (old.get(key), new.get(key)) for key in [*new, *old] if old.get(key) != new.get(key)}


def _decisive(changed: Mapping[str, tuple[Any, Any]], saved: Checkpoint, config: Config) -> list[str]:
    """The changes that change what the run computes; of a section that names something else, only the name."""
    others = {key.removesuffix(".name") for key in changed if key.endswith(".name")}
    return [
        key
        for key in changed
        if key not in HARMLESS
        and (key != "epochs" or _rates_differ(saved, config))
        and (key.endswith(".name") or key.split(".")[0] not in others)
    ]


def _require_none(path: Path, decisive: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ConfigError where there is a change of what the run computes."""
    faults = [
        Fault(
            key,
            f"{show(after)} and not {show(before)} changes what this run computes: "
            f"add resume_changed=true to go on so, or begin a new run with {typed_path('init_from', path)}",
        )
        for key, (before, after) in decisive.items()
    ]
    if faults:
        raise ConfigError(faults)


def _rates_differ(saved: Checkpoint, config: Config) -> bool:
    """Whether another number of epochs changes the learning rate of any step that both numbers have."""
    epochs = int(saved.config["epochs"]), config.settings.epochs
    return any(_depends_on_epochs(config.schedule(name), *epochs) for name in saved.networks)


def _depends_on_epochs(schedule: Schedule, few: int, many: int) -> bool:
    length = schedule.warmup_steps + 100  # of an epoch: whatever it is, rates depend on the number or they don't
    before, after = RunLength(length, few), RunLength(length, many)
    shorter = min(before.steps, after.steps)
    steps = {*range(0, shorter, -(-shorter // MOST_COMPARED)), shorter - 1}
    return any(schedule(1.0, step, before) != schedule(1.0, step, after) for step in steps)


def _require_data(dataset: Dataset, saved: Checkpoint, may_change: bool) -> None:
    """Raise DataError for images of another shape, and for other files than those that the run has seen."""
    if list(dataset.input_shape) != saved.data.input_shape:
        raise DataError(
            f"data: its images are {list(dataset.input_shape)}, the run's network takes {saved.data.input_shape}"
        )
    if dataset.fingerprint != saved.data.fingerprint and not may_change:
        now, before = dataset.fingerprint[:12], saved.data.fingerprint[:12]
        raise DataError(
            f"data: not the files that this run has seen (fingerprint {now}..., then {before}...): "
            "put those back, or add resume_changed=true"
        )


def _require_place(progress: Progress, plan: Plan, changed: Sequence[str]) -> None:
    """Raise ConfigError or CheckpointError where the config doesn't lead on from where the run stands."""
    faults = []
    if plan.length.epochs < progress.epoch:
        faults.append(Fault("epochs", f"{plan.length.epochs} is not allowed, {progress.epoch} are done already"))
    if progress.steps:
        here = (
            f"the run stands behind step {progress.steps} of epoch {progress.epoch + 1}, this can change between epochs"
        )
        faults += [Fault(key, here) for key in changed if key.split(".")[0] in BETWEEN_EPOCHS and key not in HARMLESS]
    if faults:
        raise ConfigError(faults)
    if progress.steps > plan.length.steps_per_epoch:
        raise CheckpointError(
            f"the checkpoint tells of {progress.steps} steps in an epoch of {plan.length.steps_per_epoch}"
        )


def _settle_checkpoints(
    directory: RunDirectory, saved: Checkpoint, file: Path, progress: Progress, same_course: bool
) -> None:
    """Have `last` be the state that the run goes on from, and `best` that of its best epoch so far.

    `last` may have been broken, and `best` may be lost, or that of an epoch that was done and not yet told of. Raises
    CheckpointError where there is no `best` to go on with.
    """
    if progress.rows:
        problem = _why_not_best(directory.checkpoint("best"), progress, same_course)
        if problem and (progress.steps or progress.best is not progress.rows[-1]):
            hint = f"begin a new run from the last weights with {typed_path('init_from', directory.checkpoint('last'))}"
            raise CheckpointError(f"{problem}; {hint}")
        if problem:
            checkpoint.save(directory.checkpoint("best"), saved)
    if file.name != checkpoint.LAST:
        file.replace(directory.checkpoint("last"))
        atomic.sync(file.parent)


def _why_not_best(file: Path, progress: Progress, same_course: bool) -> str | None:
    """What is wrong with the best weights so far."""
    number = int(progress.best["epoch"])
    try:
        best = checkpoint.load(file)
    except CheckpointError as error:
        return f"{error}: the weights of epoch {number}, the best so far, are lost"
    if best.epoch > progress.epoch and same_course:
        return None  # the same epoch comes again, and the same weights
    if not best.progress.rows or best.progress.rows[-1] != progress.best:
        return f"{file}: of epoch {best.epoch} of another course of this run, not of epoch {number}, the best so far"
    return None


def _warn_of_versions(directory: RunDirectory, config: Config) -> None:
    told = {**directory.told("versions", {}), "device": directory.told("device", "")}
    for name, now_used in {**versions(), "device": str(config.device)}.items():
        if told.get(name, now_used) not in (now_used, ""):
            log.warning(
                "warning: %s is %s now and was %s: the last bits of numbers may differ", name, now_used, told[name]
            )


def parse_arguments(arguments: Sequence[str]) -> tuple[str, list[str], bool]:
    """The run, what is typed beside it, and whether it may change what the run computes. Raises ConfigError."""
    run, typed, may_change, faults = "", [], False, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        key = key.lstrip("+")
        if key == "resume":
            faults += given_twice(key, run or value, value)
            run = run or value
        elif key == "resume_changed":
            may_change = value == "true"
            if value not in ("true", "false"):
                faults.append(Fault(key, f"{show(value)} is not allowed, give true or false"))
        elif argument in ("-m", "--multirun"):
            faults.append(Fault(argument, "a sweep can't be resumed as one, resume each of its jobs: resume=SWEEP/0"))
        elif argument.startswith("-"):
            faults.append(Fault(argument, "can't stand beside resume=RUN"))
        else:
            typed.append(argument)
    if not run:
        faults.append(Fault("resume", "must be a run directory, or auto"))
    if faults:
        raise ConfigError(faults)
    return run, typed, may_change
