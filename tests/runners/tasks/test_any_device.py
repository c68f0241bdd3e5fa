"""Training steps and evaluations of tasks on a device other than the CPU: could they be captured as CUDA graphs?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.peers import PEERS
from cnn import Graph, Mode, build_model, ops
from cnn.arguments import construct
from cnn.losses import LOSSES
from cnn.optimizers import Adam
from cnn.schedules import Constant, RunLength
from runners.data.batches import Batch
from runners.tasks.classification import _whole
from runners.tasks.regression import Regression
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task
from tests import generators
from tests.any_device import DEVICE, Uncapturable, moved, run_captured, tensor
from tests.classifier import classifier
from tests.cnn.test_trajectory import shipped

COUNT = 6
ADVERSARIAL = [kind for kind, loss in LOSSES.items() if loss.targets == "real"]


def on_device(task: Task) -> Task:
    """Move a task to the device, with its optimizers."""
    rules = {name: (part.optimizer, part.schedule) for name, part in task.trained.items()}
    task.build({name: moved(graph) for name, graph in task.graphs.items()}, task.loss)
    task.train_with(rules)
    return task


def batch_of(*shape: int, targets: tuple[int, ...] = ()) -> Batch:
    """Pictures with classes, or with values of this shape as targets."""
    of_classes = tensor(COUNT, dtype=torch.int64)
    return Batch(tensor(*shape, COUNT, dtype=torch.float64), tensor(*targets, COUNT) if targets else of_classes)


def take_steps(task: Task, batches: list[Batch], indices: range = range(1)) -> None:
    for index in indices:
        sums = Sums()
        task.train_step(batches, Step(index, RunLength(10, 1), Mode(train=True), max_norm=1.0), sums)
        Sums().merge(sums)


def evaluate(task: Task, batch: Batch) -> None:
    task.evaluate(batch, Sums())


CLASSIFIERS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind, loss in LOSSES.items() if loss.targets != "real"),
    ("cross_entropy", {"weight": [0.5, 1.0, 0.0, 2.0], "label_smoothing": 0.1}),
    ("bce_with_logits", {"pos_weight": [0.5, 1.0, 0.0, 2.0]}),
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("loss", "arguments"), CLASSIFIERS, ids=str)
def test_classification_is_capturable(loss: str, arguments: dict[str, Any], groups: int) -> None:
    layers = ["flatten", {"linear": {"out_features": 4}}]
    network = build_model({"layers": layers}, (1, 6, 6), dtype=torch.float64)
    task = on_device(classifier(network, construct(LOSSES[loss], arguments), Adam()))
    run_captured(lambda: take_steps(task, [batch_of(1, 6, 6)] * groups))
    run_captured(lambda: evaluate(task, batch_of(1, 6, 6)))


def test_the_examples_of_several_processes_are_counted_on_the_device() -> None:
    seen: list[torch.device] = []
    mode = Mode(train=True, reduce=lambda shared: seen.append(shared.device))
    assert _whole([3, 4], Step(0, RunLength(1, 1), mode), DEVICE) is not None
    assert seen == [DEVICE]


@pytest.mark.parametrize("model", PEERS)
def test_shipped_models_are_capturable(model: str) -> None:
    network = build_model(shipped(model), (1, 28, 28), dtype=torch.float64)
    task = on_device(classifier(network, LOSSES["cross_entropy"](), Adam()))
    run_captured(lambda: take_steps(task, [batch_of(1, 28, 28)]))
    run_captured(lambda: evaluate(task, batch_of(1, 28, 28)))


def regression(loss: str, **options: Any) -> Task:
    task = Regression(**options)
    layers = [{"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": 1}}]
    task.build({"model": build_model({"layers": layers}, (1, 12, 12), dtype=torch.float64)}, LOSSES[loss]())
    task.train_with({"model": (Adam(), Constant())})
    return on_device(task)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("target", ["input", "data"])
@pytest.mark.parametrize("loss", [kind for kind, loss in LOSSES.items() if loss.targets == "values"])
def test_steps_of_regression_are_capturable(loss: str, target: str, noise: float) -> None:
    task, batch = regression(loss, target=target, noise=noise), batch_of(1, 12, 12, targets=(1, 12, 12))
    run_captured(lambda: take_steps(task, [batch]))


@pytest.mark.parametrize("target", ["input", "data"])
@pytest.mark.parametrize("loss", ["l2", "bce_with_logits"])
def test_evaluations_of_regression_are_capturable_without_noise(loss: str, target: str) -> None:
    batch = batch_of(1, 12, 12, targets=(1, 12, 12))
    task = regression(loss, target=target)
    run_captured(lambda: evaluate(task, batch))


@pytest.mark.parametrize("options", [{}, {"conditional": True}, {"ema": None}, {"critic_steps": 2}], ids=str)
@pytest.mark.parametrize("loss", ADVERSARIAL)
def test_steps_of_gans_are_capturable(loss: str, options: dict[str, Any]) -> None:
    task = on_device(generators.gan(loss, **options))
    run_captured(lambda: take_steps(task, [batch_of(*generators.SHAPE)], range(3)))


def test_a_discriminator_with_spectral_norm_is_capturable(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = [{"spectral_norm": {"layers": [layer]}} for layer in generators.LAYERS["discriminator"][:1]]
    plain = ["flatten", {"spectral_norm": {"layers": [{"linear": {"out_features": 1}}]}}]
    monkeypatch.setitem(generators.LAYERS, "discriminator", [*normalised, generators.LEAKY, *plain])
    task = on_device(generators.gan("hinge"))
    run_captured(lambda: take_steps(task, [batch_of(*generators.SHAPE)], range(2)))


@pytest.mark.parametrize("options", [{}, {"binarize": False}, {"beta": 0.5, "beta_warmup_steps": 4}], ids=str)
def test_steps_of_vaes_are_capturable(options: dict[str, Any]) -> None:
    task = on_device(generators.vae(**options))
    run_captured(lambda: take_steps(task, [batch_of(*generators.SHAPE)], range(2)))


NOISY_EVALUATIONS = {
    "regression with noise": lambda: (regression("l2", target="input", noise=0.1), batch_of(1, 12, 12)),
    "gan": lambda: (on_device(generators.gan()), batch_of(*generators.SHAPE)),
    "vae": lambda: (on_device(generators.vae()), batch_of(*generators.SHAPE)),
}
"""Evaluations with noise that is each example's own: the host draws it, from the number of the batch's first one."""


@pytest.mark.parametrize("name", NOISY_EVALUATIONS)
def test_evaluations_with_noise_are_not_capturable_yet(name: str) -> None:
    task, batch = NOISY_EVALUATIONS[name]()
    with pytest.raises(Uncapturable, match="a tensor is copied between devices"):
        run_captured(lambda: evaluate(task, batch))


def tasks() -> dict[str, Task]:
    network = build_model({"layers": ["flatten", {"linear": {"out_features": 3}}]}, generators.SHAPE)
    loss = construct(LOSSES["cross_entropy"], {"weight": [1.0, 0.0, 2.0]})
    return {
        "classification": on_device(classifier(network, loss)),
        "regression": regression("bce_with_logits", target="input"),
        "gan": on_device(generators.gan("wasserstein", conditional=True)),
        "vae": on_device(generators.vae()),
    }


def input_of(graph: Graph) -> Tensor:
    return tensor(*graph.input_shape, COUNT, dtype=graph.flat.data.dtype)


@pytest.mark.parametrize("name", tasks())
def test_predictions_stay_on_the_device(name: str) -> None:
    task = tasks()[name]
    x = tensor(generators.LATENT, COUNT, dtype=torch.float64) if name == "gan" else None
    with ops.kernels("reference"):
        predicted = task.predict(input_of(task.graphs[task.networks[0]]) if x is None else x)
    assert predicted.device == DEVICE


@pytest.mark.parametrize("name", tasks())
def test_what_gradient_checks_take_is_on_the_device(name: str) -> None:
    task = tasks()[name]
    for network in task.networks:
        graph, loss, target = task.loss_check(network, generators.DATA, COUNT)
        with ops.kernels("reference"):
            y, _ = graph.forward(input_of(task.graphs[network]), Mode(train=True))
            value, cache = loss.forward(y, target)
            assert value.device == loss.backward(cache).device == DEVICE
