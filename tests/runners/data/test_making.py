"""Batches made as on a device, with the CPU as its stand-in: the bits of batches that are made on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runners.cli import train
from runners.data import augmentation, making, transfer
from runners.data.augmentation import Augmentation, elastic_noise, noise_from_seed
from runners.data.batches import Batch, Batches
from runners.data.dataset import Examples
from runners.data.making import DeviceMaker, Pixels
from runners.files import checkpoint, metrics_csv
from runners.training import setup
from runners.training.loop import in_groups
from tests.runners.conftest import Run
from tests.runners.outcomes import stop_at

COUNT, SIZE = 27, 8
EVERYTHING = Augmentation(2, 20, 0.2, elastic=1, flip=0.5, crop=1, cutout=3)
AMOUNTS: dict[str, Augmentation] = {
    "nothing": Augmentation(),
    "shift": Augmentation(shift=2),
    "rotation": Augmentation(rotation=15),
    "scale": Augmentation(scale=0.1),
    "elastic": Augmentation(elastic=1),
    "flip": Augmentation(flip=0.5),
    "crop": Augmentation(crop=2),
    "cutout": Augmentation(cutout=3),
    "everything": EVERYTHING,
}


@pytest.fixture(params=["resident", "streaming"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where examples are: on the device, or on the CPU because the device has no memory for them."""
    if request.param == "streaming":
        monkeypatch.setattr(transfer, "free_memory", lambda device: 0)
    return str(request.param)


def numbers(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, shape))


def examples_of(shape: tuple[int, ...], target_shape: tuple[int, ...] = ()) -> Examples:
    targets = numbers(COUNT, *target_shape)
    return Examples(numbers(COUNT, *shape).byte(), targets.double() / 7 if target_shape else targets)


def pair(examples: Examples, changed: Augmentation = EVERYTHING, **more: Any) -> tuple[Batches, Batches]:
    """Batches that are made as on a device, and on the CPU."""
    common: Any = {"mean": 0.1, "std": 0.3, "dtype": torch.float32, "device": torch.device("cpu")} | more
    common["augmentation"] = changed
    return Batches(examples, SIZE, **common, as_on_device=True), Batches(examples, SIZE, **common)


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.x, other.x)
        and torch.equal(one.targets, other.targets)
        and (one.first, one.x.dtype, one.x.is_contiguous()) == (other.first, other.x.dtype, other.x.is_contiguous())
        and (one.targets.dtype, one.targets.is_contiguous()) == (other.targets.dtype, other.targets.is_contiguous())
    )


def follow(found: Iterable[Batch], expected: Iterable[Batch]) -> int:
    """Compare each batch before the next one is drawn; returns how many there were."""
    pairs = [same(one, other) for one, other in zip(found, expected, strict=True)]
    assert all(pairs)
    return len(pairs)


@pytest.mark.parametrize("changed", AMOUNTS.values(), ids=AMOUNTS.keys())
def test_batches_are_those_of_the_cpu(changed: Augmentation, place: str, kernel_set: str) -> None:
    """Over epochs with a short last batch, from the middle of an epoch, and in the order of the examples.

    Compiled kernels are recorded and replayed, those of the reference aren't.
    """
    device, cpu = pair(examples_of((2, 9, 8)), changed)
    for epoch in range(4):
        assert follow(device.shuffled(5, epoch), cpu.shuffled(5, epoch)) == 4
        assert follow(device.shuffled(5, epoch, 2), cpu.shuffled(5, epoch, 2)) == 2
        assert follow(device.in_order(), cpu.in_order()) == 4


@pytest.mark.parametrize(
    ("shape", "target_shape", "changed", "dtype"),
    [
        ((5,), (), Augmentation(), torch.float64),
        ((1, 3, 6, 7), (2,), EVERYTHING, torch.float64),
        ((3, 6, 6), (1, 6, 6), EVERYTHING, torch.float32),
    ],
)
def test_inputs_and_targets_of_any_shape(
    shape: tuple[int, ...], target_shape: tuple[int, ...], changed: Augmentation, dtype: torch.dtype, place: str
) -> None:
    device, cpu = pair(examples_of(shape, target_shape), changed, dtype=dtype)
    for epoch in range(4):
        follow(device.shuffled(0, epoch), cpu.shuffled(0, epoch))


def test_after_three_batches_of_a_size_making_one_is_no_python(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    normalised = Pixels.normalised

    def counted(self: Pixels, pixels: Tensor) -> Tensor:
        sizes.append(pixels.shape[-1])
        return normalised(self, pixels)

    device, _ = pair(examples_of((2, 9, 8)))
    monkeypatch.setattr(Pixels, "normalised", counted)
    for epoch in range(6):
        assert len(list(device.shuffled(5, epoch))) == 4
    assert sorted(sizes) == [3] * 3 + [8] * 3


@pytest.mark.parametrize("size", [1, 3])
def test_a_group_keeps_its_batches(size: int, place: str) -> None:
    device, cpu = pair(examples_of((1, 6, 5)))
    for epoch in range(7):
        first = epoch % 2 * size
        groups = in_groups(device.shuffled(5, epoch, first, keep=size), size)
        for group, expected in zip(groups, in_groups(cpu.shuffled(5, epoch, first), size), strict=True):
            assert follow(group, expected) <= size


def test_what_is_kept_for_longer_is_overwritten() -> None:
    device, cpu = pair(examples_of((1, 6, 5)))
    for epoch in range(3):
        follow(device.shuffled(5, epoch), cpu.shuffled(5, epoch))
    kept, expected = list(device.shuffled(5, 3, keep=1)), list(cpu.shuffled(5, 3))
    assert [same(*each) for each in zip(kept, expected, strict=True)] == [False, False, True, True]


def moved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what batches copy to the device from now on."""
    shapes: list[tuple[int, ...]] = []
    upload = transfer.upload

    def noted(values: Tensor, device: torch.device) -> Tensor:
        shapes.append(tuple(values.shape))
        return upload(values, device)

    monkeypatch.setattr(transfer, "upload", noted)
    monkeypatch.setattr(augmentation, "upload", noted)
    return shapes


def test_of_resident_examples_only_the_order_and_small_draws_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = moved(monkeypatch)
    plain, _ = pair(examples_of((1, 6, 5)), Augmentation())
    for epoch in range(2):
        list(plain.shuffled(0, epoch))
    assert shapes == [(COUNT,)] * 2
    shapes.clear()
    changed, _ = pair(examples_of((1, 6, 5)), Augmentation(shift=1, cutout=2))
    list(changed.shuffled(0, 0))
    assert shapes == [(COUNT,), *([(3, 2, SIZE), (2, SIZE)] * 3), (3, 2, 3), (2, 3)]


@pytest.mark.parametrize(("missing", "copied"), [(0, [(COUNT,)]), (1, [(SIZE, 30), (SIZE,)] * 3 + [(3, 30), (3,)])])
def test_examples_take_at_most_half_of_the_free_memory(
    missing: int, copied: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def free(device: torch.device) -> float:
        asked.append(device)
        return 2 * COUNT * (30 + 8) - missing

    monkeypatch.setattr(transfer, "free_memory", free)
    shapes = moved(monkeypatch)
    device, _ = pair(examples_of((1, 6, 5)), Augmentation())
    drawn = device.shuffled(0, 0)
    assert asked == []  # a run's networks are made before its first batch
    list(drawn)
    assert shapes == copied
    list(device.in_order())
    assert len(asked) == 1


def test_only_memory_of_a_gpu_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 + device.index, 9000))
    assert transfer.free_memory(torch.device("cuda", 1)) == 1001
    assert transfer.fit_on(torch.device("cpu"), [torch.empty(10**6, device="meta")], 0.5)
    assert transfer.fit_on(torch.device("cuda", 0), [torch.empty(100), torch.empty(25)], 0.5)
    assert not transfer.fit_on(torch.device("cuda", 0), [torch.empty(100), torch.empty(26)], 0.5)


def test_unknown_examples_are_refused(place: str) -> None:
    maker = DeviceMaker(examples_of((1, 6, 5)), Pixels(0.1, 0.3, torch.empty(0)))
    chosen = maker.begin(torch.tensor([0, COUNT]))
    with pytest.raises(IndexError):
        maker.make(chosen, None, 0)


def test_what_was_drawn_is_left_alone() -> None:
    """A replay hands in the same memory, which the next draws are copied to."""
    x = numbers(2, 9, 8, 5).double()
    draws = EVERYTHING.draw(np.random.default_rng(0), x.shape, x)
    before = [tensor.clone() for tensor in (x, *draws)]
    first = EVERYTHING.apply(x, draws)
    assert all(map(torch.equal, (x, *draws), before))
    assert torch.equal(EVERYTHING.apply(x, draws), first)
    assert torch.equal(EVERYTHING(x, np.random.default_rng(0)), first)


def test_a_device_draws_noise_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def noted(seed: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        seeds.append((seed, device.type))
        return noise_from_seed(seed, shape, torch.device("cpu"))

    monkeypatch.setattr(augmentation, "noise_from_seed", noted)
    elsewhere = torch.empty(0, dtype=torch.float64, device="meta")
    one, two, again = (elastic_noise(np.random.default_rng(seed), (2, 20, 20, 50), elsewhere) for seed in (1, 2, 1))
    assert [device for _, device in seeds] == ["meta"] * 3
    assert torch.equal(one, again)
    assert abs(((one - 0.5) * (two - 0.5)).mean() * 12) < 0.03  # 6 deviations of the estimate
    assert one.dtype == torch.float64
    assert torch.equal(one, one.float().double())
    assert 0 <= one.min() < 0.001
    assert 0.999 < one.max() < 1


def test_devices_share_the_draws_that_come_before_the_noise() -> None:
    elsewhere, here = torch.empty(0, device="meta"), torch.empty(0)
    changed = Augmentation(shift=1, cutout=2)
    there = changed.draw(np.random.default_rng(0), (1, 6, 5, 4), elsewhere)
    assert [(tensor.shape, tensor.dtype, tensor.device.type) for tensor in there] == [
        (tensor.shape, tensor.dtype, "meta") for tensor in changed.draw(np.random.default_rng(0), (1, 6, 5, 4), here)
    ]


RUN = ["accumulate=3", "batch_size=5", "epochs=3", "augment=heavy", "clip_grad_norm=1"]


def saved(run_dir: str) -> Any:
    return checkpoint.load(Path(run_dir, "checkpoints/last.pkl"))


def test_a_run_has_the_same_bits(run: Run, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training with accumulation, stopped in mid-epoch and resumed, validation and test."""
    assert run("run_dir=cpu", *RUN) == 0
    monkeypatch.setattr(setup, "Batches", functools.partial(Batches, as_on_device=True))
    made = []
    make = making.DeviceMaker.make

    def counted(self: DeviceMaker, chosen: Tensor, generator: Any, slot: int) -> tuple[Tensor, Tensor]:
        made.append(slot)
        return make(self, chosen, generator, slot)

    monkeypatch.setattr(making.DeviceMaker, "make", counted)
    with monkeypatch.context() as patch:
        stop_at(13, patch)
        assert run("run_dir=device", *RUN) == 143
    assert train.main(["resume=device"]) == 0
    assert set(made) == {0, 1, 2}
    cpu, device = saved("cpu"), saved("device")
    for name, values in cpu.networks["model"].weights.items():
        assert np.array_equal(values, device.networks["model"].weights[name])
    for row, expected in zip(device.progress.rows, cpu.progress.rows, strict=True):
        assert {name for name in expected if row[name] != expected[name]} <= {"step_seconds", *metrics_csv.TIMING}
