"""From a config to a finished run directory: the one place where everything is wired together."""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Mode, Sequential, build_model, ops, plan_model
from cnn.arguments import ConfigError, Fault
from cnn.layers.conv import Conv
from cnn.schedules import Clock
from runners import checkpoint, metrics
from runners.data import Dataset, Examples
from runners.data.augmentation import Augmentation
from runners.data.batches import Batches
from runners.errors import CheckpointError
from runners.loop import History, Plan, evaluate, train
from runners.metrics import Row
from runners.run_directory import RunDirectory, new_name, now
from runners.schema import Config, parse
from runners.signals import Interrupted, SignalWatch, watch_signals
from runners.tasks.classification import confusion

log = logging.getLogger(__name__)
EVALUATION_BATCH = 256
MOST_CLASSES_DRAWN = 40


class RunFailed(Exception):
    """A run broke down after it had begun; its directory tells how."""


@dataclass(frozen=True)
class Result:
    """A run that is done: where it lies and what its summary.json says."""

    directory: Path
    summary: Mapping[str, Any]
    validated_on_test: bool


def run(raw: Mapping[str, Any], overrides: Sequence[str] = (), sweep_job: int | None = None) -> Result:
    """Train and test what a resolved config describes.

    Raises ConfigError or InputError before a run directory is made; whatever comes later is written into it first.
    """
    config = parse(raw)
    ops.use_kernels(config.settings.kernels)
    ops.set_threads(config.threads)
    if config.data.known_shape and config.data.known_classes:
        _plan(config, config.data.known_shape, config.data.known_classes)  # config faults come before data is opened
    with watch_signals() as watch:
        dataset = config.data.load()
        network = _build(config, dataset)
        _check_last_batch(config, network, dataset)
        _check_schedule(config, _clock(config, dataset))
        watch.check()
        directory = RunDirectory(_path(config, sweep_job))
        with _recorded(directory, config, dataset, overrides):
            summary = _train_and_test(config, network, dataset, directory, watch)
        watch.check()
    return Result(directory.path, summary, config.data.val_split == "test")


def _plan(config: Config, input_shape: tuple[int, ...], classes: int) -> None:
    """Raise ConfigError where network or loss don't fit such inputs or so many classes."""
    try:
        config.loss.require_classes(classes)
    except ConfigError as error:
        raise error.inside("loss") from None
    try:
        network = plan_model(config.model, input_shape)
    except ConfigError as error:
        raise error.inside("model") from None
    given = network.output_shape(input_shape)
    if given != (classes,):
        last = list(network.layers)[-1]
        problem = f"the last, {last}, gives {list(given)}, the data have {classes} classes: give [{classes}]"
        raise ConfigError([Fault("model.layers", problem)])


def _build(config: Config, dataset: Dataset) -> Sequential:
    _plan(config, dataset.input_shape, len(dataset.class_names))
    seed, dtype = config.settings.seed, config.dtype
    try:
        network = build_model(config.model, dataset.input_shape, seed=seed, dtype=dtype, device=config.device)
    except ConfigError as error:
        raise error.inside("model") from None
    if config.settings.init_from:
        _start_from(network, config.settings.init_from)
    return network


def _start_from(network: Sequential, run: str) -> None:
    try:
        file = checkpoint.locate(run)
        network.load_state(checkpoint.tensors(checkpoint.load(file).weights))
    except CheckpointError as error:
        raise CheckpointError(f"init_from: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"init_from: {file}: {error}") from None


def _check_last_batch(config: Config, network: Sequential, dataset: Dataset) -> None:
    """Refuse a last batch of one example where a layer can't train on it, before it fails in mid-epoch."""
    size = config.settings.batch_size
    if len(dataset.train) % size != 1 and size != 1:
        return
    x = torch.zeros(*dataset.input_shape, 1, dtype=config.dtype, device=config.device)
    try:
        network.rehearse(x, Mode(train=True, keep_cache=False))
    except ValueError as error:
        raise ConfigError([Fault("batch_size", f"{size} leaves a last batch of one example: {error}")]) from None


def _clock(config: Config, dataset: Dataset) -> Clock:
    settings = config.settings
    return Clock(-(-len(dataset.train) // (settings.batch_size * settings.accumulate)), settings.epochs)


def _check_schedule(config: Config, clock: Clock) -> None:
    """Refuse a warm-up that never ends, and a learning rate that overflows at the end of the run or of warm-up."""
    warmup, lr = config.schedule.warmup_steps, config.optimizer.lr
    if warmup >= clock.steps:
        problem = f"{warmup} is not allowed, the run has {clock.steps} steps: give fewer"
        raise ConfigError([Fault("schedule.warmup_steps", problem)])
    if not all(math.isfinite(config.schedule(lr, step, clock)) for step in (warmup, clock.steps - 1)):
        raise ConfigError(
            [Fault("schedule", f"the learning rate grows beyond all bounds within {clock.epochs} epochs")]
        )


def _path(config: Config, sweep_job: int | None) -> Path:
    settings = config.settings
    if sweep_job is not None and settings.sweep_dir:
        return Path(settings.sweep_dir) / str(sweep_job)
    return Path(settings.run_dir or f"outputs/{new_name()}")


@contextmanager
def _recorded(directory: RunDirectory, config: Config, dataset: Dataset, overrides: Sequence[str]) -> Iterator[None]:
    """Keep the directory's config, log and status true, however the run ends."""
    directory.write_yaml("config.yaml", {**config.raw, "threads": config.threads})
    directory.write_yaml("overrides.yaml", list(overrides))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    directory.status(
        "running",
        started=now(),
        seed=config.settings.seed,
        device=str(config.device),
        threads=config.threads,
        data_fingerprint=dataset.fingerprint,
        versions=versions,
    )
    handler = directory.open_log()
    root = logging.getLogger("runners")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
        directory.status("done")
    except Interrupted as signal:
        log.warning("interrupted by %s; the state is saved in checkpoints/last.pkl", signal.name)
        directory.status("interrupted", reason=signal.name)
        raise
    except Exception as error:
        log.exception("the run failed")
        reason = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk, or a directory that is gone: the failure itself is what counts
            directory.status("failed", reason=reason)
        raise RunFailed(f"the run failed: {reason} (traceback in {directory.path / 'run.log'})") from error
    finally:
        root.removeHandler(handler)
        handler.close()


def _train_and_test(
    config: Config, network: Sequential, dataset: Dataset, directory: RunDirectory, watch: SignalWatch
) -> Mapping[str, Any]:
    settings = config.settings

    def batches(examples: Examples, size: int, augmentation: Augmentation | None = None) -> Batches:
        return Batches(
            examples,
            size,
            mean=dataset.mean,
            std=dataset.std,
            dtype=config.dtype,
            device=config.device,
            augmentation=augmentation,
        )

    def save(which: str, row: Row) -> None:
        checkpoint.save(directory.checkpoint(which), _checkpoint(config, network, dataset, row))

    task = config.task(network, config.loss)
    plan = Plan(
        _clock(config, dataset),
        settings.seed,
        config.optimizer,
        config.schedule,
        settings.accumulate,
        settings.clip_grad_norm,
        settings.patience,
    )
    log.info("%d parameters, %d training examples", network.flat.data.numel(), len(dataset.train))
    history = train(
        task,
        plan,
        batches(dataset.train, settings.batch_size, config.augment),
        batches(dataset.val, EVALUATION_BATCH),
        directory,
        save,
        watch,
    )
    network.load_state(checkpoint.tensors(checkpoint.load(directory.checkpoint("best")).weights))
    predicted, totals = evaluate(task, batches(dataset.test, EVALUATION_BATCH))
    test = totals.means("test")
    summary = _summary(history, test, network)
    directory.write_json("summary.json", summary)
    try:
        _draw(directory, network, dataset, predicted)
    except Exception:  # the run is done, with or without pictures
        log.exception("the figures could not be drawn")
    log.info("best val accuracy %.4f, test accuracy %.4f", history.best["val/accuracy"], test["test/accuracy"])
    return summary


def _draw(directory: RunDirectory, network: Sequential, dataset: Dataset, predicted: Tensor) -> None:
    """Write the figures. matplotlib is loaded only here: it takes half a second."""
    from runners import figures

    count = len(dataset.class_names)
    matrix = confusion(dataset.test.labels, predicted, count)
    convolutions = [layer for _, layer in network.named_layers() if isinstance(layer, Conv)]
    drawn = {
        "curves": figures.curves(metrics.read(directory.metrics)),
        "confusion": figures.confusion(matrix, dataset.class_names) if count <= MOST_CLASSES_DRAWN else None,
        "mistakes": figures.mistakes(dataset, predicted),
        "filters": figures.filters(convolutions[0].weight.data) if convolutions else None,
    }
    for name, figure in drawn.items():
        if figure:
            figure.savefig(directory.figure(name))


def _checkpoint(config: Config, network: Sequential, dataset: Dataset, row: Row) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(
        weights=checkpoint.arrays(network.state()),
        model={"layers": config.model["layers"]},
        input_shape=list(dataset.input_shape),
        dtype=config.settings.dtype,
        loss=config.loss.kind,
        preparation=dataset.preparation,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        config={**config.raw, "threads": config.threads},
        epoch=int(row["epoch"]),
        step=int(row["step"]),
        optimizer=checkpoint.arrays(config.optimizer.state()),
        schedule=config.schedule.state(),
    )


def _summary(history: History, test: Row, network: Sequential) -> dict[str, Any]:
    def shown(row: Row) -> Row:
        return {name: value for name, value in row.items() if not name.endswith("seconds")}

    return {
        "best": shown(history.best),
        "final": shown(history.final),
        "test": test,
        "parameters": network.flat.data.numel(),
        "steps": history.final["step"],
        "stopped_early": history.stopped_early,
        "seconds": history.seconds,
        "images_per_second": history.images_per_second,
    }
