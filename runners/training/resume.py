"""Resume a run that ended early, in its own directory and with bit-identical results: `run.py resume=RUN`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cnn.faults import ConfigError, Fault
from cnn.schedules import RunLength, Schedule
from cnn.text import show
from runners.config import extensions
from runners.config.saved import changes, with_overrides
from runners.config.schema import Config
from runners.data import Dataset
from runners.errors import CheckpointError, DataError, RunDirectoryError, printable, shell_argument, short
from runners.files import atomic, checkpoint
from runners.files.content import Checkpoint
from runners.files.run_directory import RunDirectory
from runners.files.status import now
from runners.signals import raising_signals, watch_signals
from runners.training import devices, judging, origin, setup, snapshot
from runners.training.experiment import Experiment, carry_out, print_data, run
from runners.training.loop import Plan
from runners.training.progress import Progress
from runners.training.result import NothingLeft, Result

log = logging.getLogger(__name__)

FIXED = ("task", "extensions", "dtype", "debug", "experiment", "run_dir", "sweep_dir", "init_from", "init_missing")
"""Keys that a resume can't change at all."""
HARMLESS = ("name", "tags", "patience", "checkpoint.every_steps", "capture", "data.path", "extensions", "tracker")
"""Keys that don't change what a run computes: its name, when it ends and is saved, where its data are, its trackers."""
THREADS = ("threads", "threads_fixed")
"""Keys that don't change it either with compiled kernels, whose sums don't depend on the number of threads."""
MAX_STEPS_COMPARED = 1000
"""Learning rates with different numbers of epochs are compared at about this many steps."""
BETWEEN_EPOCHS = ("batch_size", "accumulate", "seed", "data")
"""Keys that determine the examples and the noise of an epoch's steps."""


def resume(path: Path, overrides: Sequence[str] = (), *, may_change: bool = False) -> Result | NothingLeft:
    """Resume a run, with overrides of its config. A finished run with no epochs left to train isn't changed.

    Raises ConfigError or InputError, and leaves the run unchanged, if it can't be resumed, or if an override changes
    what the run computes and `may_change` is false.
    """
    with watch_signals() as watch, RunDirectory.open(path) as directory:
        files, overrides = extensions.load_from_arguments(overrides)
        saved, file = _read(path)
        _check_extensions(saved, files, may_change)
        _warn_of_edits(path, saved)
        raw = with_overrides(saved.config, overrides, lambda key: _refusal(key, [*FIXED, *saved.networks]))
        if files and saved.config.get("extensions") not in (files, *files):
            raw["extensions"] = files  # they may be elsewhere now
        changed = changes(saved.config, raw)
        done = directory.saved_status("state", "") == "done"
        if done and not changed:
            stopped_early = saved.epoch < saved.config["epochs"]
            return NothingLeft(path, saved.config.get("patience") if stopped_early else None)
        config = setup.prepare(raw, begins=False)
        result_changes = _result_changes(changed, saved, config)
        if not may_change:
            _refuse_changes(path, {key: changed[key] for key in result_changes})
        config, dataset = setup.load(config)
        _check_data(dataset, saved, may_change)
        task = setup.build(config, dataset)
        watch.check()
        with raising_signals():
            judging.equip(task, config.raw, dataset, run)
        progress = snapshot.restore(saved, config, task)
        plan = setup.plan_training(config, dataset)
        other_data = dataset.fingerprint != saved.data.fingerprint
        _check_position(progress, plan, [*changed, *(["data"] if other_data else [])])
        if done and plan.is_done(progress):
            return NothingLeft(path, plan.patience if plan.length.epochs > progress.epoch else None)
        _warn_of_versions(directory, config)
        same_course = not result_changes and not other_data
        try:
            _settle_checkpoints(directory, saved, file, progress, same_course)
        except OSError as error:
            raise RunDirectoryError(f"{error.filename or path}: can't be written: {error.strerror}") from None
        watch.check()
        print_data(dataset)
        entry = {"time": now(), "epoch": progress.epoch, "step": progress.step, "overrides": list(overrides)}
        entry["commit"] = origin.changes().commit
        return carry_out(Experiment(config, dataset, task, progress), directory, watch, resumed=entry)


def _read(path: Path) -> tuple[Checkpoint, Path]:
    """The checkpoint to resume from, and its file. Raises CheckpointError if there is none, or an inconsistent one."""
    if not any((path / "checkpoints" / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        if (path / "checkpoints" / "best.pkl").exists():
            hint = f"start a new run from its best weights with {shell_argument('init_from', path)}"
            raise CheckpointError(f"{path}: its checkpoints last and previous are gone; {hint}")
        raise CheckpointError(
            f"{path}: the run ended before its first step, start it again (its overrides are in overrides.yaml)"
        )
    saved, file = checkpoint.load_last(path)
    for name, network in saved.networks.items():
        section = saved.config.get(name)
        if not isinstance(section, Mapping) or section.get("layers") != network.model.get("layers"):
            raise CheckpointError(f"{path}: the {name} in the checkpoint's config doesn't match its weights")
    return saved, file


def _check_extensions(saved: Checkpoint, given: Sequence[str], may_change: bool) -> None:
    """Raise ConfigError if the run's own files aren't given again, or are others: a saved config imports nothing."""
    if saved.files and not given:
        files = ",".join(saved.files)
        problem = "this run uses files of its own, which are only imported if they are given again"
        raise ConfigError([Fault("extensions", f"{problem}: add extensions=[{files}]")])
    if given and not may_change and extensions.digests(given) != saved.extensions:
        problem = "not the files that this run was trained with, or they were edited since"
        raise ConfigError([Fault("extensions", f"{problem}: give those, or add resume_changed=true")])


def _warn_of_edits(path: Path, saved: Checkpoint) -> None:
    """Warn if config.yaml has been edited, which has no effect, or if the checkpoint is another run's."""
    try:
        edited = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    differing = list(changes(saved.config, edited)) if isinstance(edited, dict) else []
    if differing:
        names = short(", ".join(differing[:3]) + (", ..." if len(differing) > 3 else ""))
        log.warning(
            "warning: %s: differs from the checkpoint's config, which a resume uses (%s); give changes as arguments",
            printable(path / "config.yaml"),
            names,
        )


def _refusal(key: str, fixed: Collection[str]) -> str | None:
    if key.split(".")[0] in fixed:
        return "can't be changed in a resume; start a new run from these weights with init_from=RUN"
    return None


def _result_changes(changed: Mapping[str, tuple[Any, Any]], saved: Checkpoint, config: Config) -> list[str]:
    """The changes that affect what the run computes; for a section with a new `name`, only the name."""
    harmless = (*HARMLESS, *(THREADS if config.settings.kernels == "compiled" else ()))
    others = {key.removesuffix(".name") for key in changed if key.endswith(".name")}
    return [
        key
        for key in changed
        if not {key, key.split(".")[0]} & {*harmless}
        and (key != "epochs" or _rates_differ(saved, config))
        and (key.endswith(".name") or key.split(".")[0] not in others)
    ]


def _refuse_changes(path: Path, result_changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ConfigError if any change affects what the run computes."""
    faults = [
        Fault(
            key,
            f"changing it from {show(before)} to {show(after)} affects what this run computes: "
            f"add resume_changed=true to allow it, or start a new run with {shell_argument('init_from', path)}",
        )
        for key, (before, after) in result_changes.items()
    ]
    if faults:
        raise ConfigError(faults)


def _rates_differ(saved: Checkpoint, config: Config) -> bool:
    """Whether the new number of epochs changes the learning rate of any step that both runs have."""
    epochs = int(saved.config["epochs"]), config.settings.epochs
    return any(_depends_on_epochs(config.schedule(name), *epochs) for name in saved.networks)


def _depends_on_epochs(schedule: Schedule, few: int, many: int) -> bool:
    length = schedule.warmup_steps + 100  # per epoch; any length shows whether rates depend on epochs
    before, after = RunLength(length, few), RunLength(length, many)
    shorter = min(before.steps, after.steps)
    steps = {*range(0, shorter, -(-shorter // MAX_STEPS_COMPARED)), shorter - 1}
    return any(schedule(1.0, step, before) != schedule(1.0, step, after) for step in steps)


def _check_data(dataset: Dataset, saved: Checkpoint, may_change: bool) -> None:
    """Raise DataError if the images have another shape, or if the files aren't the ones that the run used."""
    if list(dataset.input_shape) != saved.data.input_shape:
        raise DataError(
            f"data: its images are {list(dataset.input_shape)}, but the network takes {saved.data.input_shape}"
        )
    if dataset.fingerprint != saved.data.fingerprint and not may_change:
        now, before = dataset.fingerprint[:12], saved.data.fingerprint[:12]
        raise DataError(
            f"data: not the files that this run used (fingerprint {now}..., previously {before}...): "
            "restore them, or add resume_changed=true"
        )


def _check_position(progress: Progress, plan: Plan, changed: Sequence[str]) -> None:
    """Raise ConfigError or CheckpointError if the run can't continue from its progress with this config."""
    faults = []
    if plan.length.epochs < progress.epoch:
        faults.append(Fault("epochs", f"{plan.length.epochs} is not allowed, {progress.epoch} are already done"))
    if progress.steps:
        stopped = f"the run stopped after step {progress.steps} of epoch {progress.epoch + 1}"
        here = f"can only change between epochs, but {stopped}"
        faults += [Fault(key, here) for key in changed if key.split(".")[0] in BETWEEN_EPOCHS and key not in HARMLESS]
    if faults:
        raise ConfigError(faults)
    if progress.steps > plan.length.steps_per_epoch:
        raise CheckpointError(f"the checkpoint has {progress.steps} steps in an epoch of {plan.length.steps_per_epoch}")


def _settle_checkpoints(
    directory: RunDirectory, saved: Checkpoint, file: Path, progress: Progress, same_course: bool
) -> None:
    """Make sure that `last` is the checkpoint that the run resumes from, and `best` that of its best epoch so far.

    `last` may have been broken. `best` may be lost, or from an epoch that `last` doesn't include yet. Raises
    CheckpointError if `best` is needed and can't be restored.
    """
    if progress.rows:
        problem = _why_not_best(directory.checkpoint("best"), progress, same_course)
        if problem and (progress.steps or progress.best is not progress.rows[-1]):
            last = shell_argument("init_from", directory.checkpoint("last"))
            hint = f"start a new run from the last weights with {last}"
            raise CheckpointError(f"{problem}; {hint}")
        if problem:
            checkpoint.save(directory.checkpoint("best"), saved)
    if file.name != checkpoint.LAST:
        file.replace(directory.checkpoint("last"))
        atomic.sync(file.parent)


def _why_not_best(file: Path, progress: Progress, same_course: bool) -> str | None:
    """Why the file isn't the best checkpoint so far, or None."""
    number = int(progress.best["epoch"])
    try:
        best = checkpoint.load(file)
    except CheckpointError as error:
        return f"{error}: the weights of epoch {number}, the best so far, are lost"
    if best.epoch > progress.epoch and same_course:
        return None  # the epoch will be repeated, with the same weights
    if not best.progress.rows or best.progress.rows[-1] != progress.best:
        return f"{file}: from epoch {best.epoch} of a different course of this run, the best is from epoch {number}"
    return None


def _warn_of_versions(directory: RunDirectory, config: Config) -> None:
    """Warn of what the last bits of results depend on, if the run has used something else before."""
    before = directory.saved_status("versions", {}) | {"device": _device_before(directory, config)}
    used = devices.versions(config.device) | {"device": _device_now(config)}
    for name, now_used in used.items():
        if before.get(name, now_used) not in (now_used, ""):
            log.warning(
                "warning: %s is now %s instead of %s: results may differ in their last bits",
                name,
                now_used,
                before[name],
            )


def _device_now(config: Config) -> str:
    return devices.described(str(config.device), devices.gpu_name(config.device))


def _device_before(directory: RunDirectory, config: Config) -> str:
    """The device that a run was on, or empty if that isn't known; if only its card isn't known, the one of today."""
    device = directory.saved_status("device", "")
    if device == str(config.device) and not directory.saved_status("device_name", ""):
        return _device_now(config)
    return devices.described(device, directory.saved_status("device_name", ""))
