"""Recorded calls, replayed on other values: the bits of Python, whatever the number of threads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn import Mode, Sequential, build_model, ops
from cnn.losses import LOSSES, CrossEntropy
from cnn.ops import memory
from cnn.ops.cpu.loss import MAX_LOGITS
from tests.cnn.case import normal
from tests.cnn.cases import FAMILIES
from tests.cnn.test_layers import KINDS, LONG, mode_of, network_of


def bits(*tensors: Tensor | None) -> list[bytes | None]:
    return [None if tensor is None else tensor.contiguous().numpy().tobytes() for tensor in tensors]


def there_and_back(network: Sequential, x: Tensor, dy: Tensor, mode: Mode) -> tuple[Tensor, Tensor | None]:
    y, cache = network.forward(x, mode)
    return y, network.backward(dy, cache)


def everything(network: Sequential, *results: Tensor | None) -> list[bytes | None]:
    return bits(*results, network.flat.data, network.flat.grad, *(b.data for _, b in network.named_buffers()))


def recorded(work: Callable[[], Any]) -> tuple[ops.Tape, Any]:
    recording = ops.Recording()
    with recording:
        results = work()
    tape = recording.tape()
    assert tape is not None, recording.refused
    return tape, results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100 if LONG else 5)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_every_layer_is_replayed_on_other_values(kind: str, dtype: torch.dtype, data: st.DataObject, seed: int) -> None:
    """Recorded on one input, replayed on two others, with new noise: as a copy of the layer computes them."""
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    network, mode = network_of(case, dtype, seed), mode_of(case)
    x = case.x(seed).to(dtype)
    shape = copy.deepcopy(network).forward(x, mode_of(case))[0].shape
    dy = normal(tuple(shape), seed).to(dtype)
    tape, results = recorded(lambda: there_and_back(network, x, dy, mode))
    assert mode.generator
    for other in (seed + 1, seed + 2):
        twin = copy.deepcopy(network)
        x.copy_(case.x(other))
        dy.copy_(normal(tuple(shape), other))
        mode.generator.manual_seed(other)
        noise = torch.Generator().manual_seed(other)
        expected = everything(twin, *there_and_back(twin, x, dy, Mode(case.train, generator=noise)))
        tape.play(None)
        assert everything(network, *results) == expected


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: bool((x > 0).all()), lambda x: float(x[0])])
def test_what_python_reads_is_refused(read: Callable[[Tensor], Any]) -> None:
    recording = ops.Recording()
    with recording:
        torch.ones(3) * read(torch.ones(3))
    assert recording.refused
    assert recording.refused.startswith("a value is read by Python")
    assert recording.tape() is None


def test_shapes_that_depend_on_values_are_refused() -> None:
    x = torch.tensor([1.0, -1.0, 2.0])
    recording = ops.Recording()
    with recording:
        x[x > 0].sum()
    assert recording.refused == "a shape depends on values (index)"


def test_picking_by_positions_is_replayed() -> None:
    x, places = torch.arange(4.0), torch.tensor([2, 0])
    tape, y = recorded(lambda: x[places] * 2)
    places.copy_(torch.tensor([3, 3]))
    tape.play(None)
    assert y.tolist() == [6.0, 6.0]


def test_live_functions_run_in_their_place_with_the_argument_of_the_replay() -> None:
    factor, seen = torch.zeros(()), []

    def set_factor(value: float) -> None:
        seen.append(value)
        factor.fill_(value)

    def work() -> Tensor:
        before = factor + 100
        ops.live(set_factor, 2.0)
        return before + factor

    tape, y = recorded(work)
    assert (float(y), seen) == (102.0, [2.0])
    tape.play(5.0)
    assert (float(y), seen) == (107.0, [2.0, 5.0])
    ops.live(set_factor, 7.0)  # nothing is recorded: a call
    assert seen == [2.0, 5.0, 7.0]


def test_several_results_and_results_in_place_are_replayed() -> None:
    x = torch.tensor([3.0, 1.0, 2.0])

    def work() -> tuple[Tensor, Tensor, Tensor]:
        values, places = x.sort()
        out = torch.empty(3)
        torch.add(values, 1, out=out)
        return values.mul_(2), places, out

    tape, found = recorded(work)
    x.copy_(torch.tensor([5.0, 6.0, 4.0]))
    tape.play(None)
    assert [t.tolist() for t in found] == [[8.0, 10.0, 12.0], [2, 0, 1], [5.0, 6.0, 7.0]]


def test_tensors_in_other_layouts_keep_them() -> None:
    x = torch.arange(6.0).view(2, 3)
    tape, (scattered, spread) = recorded(lambda: (x.t().clone(memory_format=torch.preserve_format), x[:1].expand(2, 3)))
    assert scattered.stride() == (1, 3)
    x.mul_(2)
    tape.play(None)
    assert torch.equal(scattered, x.t())
    assert torch.equal(spread, x[:1].expand(2, 3))


@settings(max_examples=200 if LONG else 30)
@given(choices=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_any_order_of_operations_is_replayed(choices: list[tuple[int, int, int]]) -> None:
    """Of a few tensors of which some die on the way, so that their memory is used again."""
    x, noise = normal((3, 4), 0), torch.Generator()

    def work(x: Tensor) -> Tensor:
        alive = [x.clone()]
        for operation, a, b in choices:
            first, second = alive[a % len(alive)], alive[b % len(alive)]
            made = [
                lambda f, s: f + s,
                lambda f, s: f.mul_(0.5).add_(s),
                lambda f, s: ops.empty((3, 4), like=f).copy_(s),
                lambda f, s: f + torch.rand(3, 4, generator=noise, dtype=f.dtype),
                lambda f, s: ops.relu(s),
                lambda f, s: f[:, 1:2] * s,
            ][operation](first, second)
            alive.append(made)
            if len(alive) > 4:
                del alive[a % 4]
        return sum(alive, torch.zeros(3, 4, dtype=torch.float64))

    noise.manual_seed(1)
    tape, y = recorded(lambda: work(x))
    x.copy_(normal((3, 4), 9))
    noise.manual_seed(2)
    expected = bits(work(x))
    noise.manual_seed(2)
    tape.play(None)
    assert bits(y) == expected


@pytest.mark.parametrize("count", [8, MAX_LOGITS // 4 + 1])
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5, 1.0]])
def test_unknown_classes_are_the_same_fault_in_a_replay(count: int, weight: list[float] | None) -> None:
    loss, logits, classes = CrossEntropy(weight), normal((4, count), 0), torch.arange(count) % 4
    tape, _ = recorded(lambda: loss.forward(logits, classes))
    classes[3] = 4
    with pytest.raises(IndexError) as expected:
        loss.forward(logits, classes)
    with pytest.raises(IndexError) as found:
        tape.play(None)
    assert str(found.value) == str(expected.value)
    classes[3] = 3
    tape.play(None)


@pytest.mark.parametrize("wrong", [3.0, -1.0, float("nan"), float("inf"), 1e30])
def test_unknown_numbers_of_an_embedding_are_the_same_fault_in_a_replay(wrong: float) -> None:
    network = build_model({"layers": [{"embedding": {"num_embeddings": 3, "embedding_dim": 2}}]}, (4,))
    x, dy, mode = torch.tensor([[0.0], [1.0], [2.4], [-0.4]]), torch.ones(2, 4, 1), Mode(train=True)
    tape, _ = recorded(lambda: there_and_back(network, x, dy, mode))
    x[2] = wrong
    with pytest.raises(ValueError, match="embedding got") as expected:
        network.forward(x, mode)
    with pytest.raises(ValueError, match="embedding got") as found:
        tape.play(None)
    assert str(found.value) == str(expected.value)


def test_values_that_are_not_finite_stop_a_replay_before_what_follows() -> None:
    x, y = torch.zeros(100), torch.zeros(100)

    def work() -> None:
        ops.require_finite(x)
        y.add_(1)

    tape, _ = recorded(work)
    for value in (float("nan"), float("inf"), -float("inf")):
        x[99] = value
        with pytest.raises(ops.NotFinite):
            tape.play(None)
    x.fill_(3e38)  # whose sum is infinite
    tape.play(None)
    assert y.tolist() == [2.0] * 100


def test_an_exception_ends_a_recording() -> None:
    pool = memory._thread.pool
    with pytest.raises(ZeroDivisionError), ops.Recording():
        ops.live(lambda _: 1 / 0, None)
    with pytest.raises(ops.NotFinite), ops.Recording():
        ops.require_finite(torch.full((3,), float("nan")))
    assert memory._thread.pool is pool
    seen: list[int] = []
    recording = ops.Recording()
    with recording:
        ops.live(seen.append, 1)
    ops.live(seen.append, 2)  # isn't recorded any more
    tape = recording.tape()
    assert tape is not None
    tape.play(3)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("name", "refused"), [("Call.of", "can't be recorded"), ("bridge", "can't be compiled")])
def test_another_compiler_is_a_reason_and_no_end(name: str, refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's internals may differ in another version: the step itself runs."""
    monkeypatch.setattr(f"cnn.ops.cpu.native.{name}", lambda *arguments: arguments[0].missing)
    recording = ops.Recording()
    with recording:
        y = ops.relu(torch.tensor([-1.0, 2.0]))
    assert y.tolist() == [0, 2]
    assert recording.tape() is None
    assert refused in str(recording.refused)


def test_losses_are_replayed_on_other_targets() -> None:
    for kind, make in LOSSES.items():
        loss, scores = make(), normal((4, 6), 1)
        targets = torch.arange(6) % 4 if loss.targets == "classes" else (normal((4, 6), 2) > 0).double()

        def work(loss: Any = loss, scores: Tensor = scores, targets: Tensor = targets) -> tuple[Tensor, Tensor]:
            value, cache = loss.forward(scores, targets)
            return value, loss.backward(cache)

        tape, found = recorded(work)
        scores.copy_(normal((4, 6), 5))
        targets.copy_(targets.flip(-1))
        tape.play(None)
        assert bits(*found) == bits(*work()), kind
