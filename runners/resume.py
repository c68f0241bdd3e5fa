"""Going on with a run that ended too early, in its own directory and to the same bits: `run.py resume=RUN`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.arguments import ConfigError, Fault, show
from cnn.schedules import Clock
from runners import checkpoint, preparation, saved_config, snapshot
from runners.checkpoint import Checkpoint
from runners.data import Dataset
from runners.errors import CheckpointError, DataError, RunDirectoryError
from runners.experiment import Result, carry_out, versions
from runners.loop import Plan
from runners.progress import Progress
from runners.run_directory import RunDirectory, now, state
from runners.schema import Config
from runners.signals import SignalWatch, watch_signals

log = logging.getLogger(__name__)

FIXED = ("model", "task", "dtype", "debug", "experiment", "run_dir", "sweep_dir", "init_from")
"""What a resume can't change at all."""
HARMLESS = ("patience", "checkpoint.every_steps")
"""What decides when a run ends or is saved, and nothing that it computes."""
BETWEEN_EPOCHS = ("batch_size", "accumulate", "seed", "data")
"""What decides which examples, with which noise, the steps of an epoch see."""


def resume(path: Path, typed: Sequence[str] = (), *, may_change: bool = False) -> Result | None:
    """Go on with a run, its config changed by what is typed.

    None: it is finished, there is nothing to do. Raises ConfigError or InputError, with the run as it was, for what
    can't be resumed, and where something typed changes what the run computes and `may_change` is false.
    """
    with watch_signals() as watch, RunDirectory.open(path) as directory:
        saved = _read(path)
        raw = saved_config.with_typed(saved.config, typed, _refusal)
        changed = _changed(saved.config, raw)
        if directory.told("state") == "done" and not changed:
            return None
        config = preparation.prepare(raw)
        if not may_change:
            _require_unchanged(path, changed, saved, config)
        return _go_on(directory, saved, config, list(typed), changed, watch, may_change)


def latest_unfinished(outputs: Path = Path("outputs")) -> Path:
    """The run that was saved last of those that aren't done and that no process works on. Raises RunDirectoryError."""
    saved = {file.parent.parent: file.stat().st_mtime for file in outputs.rglob("checkpoints/last.pkl")}
    unfinished = [run for run in saved if state(run) not in ("done", "running")]
    if not unfinished:
        raise RunDirectoryError(f"resume: there is no unfinished run in {outputs}, give resume=RUN")
    return max(unfinished, key=lambda run: saved[run])


def _read(path: Path) -> Checkpoint:
    """The state to go on from. Raises CheckpointError where there is none, or where it doesn't fit together."""
    if not any((path / "checkpoints" / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        raise CheckpointError(f"{path}: the run ended before its first step, begin it anew (overrides.yaml says how)")
    saved = checkpoint.load_run(path, "last")
    checkpoint.rebuild(saved)
    if saved.config.get("model", {}).get("layers") != saved.model["layers"]:
        raise CheckpointError(f"{path}: the model in the checkpoint's config isn't that of its weights")
    return saved


def _refusal(key: str) -> str | None:
    if key.split(".")[0] in FIXED:
        return "can't be changed in a resume; begin a new run from these weights with init_from=RUN"
    return None


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with both of them."""
    old, new = saved_config.flat(before), saved_config.flat(after)
    return {key: (old.get(key), new.get(key)) for key in [*new, *old] if old.get(key) != new.get(key)}


def _require_unchanged(path: Path, changed: Mapping[str, tuple[Any, Any]], saved: Checkpoint, config: Config) -> None:
    """Raise ConfigError where a change is one of what the run computes."""
    matters = [key for key in changed if key not in HARMLESS and (key != "epochs" or _rates_differ(saved, config))]
    faults = [
        Fault(
            key,
            f"{show(changed[key][1])} and not {show(changed[key][0])} changes what this run computes: "
            f"add resume_changed=true to go on so, or begin a new run with init_from={path}",
        )
        for key in matters
    ]
    if faults:
        raise ConfigError(faults)


def _rates_differ(saved: Checkpoint, config: Config) -> bool:
    """Whether another number of epochs changes the learning rate of any step that both numbers have."""
    length = config.schedule.warmup_steps + 100  # of an epoch: whatever it is, rates depend on the number or they don't
    before, after = (Clock(length, epochs) for epochs in (int(saved.config["epochs"]), config.settings.epochs))
    steps = range(0, min(before.steps, after.steps), max(1, length // 100))
    return any(config.schedule(1.0, step, before) != config.schedule(1.0, step, after) for step in steps)


def _go_on(
    directory: RunDirectory,
    saved: Checkpoint,
    config: Config,
    typed: list[str],
    changed: Mapping[str, Any],
    watch: SignalWatch,
    may_change: bool,
) -> Result | None:
    dataset = preparation.load(config)
    _require_data(dataset, saved, may_change)
    network = preparation.build(config, dataset)
    progress = snapshot.restore(saved, config, network)
    plan = preparation.plan_training(config, dataset)
    _require_place(progress, plan, changed)
    if directory.told("state") == "done" and plan.is_done(progress):
        return None
    _warn_of_versions(directory)
    watch.check()
    told = {"time": now(), "epoch": progress.epoch, "step": progress.step, "overrides": typed}
    return carry_out(config, dataset, network, progress, directory, watch, resumed=told)


def _require_data(dataset: Dataset, saved: Checkpoint, may_change: bool) -> None:
    """Raise DataError for images of another shape, and for other files than those that the run has seen."""
    if list(dataset.input_shape) != saved.input_shape:
        raise DataError(
            f"data: its images are {list(dataset.input_shape)}, the run's network takes {saved.input_shape}"
        )
    if dataset.fingerprint != saved.data_fingerprint and not may_change:
        now, before = dataset.fingerprint[:12], saved.data_fingerprint[:12]
        raise DataError(
            f"data: not the files that this run has seen (fingerprint {now}..., then {before}...): "
            "put those back, or add resume_changed=true"
        )


def _require_place(progress: Progress, plan: Plan, changed: Mapping[str, Any]) -> None:
    """Raise ConfigError or CheckpointError where the config doesn't lead on from where the run stands."""
    faults = []
    if plan.clock.epochs < progress.epoch:
        faults.append(Fault("epochs", f"{plan.clock.epochs} is not allowed, {progress.epoch} are done already"))
    if progress.steps:
        here = (
            f"the run stands behind step {progress.steps} of epoch {progress.epoch + 1}, this can change between epochs"
        )
        faults += [Fault(key, here) for key in changed if key.split(".")[0] in BETWEEN_EPOCHS]
    if faults:
        raise ConfigError(faults)
    if progress.steps > plan.clock.steps_per_epoch:
        raise CheckpointError(
            f"the checkpoint tells of {progress.steps} steps in an epoch of {plan.clock.steps_per_epoch}"
        )


def _warn_of_versions(directory: RunDirectory) -> None:
    for name, version in versions().items():
        before = directory.told("versions", {}).get(name)
        if before != version:
            log.warning("warning: %s is %s now and was %s: the last bits of numbers may differ", name, version, before)


def parse_arguments(arguments: Sequence[str]) -> tuple[str, list[str], bool]:
    """The run, what is typed beside it, and whether it may change what the run computes. Raises ConfigError."""
    run, typed, may_change, faults = "", [], False, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "resume" and run not in ("", value):
            faults.append(Fault(key, f"given twice, as {run} and as {value}: give it once"))
        elif key == "resume":
            run = value
        elif key == "resume_changed":
            may_change = value == "true"
            if value not in ("true", "false"):
                faults.append(Fault(key, f"{show(value)} is not allowed, give true or false"))
        elif argument in ("-m", "--multirun"):
            faults.append(Fault(argument, "a sweep can't be resumed as one, resume each of its jobs: resume=SWEEP/0"))
        else:
            typed.append(argument)
    if not run:
        faults.append(Fault("resume", "must be a run directory, or auto"))
    if faults:
        raise ConfigError(faults)
    return run, typed, may_change
