"""debug=summary, gradcheck and overfit: what a configured network is, and whether it can learn. No run directory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cnn import Mode, Sequential, build_model
from cnn.faults import ConfigError, Fault
from cnn.gradients.network import EXAMPLES, DiagnosisFailed, Finding, diagnose
from cnn.layers.dropout import Dropout
from cnn.summary import summarise, table
from runners import preparation
from runners.data.batches import Batches
from runners.errors import DebugFailed
from runners.schema import Config
from runners.tasks.classification import Totals, one_hot

ENOUGH = 1e-3
MOST_STEPS = 2000


def run(raw: Mapping[str, Any], mode: str) -> str:
    """The report on a resolved config. Raises ConfigError, InputError, and DebugFailed with the report."""
    return REPORTS[mode](preparation.prepare(raw))


def _shape_and_classes(config: Config) -> tuple[tuple[int, ...], int]:
    """What the data look like; they are only read where their kind doesn't tell."""
    data = config.data
    if data.known_shape and data.known_classes:
        return data.known_shape, data.known_classes
    dataset = data.load()
    preparation.require_fit(config, dataset)
    return dataset.input_shape, len(dataset.class_names)


def _network(config: Config, input_shape: tuple[int, ...], dtype: torch.dtype) -> Sequential:
    try:
        network = build_model(config.model, input_shape, seed=config.settings.seed, dtype=dtype, device=config.device)
    except ConfigError as error:
        raise error.inside("model") from None
    if config.settings.init_from:
        preparation.start_from(network, config.settings.init_from)
    return network


def _summary(config: Config) -> str:
    input_shape, _ = _shape_and_classes(config)
    return table(summarise(_network(config, input_shape, config.dtype)))


def _gradcheck(config: Config) -> str:
    """A line for each layer, the loss, and all of it together."""
    if config.device.type == "mps":
        raise ConfigError([Fault("device", "mps has no float64, which gradcheck needs: give cpu")])
    input_shape, classes = _shape_and_classes(config)
    network = _network(config, input_shape, torch.float64)
    counting = [
        c for c in range(classes) if config.loss.share(torch.tensor([c])) > 0
    ]  # classes of weight 0 teach nothing
    labels = torch.tensor([counting[(7 * n + 3) % len(counting)] for n in range(EXAMPLES)], device=config.device)
    like = torch.empty(classes, EXAMPLES, dtype=torch.float64, device=config.device)
    target = labels if config.loss.targets == "classes" else one_hot(labels, like)
    scored = network.without_last(config.loss.contains)
    findings: list[Finding] = []
    try:
        for finding in _with_progress(
            diagnose(network, scored, config.loss, target, seed=config.settings.seed % 2**31)
        ):
            findings.append(finding)
    except DiagnosisFailed as error:
        raise DebugFailed(f"{_findings(findings)}\n{error}") from error
    wrong = [finding.name for finding in findings if finding.wrong]
    report = _findings(findings)
    if wrong:
        raise DebugFailed(f"{report}\nwrong: {', '.join(wrong)}")
    return f"{report}\nall gradients agree with finite differences ({config.settings.kernels} kernels, float64)"


def _with_progress(findings: Iterator[Finding]) -> Iterator[Finding]:
    return iter(tqdm(findings, unit="layer", disable=None, leave=False, file=sys.stderr))


def _findings(findings: Sequence[Finding]) -> str:
    """A table of what was found, the wrong ones marked."""
    cells = [("layer", "input", "worst error", "of the gradient of", "")]
    cells += [
        (f.name, str(list(f.input_shape)), f"{f.error:.1e}", f.gradient, "WRONG" if f.wrong else "") for f in findings
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _overfit(config: Config) -> str:
    """Train on one batch until its loss is small: a network that can't even learn that by heart has a fault."""
    config.schedule.warmup_steps = 0
    config = replace(config, settings=config.settings.model_copy(update={"accumulate": 1}))
    dataset = config.data.load()
    count = min(config.settings.batch_size, len(dataset.train))
    alone = replace(dataset, train=dataset.train.select(np.arange(count)))
    network = preparation.start(config, alone)
    _turn_off_regularisers(config, network)
    batches = Batches(alone.train, count, mean=dataset.mean, std=dataset.std, dtype=config.dtype, device=config.device)
    batch = next(batches.in_order())
    task = config.task(network, config.loss)
    mode = Mode(train=True, generator=torch.Generator(config.device).manual_seed(config.settings.seed))
    step, loss = 0, math.inf
    with tqdm(total=MOST_STEPS, unit="step", disable=None, leave=False, file=sys.stderr) as bar:
        for step in range(MOST_STEPS):
            totals = Totals()
            lr = config.optimizer.lr * (1 + math.cos(math.pi * step / MOST_STEPS)) / 2
            task.train_step([batch], config.optimizer, lr, totals, mode=mode)
            loss = totals.means("train")["train/loss"]
            if loss < ENOUGH:
                return f"one batch of {count} examples learnt: loss {loss:.1e} after {step} steps"
            if not math.isfinite(loss):
                break
            bar.update()
    raise DebugFailed(
        f"one batch of {count} examples not learnt: loss {loss:.3g} after {step} steps, wanted below {ENOUGH:g}; "
        "try another optimizer.lr, then debug=gradcheck"
    )


def _turn_off_regularisers(config: Config, network: Sequential) -> None:
    for part, name in ((config.optimizer, "weight_decay"), (config.loss, "label_smoothing")):
        if hasattr(part, name):
            setattr(part, name, 0.0)
    for _, layer in network.named_layers():
        if isinstance(layer, Dropout):
            layer.p = 0.0


REPORTS: dict[str, Callable[[Config], str]] = {"summary": _summary, "gradcheck": _gradcheck, "overfit": _overfit}
