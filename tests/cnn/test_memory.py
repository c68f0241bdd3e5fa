"""The pool: memory comes back when its last view dies, and the steady state of training allocates nothing large."""

from __future__ import annotations

import pytest
import torch

from cnn import build_model
from cnn.arguments import construct
from cnn.losses import CrossEntropy
from cnn.ops.memory import SMALL, Pool
from cnn.optimizers import OPTIMIZERS
from runners.data.batches import Batch
from runners.tasks import Classification
from runners.tasks.classification import Totals
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


def test_idle_memory_is_bounded() -> None:
    pool = Pool(limit=10_000)
    for size in range(1000, 9000, 500):
        pool.empty((size,), torch.uint8)
        assert pool.idle <= 10_000
    pool.empty((20_000,), torch.uint8)
    assert 0 < pool.idle <= 10_000
    kept = pool.empty((8500,), torch.uint8)
    assert pool.idle <= 10_000 - 8500  # the size used last was kept for the longest
    del kept


@pytest.mark.parametrize(
    ("model", "optimizer"), [("seed8", "adam"), *(("lenet", optimizer) for optimizer in OPTIMIZERS)]
)
def test_training_allocates_nothing_large_after_two_steps(model: str, optimizer: str) -> None:
    """As torch's profiler sees it: every operator's own allocations, by whatever name they are called."""
    network = build_model(shipped(model), (1, 28, 28))
    task, rule = Classification(network, CrossEntropy()), construct(OPTIMIZERS[optimizer], EVERYTHING[optimizer])
    batch = Batch(torch.randn(1, 28, 28, 32), torch.arange(32) % 10)
    for _ in range(3):
        task.train_step([batch], rule, 0.01, Totals(), max_norm=1.0)
    with torch.profiler.profile(profile_memory=True) as profile:
        task.train_step([batch], rule, 0.01, Totals(), max_norm=1.0)
    large = [event.name for event in profile.events() if event.self_cpu_memory_usage >= SMALL]
    assert large == []
