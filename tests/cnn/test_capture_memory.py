"""The memory of recorded calls, and their threads."""

from __future__ import annotations

import copy
import gc
import itertools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cnn import Mode, build_model, ops
from cnn.losses import CrossEntropy
from cnn.ops import memory
from cnn.ops.memory import ALIGNMENT, SLAB, Arena
from cnn.ops.replays import digest
from cnn.ops.threads import available_threads
from tests.cnn.test_capture import bits, everything, recorded, there_and_back


@given(sizes=st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=30))
def test_memory_of_an_arena_is_aligned_and_its_own(sizes: list[tuple[int, bool]]) -> None:
    arena, kept = Arena(), []
    for number, (size, keep) in enumerate(sizes):
        tensor = arena.empty((size,), torch.float64).fill_(number)
        assert tensor.data_ptr() % ALIGNMENT == 0 or not size
        assert arena.holds(tensor.data_ptr()) or not size
        if keep:
            kept.append((number, tensor))
        assert all((each == own).all() for own, each in kept)
    outside = torch.zeros(10)
    assert not arena.holds(outside.data_ptr())
    assert arena.unclaimed(outside) is outside


@given(offset=st.integers(0, 5), dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]))
def test_a_tensor_without_a_claim_is_the_same_memory_which_may_be_used_again(offset: int, dtype: torch.dtype) -> None:
    arena = Arena()
    tensor = arena.empty((6, 7), dtype)
    part = tensor.t()[1:, offset:]
    twin = arena.unclaimed(part)
    assert (twin.data_ptr(), twin.shape, twin.stride()) == (part.data_ptr(), part.shape, part.stride())
    assert twin.dtype == dtype
    address = tensor.data_ptr()
    del tensor, part
    assert arena.empty((42,), dtype).data_ptr() == address
    assert twin.shape == (6, 6 - offset)


def test_a_tape_that_nobody_holds_frees_its_memory_at_once() -> None:
    """Its arena, its kernels' arguments and its tensors, without a collection of circles."""
    network = build_model({"layers": [{"conv2d": {"out_channels": 4, "kernel_size": 3}}, "relu"]}, (1, 8, 8))
    x, dy, mode = torch.randn(1, 8, 8, 4), torch.randn(4, 6, 6, 4), Mode(train=True)
    gc.collect()
    gc.disable()
    try:
        recording = ops.Recording()
        with recording:
            results = there_and_back(network, x, dy, mode)
        tape = recording.tape()
        assert tape is not None
        arena, blocks = weakref.ref(recording.arena), [weakref.ref(block) for block in recording.arena._slabs]
        assert blocks
        del recording, results
        tape.play(None)
        del tape
        assert arena() is None
        assert not any(block() is not None for block in blocks)
    finally:
        gc.enable()


def test_a_tape_keeps_what_python_drops() -> None:
    """Arrays that a kernel was given, such as the weights of classes, live as long as its tape."""
    loss, logits, classes = CrossEntropy(), torch.randn(1000, 3), torch.arange(3)
    tape, (value, _) = recorded(lambda: loss.forward(logits, classes))
    expected = bits(value)
    gc.collect()
    litter = [np.full(1000, np.nan, np.float32) for _ in range(100)]
    tape.play(None)
    assert bits(value) == expected
    assert len(litter) == 100


@pytest.mark.parametrize("kind", ["conv2d", "batch_norm", "max_pool2d", "linear", "residual", "relu"])
def test_the_number_of_threads_may_change_between_replays(kind: str) -> None:
    arguments: dict[str, Any] = {
        "conv2d": {"out_channels": 8, "kernel_size": 3, "padding": 1},
        "max_pool2d": {"kernel_size": 2},
        "linear": {"out_features": 8},
        "residual": {"body": [{"conv2d": {"out_channels": 8, "kernel_size": 3, "padding": 1}}, "batch_norm", "relu"]},
    }
    shape = (64,) if kind == "linear" else (3, 12, 12)
    network = build_model({"layers": [{kind: arguments.get(kind, {})}]}, shape)
    x, mode = torch.randn(*shape, 48), Mode(train=True)
    dy = torch.randn_like(network.forward(x, mode)[0])
    twin = copy.deepcopy(network)
    tape, results = recorded(lambda: there_and_back(network, x, dy, mode))
    there_and_back(twin, x, dy, mode)
    order = np.random.default_rng(0).integers(1, available_threads() + 1, 12)
    for number, threads in enumerate(order.tolist()):
        x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(number)))
        numba.set_num_threads(1)
        expected = everything(twin, *there_and_back(twin, x, dy, mode))
        numba.set_num_threads(threads)
        tape.play(None)
        assert everything(network, *results) == expected


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30)), max_size=60))
def test_tensors_of_an_arena_never_overlap(steps: list[tuple[int, int]]) -> None:
    """Whatever is taken and given back; and all of it is one gap again in the end."""
    arena = Arena()
    held: list[torch.Tensor] = []
    for size, which in steps:
        if which % 3 == 0 and held:
            held.pop(which % len(held))
        else:
            held.append(arena.empty((size,), torch.float32).fill_(len(held)))
        places = sorted((each.data_ptr(), each.data_ptr() + each.nbytes) for each in held if each.numel())
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))
        assert all(arena.holds(start) and start % ALIGNMENT == 0 for start, _ in places)
    held.clear()
    arena._give_back()
    assert sorted(size for size in arena._gaps.values() if size) == [SLAB] * len(arena._slabs)


def test_threads_of_python_record_at_the_same_time() -> None:
    """Each on its own arena: what one of them does while another records isn't part of the other's tape."""
    meeting = threading.Barrier(3)

    def record(number: int) -> tuple[ops.Tape | None, Tensor, Tensor]:
        x, recording = torch.full((40, 50), float(number)), ops.Recording()

        def work() -> Tensor:
            y = x.clone()
            for _ in range(5):
                meeting.wait(60)
                ops.live(y.add_, 1)
                y = ops.relu(y) * 2
            return y

        with recording:
            y = work()
            meeting.wait(60)
        assert memory._thread.pool is memory._SHARED
        return recording.tape(), x, y

    def stay() -> int:
        """A thread that doesn't record."""
        seen: list[int] = []
        for _ in range(6):
            meeting.wait(60)
            ops.live(seen.append, 0)
        return len(seen)

    with ThreadPoolExecutor(3) as pool:
        third, both = pool.submit(stay), [pool.submit(record, number) for number in (1, 2)]
        assert third.result() == 6
        for number, future in zip((1, 2), both, strict=True):
            tape, x, y = future.result()
            assert tape is not None
            assert y.unique().item() == 32 * number + 62
            x.fill_(number + 1)
            tape.play(1)
            assert y.unique().item() == 32 * (number + 1) + 62


VALUES: list[Any] = [
    0.0,
    -0.0,
    float("nan"),
    1,
    True,
    None,
    "1",
    [],
    {},
    [1.0, 2.0],
    [[1.0], 2.0],
    {"a": 1.0},
    {"b": 1.0},
    torch.tensor([1.0, 2.0]),
    torch.tensor([[1.0, 2.0]]),
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([[1.0], [2.0]]),
    torch.tensor([-0.0]),
    torch.tensor([0.0]),
    torch.tensor(0.0),
    torch.empty(0),
    np.arange(3),
    [torch.ones(2), torch.ones(2)],
    [torch.ones(4)],
]


def test_a_digest_tells_values_apart_by_their_bits() -> None:
    found = [digest(value) for value in VALUES]
    assert found == [digest(copy.deepcopy(value)) for value in VALUES]
    assert len(set(found)) == len(VALUES)
    assert digest([1, 23]) != digest([12, 3])
    assert digest({"a": [1, 11]}) != digest({"a": [11, 1]})
    for unknown in (object(), slice(1), lambda: 1, np.array(["a"], dtype=object)):
        with pytest.raises(TypeError):
            digest([unknown])
    matrix = torch.arange(6.0).view(2, 3)
    assert digest(matrix.T) == digest(matrix.T.contiguous()) != digest(matrix)
