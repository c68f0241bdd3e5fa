"""Steps that are recorded and replayed have the bits of steps of Python: models, optimizers, losses, tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import nn

from cnn import Parameter, build_model
from cnn.arguments import construct
from cnn.gradients.finite_differences import relative_error
from cnn.losses import LOSSES, CrossEntropy
from cnn.ops.threads import available_threads
from cnn.optimizers import OPTIMIZERS, SGD, Adam
from cnn.schedules import Constant, Cosine, OneCycle
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.regression import Regression
from runners.tasks.task import Task
from tests import generators
from tests.cnn.oracle import copy_state, sequence, theirs
from tests.cnn.test_models import CLIP, IMAGES, MODELS, PICTURES, layers_of
from tests.cnn.test_optimizers import EVERYTHING
from tests.cnn.test_trajectory import shipped
from tests.runners.training.steps import follow, never, step

WEIGHTS = [1.0, 0.0, 0.5, 2.0]
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{}, {"weight": WEIGHTS}, {"label_smoothing": 0.1, "weight": WEIGHTS}],
    "bce_with_logits": [{}, {"pos_weight": WEIGHTS}],
    "huber": [{"delta": 0.3}],
}
SMALL: list[Any] = [
    {"conv2d": {"out_channels": 3, "kernel_size": 3, "bias": False}},
    *("batch_norm", "relu", {"dropout2d": {"p": 0.3}}, {"max_pool2d": {"kernel_size": 2}}),
    *("flatten", {"dropout": {"p": 0.4}}, {"linear": {"out_features": 4}}),
]


def of_model(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, layers: Any = None) -> Task:
    network = build_model({"layers": layers or shipped(name)["layers"]}, shape, seed=1, dtype=dtype)
    task: Task = Regression(target="input") if name in PICTURES else Classification()
    task.build({"model": network}, LOSSES["l2"]() if name in PICTURES else CrossEntropy())
    task.train_with({"model": (Adam(lr=1e-3), Cosine(warmup_steps=2))})
    return task


def of_small(optimizer: Any = None, loss: Any = None, freeze: Sequence[str] = (), layers: Any = None) -> Task:
    network = build_model({"layers": layers or SMALL}, (1, 6, 6), seed=1)
    network.freeze(freeze)
    task = Classification()
    task.build({"model": network}, loss or CrossEntropy())
    task.train_with({"model": (optimizer or SGD(lr=0.1, momentum=0.9), OneCycle())})
    return task


def random_batches(shape: tuple[int, ...], sizes: Sequence[int], classes: int = 4, **more: Any) -> Any:
    """Groups of random batches of these sizes, others for each step."""

    def draw(index: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(1000 + index)
        return [
            Batch(
                torch.rand((*shape, size), generator=generator, **more),
                torch.randint(0, classes, (size,), generator=generator),
            )
            for size in sizes
        ]

    return draw


def sizes_of(name: str) -> list[Any]:
    return [pytest.param(name, size, marks=[] if size == 4 else pytest.mark.long) for size in (1, 4, 32)]


@pytest.mark.parametrize(("name", "size"), [case for name in MODELS for case in sizes_of(name)])
def test_every_shipped_model(name: str, size: int) -> None:
    shape = CLIP if name == "conv3d" else (1, 28, 28)
    classes = 2 if name == "conv3d" else 10
    follow(lambda: of_model(name, shape), random_batches(shape, [size], classes), steps=6)


@pytest.mark.parametrize("name", ["seed8", "lenet"])
@pytest.mark.parametrize("size", [1, 32])
def test_small_models_with_any_batch(name: str, size: int) -> None:
    follow(lambda: of_model(name, (1, 28, 28)), random_batches((1, 28, 28), [size], 10))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("arguments", ["default", "everything"])
def test_every_optimizer_with_clipping_and_accumulation(kind: str, arguments: str) -> None:
    given = (EVERYTHING[kind] | {"decay_all": True} if arguments == "everything" else {}) | {"lr": 0.02}
    follow(
        lambda: of_small(construct(OPTIMIZERS[kind], given)),
        random_batches((1, 6, 6), [4, 4, 3]),
        max_norm=0.1 if arguments == "everything" else None,
    )


@pytest.mark.parametrize("sizes", [[5], [5, 2]])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(kind, each) for kind, loss in LOSSES.items() if loss.targets != "real" for each in ARGUMENTS.get(kind, [{}])],
)
def test_every_loss(kind: str, arguments: dict[str, Any], sizes: list[int]) -> None:
    follow(lambda: of_small(loss=construct(LOSSES[kind], arguments)), random_batches((1, 6, 6), sizes))


@pytest.mark.parametrize("freeze", [["conv2d_1"], ["linear_1"], ["conv2d_1", "batch_norm_1"]])
def test_frozen_layers(freeze: list[str]) -> None:
    follow(lambda: of_small(freeze=freeze), random_batches((1, 6, 6), [4]), max_norm=1.0)


SPECTRAL = [
    {"spectral_norm": {"layers": [layer]}} if "conv2d" in layer or "linear" in layer else layer
    for layer in generators.LAYERS["discriminator"]
]
GANS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {"ema": None}) for kind, loss in LOSSES.items() if loss.targets == "real"},
    "conditional, averaged": ("hinge", {"conditional": True, "ema": 0.9}),
    "two critic steps with a penalty": ("wasserstein", {"critic_steps": 2, "conditional": True, "ema": 0.5}),
}


@pytest.mark.parametrize("sizes", [[4], [3, 2]])
@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("name", GANS)
def test_adversarial_pairs(name: str, spectral: bool, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    if spectral:
        monkeypatch.setitem(generators.LAYERS, "discriminator", SPECTRAL)
    (kind, options), many = GANS[name], len(sizes) > 1
    every = options.get("critic_steps", 1) + 1
    follow(
        lambda: generators.gan(kind, dtype=torch.float32 if many else torch.float64, **options),
        lambda index: [
            generators.pictures(size, seed=index, dtype=torch.float32 if many else torch.float64) for size in sizes
        ],
        steps=5 * every,
        python=3 * every,
        max_norm=0.5 if many else None,
    )


@pytest.mark.parametrize("options", [{}, {"binarize": False, "beta": 0.5}, {"beta_warmup_steps": 3}])
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_variational_autoencoders(options: dict[str, Any], max_norm: float | None) -> None:
    """A warm-up has as many kinds of steps as steps, which are taken as Python, and the rest is replayed."""
    follow(
        lambda: generators.vae(**options),
        lambda index: [generators.pictures(4, seed=index, low=0.0), generators.pictures(3, seed=99 + index, low=0.0)],
        steps=9,
        python=3 + max(options.get("beta_warmup_steps", 1) - 1, 0),
        max_norm=max_norm,
    )


@pytest.mark.parametrize("target", ["input", "data"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("loss", ["l1", "l2", "huber", "bce_with_logits"])
def test_regression(target: Any, noise: float, loss: str) -> None:
    ends: dict[str, list[Any]] = {
        "data": ["tanh", {"linear": {"out_features": 3}}],
        "input": [{"reshape": {"shape": [1, 6, 6]}}],
    }

    def make() -> Task:
        layers = ["flatten", {"linear": {"out_features": 36}}, *ends[target]]
        task = Regression(target=target, noise=noise)
        task.build({"model": build_model({"layers": layers}, (1, 6, 6), seed=1)}, LOSSES[loss]())
        task.train_with({"model": (SGD(lr=0.1), Constant())})
        return task

    def batches(index: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(index)
        return [
            Batch(torch.rand(1, 6, 6, size, generator=generator), torch.rand(3, size, generator=generator))
            for size in (4, 2)
        ]

    follow(make, batches)


@pytest.mark.parametrize("name", [name for name in IMAGES if name in ("seed8", "blocks", "lenet")])
def test_gradients_of_a_replayed_step_are_those_of_autograd(name: str) -> None:
    layers, draw = layers_of(name), random_batches((1, 28, 28), [3], 10, dtype=torch.float64)
    task, steps = follow(lambda: of_model(name, (1, 28, 28), torch.float64, layers), draw, steps=4)
    network, peer = task.graphs["model"], sequence(layers, (1, 28, 28)).double()
    copy_state(network, peer.train())
    [batch] = draw(77)
    vars(task)["train_step"] = never
    steps.take([batch], step(4))
    nn.functional.cross_entropy(peer(theirs(batch.x)), batch.targets).backward()
    expected = torch.cat([p.grad.flatten() for p in peer.parameters() if p.grad is not None])
    found = torch.cat([p.grad.flatten() for _, layer in network.named_layers() for p in parameters(layer)])
    assert relative_error(found, expected) <= 1e-9


def parameters(layer: Any) -> list[Any]:
    """A layer's own parameters, in the order of torch's."""
    return [value for value in vars(layer).values() if isinstance(value, Parameter)]


def test_gradients_of_a_replayed_step_along_finite_differences() -> None:
    layers: list[Any] = [
        {"conv2d": {"out_channels": 3, "kernel_size": 3}},
        *("batch_norm", "tanh", "flatten", {"linear": {"out_features": 4}}),
    ]

    def make() -> Task:
        task = Classification()
        task.build({"model": build_model({"layers": layers}, (1, 6, 6), seed=1, dtype=torch.float64)}, CrossEntropy())
        task.train_with({"model": (SGD(lr=0.1), Constant())})
        return task

    draw = random_batches((1, 6, 6), [5], dtype=torch.float64)
    task, steps = follow(make, draw)
    flat, [batch] = task.graphs["model"].flat, draw(50)
    start = flat.data.clone()
    way = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(offset: float) -> float:
        flat.data.copy_(start + offset * way)
        return steps.take([batch], step(8)).means("train")["train/loss"]

    vars(task)["train_step"] = never
    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    loss(0.0)
    assert math.isclose(slope, float(flat.grad @ way), rel_tol=1e-6)


@pytest.mark.parametrize("name", ["seed8", "blocks"])
def test_the_number_of_threads_may_change_at_any_moment(name: str) -> None:
    """Also to more than there were when the step was recorded."""
    chance = np.random.default_rng(3)

    def change(index: int) -> None:
        numba.set_num_threads(1 if index < 3 else int(chance.integers(1, available_threads() + 1)))

    before = numba.get_num_threads()
    try:
        follow(lambda: of_model(name, (1, 28, 28)), random_batches((1, 28, 28), [33], 10), steps=12, each=change)
    finally:
        numba.set_num_threads(before)
