"""From a config to a finished run directory: the one place where everything is wired together."""

from __future__ import annotations

import logging
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
from cnn.summary import summarise, table
from runners import checkpoint, metrics, preparation
from runners.data import Dataset, Examples
from runners.data.augmentation import Augmentation
from runners.data.batches import Batches
from runners.divergence import Diverged, finite
from runners.loop import History, Plan, evaluate, train
from runners.metrics import Row
from runners.run_directory import RunDirectory, new_name, now
from runners.schema import Config
from runners.signals import Interrupted, SignalWatch, watch_signals
from runners.tasks.classification import confusion

log = logging.getLogger(__name__)
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
    config = preparation.prepare(raw)
    with watch_signals() as watch:
        dataset = config.data.load()
        if config.settings.debug == "fast":
            dataset = preparation.shortened(config, dataset)
        network = preparation.build(config, dataset)
        watch.check()
        directory = RunDirectory(_path(config, sweep_job))
        with _recorded(directory, config, dataset, overrides):
            summary = _train_and_test(config, network, dataset, directory, watch)
        watch.check()
    return Result(directory.path, summary, config.data.val_split == "test")


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
        foreseen = isinstance(error, Diverged)
        log.error("the run failed: %s", error, exc_info=not foreseen)
        reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk, or a directory that is gone: the failure itself is what counts
            directory.status("failed", reason=reason)
        where = "" if foreseen else f" (traceback in {directory.path / 'run.log'})"
        raise RunFailed(f"the run failed: {reason}{where}") from error
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
        if not finite(network.flat.data):
            raise Diverged(f"the weights aren't finite after step {row['step']}; the checkpoints before them are kept")
        checkpoint.save(directory.checkpoint(which), _checkpoint(config, network, dataset, row))

    task = config.task(network, config.loss)
    plan = Plan(
        preparation.clock(config, dataset),
        settings.seed,
        config.optimizer,
        config.schedule,
        settings.accumulate,
        settings.clip_grad_norm,
        settings.patience,
    )
    _tell_summary(network, len(dataset.train))
    history = train(
        task,
        plan,
        batches(dataset.train, settings.batch_size, config.augment),
        batches(dataset.val, preparation.evaluation_batch(dataset.input_shape)),
        directory,
        save,
        watch,
    )
    network.load_state(checkpoint.tensors(checkpoint.load(directory.checkpoint("best")).weights))
    predicted, totals = evaluate(task, batches(dataset.test, preparation.evaluation_batch(dataset.input_shape)))
    test = totals.means("test")
    summary = _summary(history, test, network)
    directory.write_json("summary.json", summary)
    try:
        _draw(directory, network, dataset, predicted)
    except Exception:  # the run is done, with or without pictures
        log.exception("the figures could not be drawn")
    log.info("best val accuracy %.4f, test accuracy %.4f", history.best["val/accuracy"], test["test/accuracy"])
    return summary


def _tell_summary(network: Sequential, examples: int) -> None:
    """What is trained: into the log, and where somebody watches also onto the terminal."""
    text = table(summarise(network))
    log.info("%d parameters, %d training examples\n%s", network.flat.data.numel(), examples, text)
    if sys.stderr.isatty():
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
