"""The pool: memory comes back when its last view dies, and the steady state of training allocates nothing large."""

from __future__ import annotations

import gc

import pytest
import torch

from cnn import Mode, build_model
from cnn.ops.memory import SMALL, Pool


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


def test_training_allocates_nothing_large_after_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        {"conv2d": {"out_channels": 8, "kernel_size": 3}},
        "batch_norm",
        "relu",
        {"max_pool2d": {"kernel_size": 2}},
    ]
    network = build_model({"layers": layers}, (1, 28, 28))
    x = torch.randn(1, 28, 28, 32)

    def step() -> None:
        y, cache = network.forward(x, Mode(train=True))
        network.backward(y, cache, need_dx=False)

    step()
    step()
    gc.collect()
    fresh = []
    original = torch.empty

    def counting(*args: object, **kwargs: object) -> torch.Tensor:
        tensor: torch.Tensor = original(*args, **kwargs)  # type: ignore[call-overload]
        fresh.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(torch, "empty", counting)
    step()
    assert max(fresh, default=0) < SMALL
