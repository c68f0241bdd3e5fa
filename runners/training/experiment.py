"""From a config to a finished run directory: the place where everything is wired together."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from cnn.schedules import RunLength
from runners.config.schema import Config
from runners.data import Dataset
from runners.files import checkpoint, metrics_csv
from runners.files.metrics_csv import Row
from runners.files.paths import user_path
from runners.files.run_directory import RunDirectory, new_name
from runners.signals import Interrupted, SignalWatch, raising_signals, watch_signals
from runners.tasks.task import Task
from runners.training import devices, judging, origin, setup, snapshot, trial
from runners.training.capturing import Evaluations
from runners.training.loop import Loop, evaluate, metrics_of
from runners.training.pictures import Snapshots, write_pictures
from runners.training.progress import Progress
from runners.training.recorder import PRUNED, Console, Listener, Recorder, RunFiles, announce
from runners.training.recording import Experiment as Experiment
from runners.training.recording import monitor, recorded
from runners.training.result import Result
from runners.training.tracking import Trackers

log = logging.getLogger(__name__)


def run(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Result:
    """Train and test what a resolved config describes.

    Raises ConfigError or InputError before a run directory is created; later errors are recorded there first.
    """
    config = setup.prepare(raw)
    with watch_signals() as watch:
        config, dataset = setup.load(config)
        task, left_out = setup.start(config, dataset)
        watch.check()
        with raising_signals():  # it may wait for another process that makes the judge
            judging.equip(task, config.raw, dataset, run)
        watch.check()
        path = user_path(config.settings.run_dir or f"outputs/{new_name()}")
        with RunDirectory.make(path, overrides) as directory:
            print_data(dataset)
            begun = {"origin": origin.origin(overrides)}
            return carry_out(Experiment(config, dataset, task, Progress.of(task), left_out, begun), directory, watch)


def carry_out(
    experiment: Experiment, directory: RunDirectory, watch: SignalWatch, *, resumed: Mapping[str, Any] | None = None
) -> Result:
    """Train an experiment from its current progress, then test it.

    `resumed` describes a resume, for status.json. Raises RunFailed if anything fails, and Interrupted.
    """
    with recorded(directory, experiment, watch) as trackers:
        if resumed:
            directory.status("running", resumed=[*directory.saved_status("resumed", []), resumed])
            log.info(
                "resumed after step %d with %s", experiment.progress.step, resumed["overrides"] or "nothing changed"
            )
        devices.reset_peak_memory(experiment.config.device)
        reason = _train(experiment, directory, watch, trackers)
        memory = devices.peak_memory(experiment.config.device)
        result = _test(experiment, directory, watch, {} if memory is None else {"gpu_memory_bytes": memory})
        if reason and reason.startswith(PRUNED):
            directory.status(PRUNED, reason=reason, result=result.as_line())
        else:
            directory.status("done", result=result.as_line())
        trackers.finish(result.summary)
    try:
        watch.check()
    except Interrupted as signal:
        signal.done = directory.path
        raise
    return result


def _train(experiment: Experiment, directory: RunDirectory, watch: SignalWatch, trackers: Trackers) -> str | None:
    """Train the remaining epochs; returns why a listener has stopped it, if one has."""
    config, dataset = experiment.config, experiment.dataset
    task, progress = experiment.task, experiment.progress
    plan = setup.plan_training(config, dataset)
    log.info(dataset.as_text())
    columns = ["epoch", "step", *task.rate_columns().values(), *task.columns(), *metrics_csv.TIMING]
    files = RunFiles(directory, columns, lambda: snapshot.take(config, task, dataset, progress))
    recorder = Recorder(files, [*listeners(task, plan.length, directory), *trackers.listeners(columns)])
    train, val = (setup.batches(config, dataset, split) for split in ("train", "val"))
    for text in experiment.left_out:
        log.info("%s %s", setup.LEFT_OUT, text)
    _log_summary(task, len(dataset.train))
    for note in devices.notes(config.settings, config.device):
        announce(f"note: {note}")
    for warning in task.warnings():
        announce(f"warning: {warning}")
    Loop(task, plan, progress, train, val, recorder, watch).run()
    return recorder.reason


def listeners(task: Task, length: RunLength, directory: RunDirectory) -> list[Listener]:
    """The listeners of a run, besides its own files."""
    return [Console(task, length), Snapshots(task, directory), *trial.listeners(directory.path, length.epochs)]


def _test(experiment: Experiment, directory: RunDirectory, watch: SignalWatch, facts: dict[str, Any]) -> Result:
    """Measure the best weights on the test examples; write the summary and figures. `facts`: of the training."""
    config, dataset = experiment.config, experiment.dataset
    task, progress = experiment.task, experiment.progress
    best = checkpoint.load(directory.checkpoint("best"))
    for name, graph in task.graphs.items():
        graph.load_state(checkpoint.tensors(best.networks[name].weights))
    task.load_state(best.task_state)
    batches = setup.batches(config, dataset, "test")
    evaluations = Evaluations(task, capture=config.settings.capture, borrows=True)
    outputs, sums = evaluate(task, batches, watch.check, evaluations)
    test = metrics_of(task, "test", (outputs, sums), int(progress.best["epoch"]), batches)
    summary = _summary(experiment, test) | facts
    directory.write_json("summary.json", summary)
    try:
        _draw(experiment, directory, outputs)
    except Exception as error:  # the run will be done, with or without figures
        log.exception("the figures could not be drawn")
        print(f"warning: the figures could not be drawn: {error}", file=sys.stderr)
    log.info("epoch %d is the best: %s; test: %s", progress.best["epoch"], _values(progress.best), _values(test))
    return Result(directory.path, summary, type(task), dataset.validated_on_test)


def _draw(experiment: Experiment, directory: RunDirectory, outputs: Tensor) -> None:
    """Write the figures and pictures. matplotlib is imported only here, as that takes half a second."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from runners.tasks import figures

    rows = metrics_csv.read(directory.metrics)
    curves = {"curves": figures.curves(rows, experiment.task.metrics)}
    for name, figure in (curves | experiment.task.figures(experiment.dataset, outputs)).items():
        png = io.BytesIO()
        FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]  # savefig would draw it twice
        directory.write_figure(name, png.getvalue())
    write_pictures(experiment.task, directory)


def _summary(experiment: Experiment, test: Row) -> dict[str, Any]:
    def shown(row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in ("seconds", "step_seconds")}

    progress, task = experiment.progress, experiment.task
    return {
        **_names(experiment.config),
        "monitor": monitor(task),
        "best": shown(progress.best),
        "final": shown(progress.rows[-1]),
        "test": test,
        **task.facts(),
        "parameters": sum(graph.flat.data.numel() for graph in task.graphs.values()),
        "steps": progress.step,
        "stopped_early": progress.epoch < experiment.config.settings.epochs,
        "seconds": sum(row["seconds"] for row in progress.rows),
        "images_per_second": progress.images_per_second,
    }


def _values(row: Row) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in row.items() if "/" in name)


def _names(config: Config) -> dict[str, Any]:
    """What a person calls the run, if anything."""
    names = {"name": config.raw.get("name"), "tags": config.raw.get("tags")}
    return {key: value for key, value in names.items() if value}


def print_data(dataset: Dataset) -> None:
    """Print what is trained on: data that were misunderstood train without an error."""
    with suppress(OSError):  # a closed output doesn't stop a run
        print(dataset.as_text(), flush=True)


def _log_summary(task: Task, examples: int) -> None:
    """Log a summary of the networks; print it too if stderr is a terminal."""
    text = setup.summary(task)
    count = sum(graph.flat.data.numel() for graph in task.graphs.values())
    log.info("%d parameters, %d training examples\n%s", count, examples, text)
    if sys.stderr.isatty():
        with suppress(OSError):  # a closed terminal doesn't stop a run
            print(text, file=sys.stderr)
