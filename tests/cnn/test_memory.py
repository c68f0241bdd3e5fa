"""The pool: memory comes back when its last view dies, and the steady state of training allocates nothing large."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn import Cache, Concat, Layer, Mode, Repeat, Residual, build_model
from cnn.arguments import construct
from cnn.losses import CrossEntropy
from cnn.ops.memory import SMALL, Pool
from cnn.optimizers import OPTIMIZERS
from runners.data.batches import Batch
from tests.classifier import classifier, train_step
from tests.cnn.cases import FAMILIES
from tests.cnn.test_models import IMAGES
from tests.cnn.test_optimizers import EVERYTHING
from tests.cnn.test_trajectory import shipped


def test_memory_is_used_again_only_after_the_last_view_died() -> None:
    pool = Pool()
    first = pool.empty((SMALL,), torch.float32)
    address = first.data_ptr()
    view = first.view(2, -1)[1]
    array = first.numpy()
    del first
    assert pool.empty((SMALL,), torch.float32).data_ptr() != address
    del view
    assert pool.idle == 4 * SMALL  # the second one came back, the first is still seen by `array`
    del array
    assert pool.idle == 8 * SMALL
    assert address in {pool.empty((SMALL,), torch.float32).data_ptr() for _ in range(3)}


def test_tensors_alive_at_once_never_overlap() -> None:
    pool = Pool()
    kept = []
    for round_number in range(50):
        tensor = pool.empty((1000,), torch.float64).fill_(round_number)
        if round_number % 3:
            kept.append((round_number, tensor))
        if len(kept) > 5:
            kept.pop(round_number % 5)
        assert all((tensor == number).all() for number, tensor in kept)


def test_threads_take_memory_of_their_own() -> None:
    pool = Pool()

    def fill(number: int) -> bool:
        for _ in range(500):
            tensor = pool.empty((100,), torch.float64).fill_(number)
            if not (tensor == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(fill, range(4)))


def test_idle_memory_is_bounded() -> None:
    pool = Pool(limit=10_000)
    for size in range(1000, 9000, 500):
        pool.empty((size,), torch.uint8)
        assert pool.idle <= 10_000
    pool.empty((20_000,), torch.uint8)
    assert 0 < pool.idle <= 10_000
    kept = pool.empty((8500,), torch.uint8)
    assert pool.idle <= 10_000 - 8500  # the size used last was kept for the longest
    pool.clear()
    assert pool.idle == 0
    del kept
    assert pool.idle == 8500  # what was in use comes back as before


@pytest.mark.parametrize("kind", [kind for family in FAMILIES.values() for kind in family])
@settings(max_examples=1)
@given(data=st.data())
def test_a_network_that_nobody_holds_is_freed_at_once(kind: str, data: st.DataObject) -> None:
    """Without waiting for a collection of circles, which counts objects and not their gigabytes."""
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    gc.collect()
    gc.disable()
    try:
        network = build_model({"layers": [case.entry]}, case.input_shape)
        y, cache = network.forward(case.x(0).float(), Mode(train=True, generator=torch.Generator()))
        network.backward(y, cache)
        layers = [weakref.ref(layer) for _, layer in network.named_layers()]
        del network, y, cache
        assert not any(layer() for layer in layers)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        *((model, "adam") for model in IMAGES),
        *(("lenet", optimizer) for optimizer in OPTIMIZERS if optimizer != "adam"),
    ],
)
def test_training_allocates_nothing_large_after_two_steps(model: str, optimizer: str) -> None:
    """As torch's profiler sees it: every operator's own allocations, by whatever name they are called."""
    network = build_model(shipped(model), (1, 28, 28))
    rule = construct(OPTIMIZERS[optimizer], EVERYTHING[optimizer] | {"lr": 0.01})
    task = classifier(network, CrossEntropy(), rule)
    batch = Batch(torch.randn(1, 28, 28, 32), torch.arange(32) % 10)
    for _ in range(3):
        train_step(task, [batch], max_norm=1.0)
    with torch.profiler.profile(profile_memory=True) as profile:
        train_step(task, [batch], max_norm=1.0)
    large = [event.name for event in profile.events() if event.self_cpu_memory_usage >= SMALL]
    assert large == []


class Witness(Layer):
    """Passes a copy on and counts how many of the inputs it ever had are still alive."""

    kind = "witness"
    seen: ClassVar[list[weakref.ref[Tensor]]] = []
    most: ClassVar[int] = 0

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        Witness.seen.append(weakref.ref(x))
        Witness.most = max(Witness.most, sum(reference() is not None for reference in Witness.seen))
        return x + 1, mode.keep()

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        cache.take()
        return self.forward(dy, Mode(train=False, keep_cache=False))[0]


def test_values_are_freed_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deep net few values live at a time, forward and backward: one for each graph that is being run."""
    block = Residual([Witness(), Witness()], shortcut=[Witness()])
    branches = Concat([[Witness()], [Witness(), Witness()]])
    network = Repeat(10, [block, branches, Witness()])
    network.build((1, 2))
    network.bind()
    y, cache = network.forward(torch.ones(1, 2, 3), Mode(train=False))
    assert len(Witness.seen) == 70
    assert Witness.most <= 8
    Witness.seen.clear()
    monkeypatch.setattr(Witness, "most", 0)
    network.backward(torch.ones_like(y), cache)
    assert len(Witness.seen) == 70
    assert Witness.most <= 8
