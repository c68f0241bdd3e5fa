"""debug=summary, gradcheck and overfit: describe and check the configured networks, without a run directory."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cnn import Mode
from cnn.arguments import model_of
from cnn.faults import ConfigError, Fault
from cnn.gradients.network import EXAMPLES, DiagnosisFailed, Finding, diagnose
from cnn.layer import Layer
from cnn.layers import LAYERS
from cnn.layers.dropout import Dropout
from cnn.ops import NotFinite
from cnn.schedules import RunLength
from cnn.text import columns
from runners.config.schema import NETWORK_SECTIONS, Config
from runners.data import Description
from runners.data.batches import Batch
from runners.errors import DebugFailed
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task
from runners.training import setup

MAX_STEPS = 2000


def run(raw: Mapping[str, Any], mode: str) -> str:
    """The report on a resolved config. Raises ConfigError, InputError, and DebugFailed with the report."""
    return REPORTS[mode](setup.prepare(raw))


def _description(config: Config, task: Task) -> Description:
    """The shape and classes of the data, which are only read if their kind doesn't determine these."""
    data = config.source().description
    if len(task.input_shapes(data)) == len(task.networks):
        return data
    _, dataset = setup.load(config)
    setup.check_compatibility(config, dataset)
    return dataset.description


def _task(config: Config, dtype: torch.dtype) -> tuple[Task, Description]:
    """The task with its networks, and the description of its data."""
    task = config.task()
    data = _description(config, task)
    task.build(setup.networks(config, task, data, dtype), config.loss())
    setup.start_from(task.graphs, config.settings)
    return task, data


def _summary(config: Config) -> str:
    task, _ = _task(config, config.dtype)
    setup.freeze(task.graphs, config.settings)
    return setup.summary(task)


def _gradcheck(config: Config) -> str:
    """A line for each layer, for the loss, and for the whole network."""
    if config.device.type == "mps":
        raise ConfigError([Fault("device", "mps has no float64, which gradcheck needs: give cpu")])
    task, data = _task(config, torch.float64)
    reports: list[str] = []
    wrong: list[str] = []
    for name, graph in task.graphs.items():
        scored, loss, target = task.loss_check(name, data, EXAMPLES)
        findings: list[Finding] = []
        try:
            for finding in _with_progress(diagnose(graph, scored, loss, target, seed=config.settings.seed % 2**31)):
                findings.append(finding)
        except DiagnosisFailed as error:
            shown = setup.headed(task, name, _findings(findings))
            raise DebugFailed("\n".join([*reports, shown, str(error)])) from error
        reports.append(setup.headed(task, name, _findings(findings)))
        prefix = f"{name}." if len(task.networks) > 1 else ""
        wrong += [f"{prefix}{finding.name}" for finding in findings if finding.wrong]
    report = "\n\n".join(reports)
    if wrong:
        raise DebugFailed(f"{report}\nwrong: {', '.join(wrong)}")
    return f"{report}\nall gradients agree with finite differences ({config.settings.kernels} kernels, float64)"


def _with_progress(findings: Iterator[Finding]) -> Iterator[Finding]:
    return iter(tqdm(findings, unit="layer", disable=None, leave=False, file=sys.stderr))


def _findings(findings: Sequence[Finding]) -> str:
    """A table of the findings, with wrong gradients marked."""
    cells = [("layer", "input", "worst error", "of the gradient of", "")]
    cells += [
        (f.name, str(list(f.input_shape)), f"{f.error:.1e}", f.gradient, "WRONG" if f.wrong else "") for f in findings
    ]
    lines = columns(cells)
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _overfit(config: Config) -> str:
    """Train on one batch until its loss is small: a network that can't even memorise that is faulty."""
    config, dataset = setup.load(_without_regularisers(config))
    count = min(config.settings.batch_size, len(dataset.train))
    alone = replace(dataset, train=dataset.train.select(np.arange(count)))
    task, _ = setup.start(config, alone)
    if task.learnt(0)[0] not in (metric.name for metric in task.metrics):
        raise ConfigError([Fault("debug", f"overfit needs a metric loss, but the task {task.kind} has none")])
    batch = next(setup.batches(config, alone, "train").in_order())
    kinds = {task.variant(index): index for index in reversed(range(MAX_STEPS))}
    return "\n".join(_learn(task, first, batch, config) for first in sorted(kinds.values()))


def _learn(task: Task, first: int, batch: Batch, config: Config) -> str:
    """Take steps of one kind, that of step `first`, on one batch. Raises DebugFailed if its loss stays large."""
    name, wanted = task.learnt(first)
    of_which = "" if name == "loss" else f"{name.removesuffix('_loss')}: "
    step, loss = 0, math.inf
    with tqdm(total=MAX_STEPS, unit="step", disable=None, leave=False, file=sys.stderr) as bar:
        for step, loss in enumerate(_losses(task, first, batch, config)):
            if loss < wanted:
                return f"{of_which}one batch of {len(batch)} examples learnt: loss {loss:.1e} after {step} steps"
            if not math.isfinite(loss):
                break
            bar.update()
    raise DebugFailed(
        f"{of_which}one batch of {len(batch)} examples not learnt: loss {loss:.3g} after {step} steps, "
        f"wanted below {wanted:g}; try another optimizer.lr, then debug=gradcheck"
    )


def _losses(task: Task, first: int, batch: Batch, config: Config) -> Iterator[float]:
    """The loss before each of up to MAX_STEPS steps of one kind on one batch, always with the same noise.

    Ends with infinity if a value isn't finite.
    """
    name, _ = task.learnt(first)
    mode = Mode(train=True, generator=torch.Generator(config.device))
    of_this_kind = (index for index in itertools.count() if task.variant(index) == task.variant(first))
    indices = list(itertools.islice(of_this_kind, MAX_STEPS))
    for index in indices:
        assert mode.generator is not None
        mode.generator.manual_seed(config.settings.seed)
        sums = Sums()
        try:
            task.train_step([batch], Step(index, RunLength(indices[-1] + 1, 1), mode), sums)
        except NotFinite:
            yield math.inf
            return
        yield sums.means("train")[f"train/{name}"]


def _without_regularisers(config: Config) -> Config:
    """The config without regularisation, which prevents memorising, and with a learning rate that falls to 0."""
    raw = config.raw
    sections = [key for key in raw if key.endswith(NETWORK_SECTIONS)]
    changed: dict[str, Any] = {
        "accumulate": 1,
        "loss": _zero(raw["loss"], "label_smoothing"),
        "task": _zero(raw["task"], "beta"),
    }
    for section in sections:
        changed[section] = {"name": "cosine"} if section.endswith("schedule") else _zero(raw[section], "weight_decay")
    for name in config.task().networks:
        changed[name] = {**raw[name], "layers": _without_dropout(raw[name]["layers"])}
    return config.changed(**changed)


def _zero(section: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {**section, key: 0.0} if key in section else dict(section)


def _without_dropout(value: Any) -> Any:
    """A list of layers with `p: 0` in each layer derived from Dropout, at any depth."""
    if isinstance(value, list):
        return [_without_dropout({item: None} if isinstance(item, str) and _drops(item) else item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {key: {**(item or {}), "p": 0.0} if _drops(key) else _without_dropout(item) for key, item in value.items()}


def _drops(kind: str) -> bool:
    layer: Any = LAYERS.get(kind, Layer)
    return issubclass(layer, Dropout) and "p" in model_of(layer).model_fields


REPORTS: dict[str, Callable[[Config], str]] = {"summary": _summary, "gradcheck": _gradcheck, "overfit": _overfit}
