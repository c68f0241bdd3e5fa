"""From a config to a finished run directory: the one place where everything is wired together."""

from __future__ import annotations

import io
import logging
import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Sequential
from cnn.layers.conv import Conv
from cnn.ops.cpu.codegen.compiler import COMPILER
from cnn.summary import summarise, table
from runners import checkpoint, metrics, preparation, snapshot
from runners.data import Dataset, Examples
from runners.data.augmentation import Augmentation
from runners.data.batches import Batches
from runners.divergence import Diverged
from runners.errors import RunFailed, typed_path
from runners.loop import Plan, evaluate, train
from runners.metrics import Row
from runners.progress import Progress
from runners.run_directory import RunDirectory, new_name, now
from runners.schema import Config
from runners.signals import Interrupted, SignalWatch, watch_signals
from runners.tasks.classification import confusion

log = logging.getLogger(__name__)
MOST_CLASSES_DRAWN = 40


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
    config = preparation.prepare(raw)
    with watch_signals() as watch:
        dataset = preparation.load(config)
        network = preparation.start(config, dataset)
        watch.check()
        with RunDirectory.make(_path(config, sweep_job), overrides) as directory:
            return carry_out(config, dataset, network, Progress(), directory, watch)


def carry_out(
    config: Config,
    dataset: Dataset,
    network: Sequential,
    progress: Progress,
    directory: RunDirectory,
    watch: SignalWatch,
    *,
    resumed: Mapping[str, Any] | None = None,
) -> Result:
    """Train and test from where progress, network, optimizer and schedule stand.

    `resumed` tells of a resume, for status.json. Raises RunFailed for what breaks down on the way, and Interrupted.
    """
    with _recorded(directory, config, dataset):
        if resumed:
            directory.status("running", resumed=[*directory.told("resumed", []), resumed])
            log.info("resumed after step %d with %s", progress.step, resumed["overrides"] or "nothing changed")
        summary = _train_and_test(config, network, dataset, progress, directory, watch)
    try:
        watch.check()
    except Interrupted as signal:
        signal.done = directory.path
        raise
    return Result(directory.path, summary, config.data.val_split == "test")


def _path(config: Config, sweep_job: int | None) -> Path:
    settings = config.settings
    if sweep_job is not None and settings.sweep_dir:
        return Path(settings.sweep_dir) / str(sweep_job)
    return Path(settings.run_dir or f"outputs/{new_name()}")


@contextmanager
def _recorded(directory: RunDirectory, config: Config, dataset: Dataset) -> Iterator[None]:
    """Keep the directory's config, log and status true, however the run ends."""
    root = logging.getLogger("runners")
    handler = None
    try:
        directory.write_yaml("config.yaml", config.saved)
        directory.status(
            "running",
            diverged=False,
            started=directory.told("started", now()),
            seed=config.settings.seed,
            device=str(config.device),
            threads=config.threads,
            data_fingerprint=dataset.fingerprint,
            versions=versions(),
        )
        handler = directory.open_log()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        yield
    except Interrupted as signal:
        log.warning("interrupted by %s; the state is saved in checkpoints/last.pkl", signal.name)
        with suppress(OSError):
            directory.status("interrupted", reason=signal.name)
        signal.run = directory.path
        raise
    except Exception as error:
        foreseen = isinstance(error, Diverged)
        if handler:
            log.error("the run failed: %s", error, exc_info=not foreseen)
        reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk, or a directory that is gone: the failure itself is what counts
            directory.status("failed", reason=reason, diverged=foreseen)
        where = "" if foreseen or not handler else f" (traceback in {directory.path / 'run.log'})"
        if isinstance(error, OSError) and directory.checkpoint("last").exists():
            where += f"; python run.py {typed_path('resume', directory.path)} goes on from the last save"
        raise RunFailed(f"the run failed: {reason}{where}") from error
    finally:
        if handler:
            root.removeHandler(handler)
            handler.close()


def versions() -> dict[str, str]:
    """Of what a run's numbers depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, **COMPILER}


def _train_and_test(
    config: Config,
    network: Sequential,
    dataset: Dataset,
    progress: Progress,
    directory: RunDirectory,
    watch: SignalWatch,
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

    def save(which: str) -> None:
        checkpoint.save(directory.checkpoint(which), snapshot.take(config, network, dataset, progress))

    task = config.task(network, config.loss)
    plan = preparation.plan_training(config, dataset)
    evaluated_at_once = preparation.evaluation_batch(dataset.input_shape)
    _tell_summary(network, len(dataset.train))
    train(
        task,
        plan,
        progress,
        batches(dataset.train, settings.batch_size, config.augment),
        batches(dataset.val, evaluated_at_once),
        directory,
        save,
        watch,
    )
    network.load_state(checkpoint.tensors(checkpoint.load(directory.checkpoint("best")).weights))
    predicted, totals = evaluate(task, batches(dataset.test, evaluated_at_once), watch.check)
    test = totals.means("test")
    if not math.isfinite(test["test/loss"]):
        raise Diverged.at(task.first_fault(batches(dataset.test, evaluated_at_once).in_order()), "in the test")
    summary = _summary(progress, plan, test, network)
    directory.write_json("summary.json", summary)
    directory.status("done")
    try:
        _draw(directory, network, dataset, predicted)
    except Exception as error:  # the run is done, with or without pictures
        log.exception("the figures could not be drawn")
        print(f"warning: the figures could not be drawn: {error}", file=sys.stderr)
    log.info("best val accuracy %.4f, test accuracy %.4f", progress.best["val/accuracy"], test["test/accuracy"])
    return summary


def _tell_summary(network: Sequential, examples: int) -> None:
    """What is trained: into the log, and where somebody watches also onto the terminal."""
    text = table(summarise(network))
    log.info("%d parameters, %d training examples\n%s", network.flat.data.numel(), examples, text)
    if sys.stderr.isatty():
        with suppress(OSError):  # a terminal that is gone stops no run
            print(text, file=sys.stderr)


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
            png = io.BytesIO()
            figure.savefig(png, format="png")
            directory.write_figure(name, png.getvalue())


def _summary(progress: Progress, plan: Plan, test: Row, network: Sequential) -> dict[str, Any]:
    def shown(row: Row) -> Row:
        return {name: value for name, value in row.items() if not name.endswith("seconds")}

    return {
        "best": shown(progress.best),
        "final": shown(progress.rows[-1]),
        "test": test,
        "parameters": network.flat.data.numel(),
        "steps": progress.step,
        "stopped_early": progress.epoch < plan.clock.epochs,
        "seconds": sum(row["seconds"] for row in progress.rows),
        "images_per_second": progress.images_per_second,
    }
