"""Augmentation: exact where it can be, torch's sampling as the oracle elsewhere, the same bits for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cnn import ops
from runners.data.augmentation import Augmentation, affine_grid, displacement, sample
from runners.data.batches import Batches
from runners.data.dataset import Examples
from runners.files import checkpoint
from tests.cnn.oracle import ours, theirs
from tests.runners.conftest import Run

seeds = st.integers(0, 2**32)
sizes = st.integers(2, 12)
leads = st.sampled_from([(1,), (3,), (2, 4)])
precisions = st.sampled_from([(torch.float64, 1e-9), (torch.float32, 1e-4)])


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Pixels from 1 to 255: none is black by itself."""
    return 1 + 254 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """Shifted by whole pixels, black moving in."""
    height, width = x.shape[-3:-1]
    y = torch.zeros_like(x)
    y[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0), :] = x[
        ..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0), :
    ]
    return y


def test_nothing_is_done_by_default() -> None:
    x = images(1, 5, 5, 3)
    assert Augmentation()(x, random()) is x


@given(leads, sizes, sizes, st.integers(-13, 13), st.integers(-13, 13), precisions)
def test_shifts_by_whole_pixels_are_exact(
    lead: tuple[int, ...], height: int, width: int, down: int, right: int, precision: tuple[torch.dtype, float]
) -> None:
    x = images(*lead, height, width, 2, dtype=precision[0])
    matrix = torch.eye(2, dtype=x.dtype)[..., None].expand(2, 2, 2)
    y = sample(x, affine_grid(matrix, x.new_tensor([[down, 0], [right, 0]]), height, width))
    assert torch.equal(y[..., :1], moved(x[..., :1], *(np.clip((down, right), (-height, -width), (height, width)))))
    assert torch.equal(y[..., 1], x[..., 1])


@pytest.mark.parametrize("size", [4, 7])
def test_a_quarter_turn_is_exact(size: int) -> None:
    x = images(2, size, size, 3)
    matrix = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=x.dtype)[..., None].expand(2, 2, 3)  # a = 90 degrees
    assert torch.equal(sample(x, affine_grid(matrix, x.new_zeros(2, 3), size, size)), x.rot90(1, (1, 2)))


def test_rotation_is_counter_clockwise_by_at_most_its_degrees() -> None:
    class Largest(np.random.Generator):
        def uniform(self, low: Any = 0, high: Any = 1, size: Any = None) -> Any:
            return np.full(size, high, float)

    turned = Augmentation(rotation=90)(images(1, 6, 6, 2), Largest(np.random.PCG64(0)))
    assert torch.allclose(turned, images(1, 6, 6, 2).rot90(1, (1, 2)), rtol=0, atol=1e-9)


def by_torch(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """The same map through torch's normalised coordinates, (x, y) with the corner pixels' centres at -1 and 1."""
    height, width, count = x.shape[-3:]
    tall, wide = (height - 1) / 2, (width - 1) / 2
    (rr, rc), (cr, cc) = matrix
    offset = -(matrix * shift).sum(1)
    theta = torch.stack(
        [
            torch.stack([cc, cr * tall / wide, offset[1] / wide], -1),
            torch.stack([rc * wide / tall, rr, offset[0] / tall], -1),
        ],
        -2,
    )
    grid = nn.functional.affine_grid(theta, [count, 1, height, width], align_corners=True)
    flat = theirs(x.reshape(-1, height, width, count))
    return ours(nn.functional.grid_sample(flat, grid, align_corners=True)).view_as(x)


@given(
    leads,
    sizes,
    sizes,
    st.integers(1, 4),
    seeds,
    precisions,
    st.fixed_dictionaries(
        {
            "shift": st.floats(0, 6),
            "rotation": st.floats(0, 180),
            "scale": st.floats(0, 0.9),
            "flip": st.sampled_from([0.0, 0.5, 1.0]),
            "crop": st.integers(0, 4),
        }
    ),
)
def test_affine_maps_against_torch(
    lead: tuple[int, ...],
    height: int,
    width: int,
    count: int,
    seed: int,
    precision: tuple[torch.dtype, float],
    amounts: Any,
) -> None:
    dtype, tolerance = precision
    x = images(*lead, height, width, count, seed=seed, dtype=dtype) / 255
    augmentation = Augmentation(**amounts)
    matrix, shift = map(torch.from_numpy, augmentation.draw_affine(random(seed), count))
    expected = by_torch(x.double(), matrix, shift)
    assert (augmentation(x, random(seed)) - expected).abs().max() <= tolerance


def test_amounts_are_what_is_drawn() -> None:
    matrix, shift = Augmentation(2.5, 30, 0.2, flip=0.25).draw_affine(random(), 4000)
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    factor = np.abs(determinant) ** -0.5
    angle = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0]))
    assert np.allclose(np.einsum("ijn,kjn->ikn", matrix, matrix) * factor**2, np.eye(2)[..., None])
    for values, low, high in ((shift, -2.5, 2.5), (angle, -30, 30), (factor, 0.8, 1.2)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert 0.22 < (determinant < 0).mean() < 0.28


def test_flips() -> None:
    x = images(3, 4, 5, 400)
    mirrored = x.flip(-2)
    assert torch.equal(Augmentation(flip=1.0)(x, random()), mirrored)
    y = Augmentation(flip=0.5)(x, random())
    flipped = [torch.equal(y[..., n], mirrored[..., n]) for n in range(400)]
    assert all(done or torch.equal(y[..., n], x[..., n]) for n, done in enumerate(flipped))
    assert 160 < sum(flipped) < 240


def test_crops_move_by_whole_pixels_and_reach_every_place() -> None:
    x = images(1, 6, 7, 1).expand(1, 6, 7, 600)
    y = Augmentation(crop=2)(x, random())
    found = torch.zeros(5, 5, dtype=torch.int64)
    for down in range(-2, 3):
        for right in range(-2, 3):
            found[down + 2, right + 2] = (y == moved(x, down, right)).flatten(0, -2).all(0).sum()
    assert found.sum() == 600
    assert found.min() > 8


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutouts_are_squares_centred_on_any_pixel(side: int) -> None:
    x = images(2, 9, 11, 800)
    y = Augmentation(cutout=side)(x, random())
    erased = y == 0
    assert torch.equal(y[~erased], x[~erased])
    assert torch.equal(erased[0], erased[1])
    rows, columns = erased[0].any(1), erased[0].any(0)
    assert torch.equal(erased[0], rows[:, None] & columns[None])
    for axis, size in ((rows, 9), (columns, 11)):
        inner = axis[side:-side].any(0) & ~axis[0] & ~axis[-1]
        assert (axis.sum(0)[inner] == side).all()
        assert set(axis.sum(0).tolist()) == set(range((side + 1) // 2, side + 1))  # cut off where the centre is close
        assert (axis.sum(1) > 400 * side / size / 2).all()
    assert not Augmentation(cutout=100)(x, random()).any()


def test_the_field_has_the_stated_strength_everywhere_and_is_smooth() -> None:
    sigma = 3.0
    field = displacement(torch.from_numpy(random().random((2, 20, 24, 3000))), sigma)
    assert field.mean(-1).abs().max() < 0.1
    assert (field.std(-1) - 1).abs().max() < 0.08  # 6 deviations of the estimate, at borders and corners too
    correlation = np.exp(-1 / (4 * sigma**2))  # of neighbours under a Gaussian of this sigma
    for axis in (1, 2):
        step = field[:, 9:12, 9:12].diff(dim=axis).square().mean().item()
        assert step == pytest.approx(2 * (1 - correlation), rel=0.1)
    shared = (field[0, 10, 10] * field[1, 10, 10]).mean()
    assert abs(shared) < 0.1


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_elastic_displacements_are_in_pixels(strength: float) -> None:
    """On a ramp the pixel at a place is the place itself."""
    ramp = torch.arange(60.0, dtype=torch.float64)
    x = torch.stack([ramp[:, None].expand(60, 60), ramp[None].expand(60, 60)])[..., None].expand(2, 60, 60, 50)
    moved_by = (Augmentation(elastic=strength)(x, random()) - x)[:, 20:40, 20:40]
    assert moved_by.square().mean(dim=(1, 2, 3)).sqrt().tolist() == pytest.approx([strength] * 2, rel=0.1)


EVERYTHING = Augmentation(2, 20, 0.2, elastic=1, flip=0.5, crop=1, cutout=3)


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    clips = images(2, 5, 9, 8, 6)
    changed = EVERYTHING(clips, random())
    for frame in range(5):
        assert torch.equal(changed[:, frame], EVERYTHING(clips[:, frame], random()))
    assert not torch.equal(changed, clips)


def test_both_precisions_see_the_same_images_and_x_is_left_alone() -> None:
    x = images(1, 9, 8, 6)
    before = x.clone()
    double, single = EVERYTHING(x, random()), EVERYTHING(x.float(), random())
    assert single.dtype == torch.float32
    assert (double - single).abs().max() < 1e-4 * 255
    assert torch.equal(x, before)


@pytest.fixture
def examples() -> Examples:
    pixels = images(70, 1, 12, 12).to(torch.uint8)
    return Examples(pixels, torch.arange(70))


def make(examples: Examples, augmentation: Augmentation | None) -> Batches:
    settings: Any = {"mean": 0.1, "std": 0.3, "dtype": torch.float32, "device": torch.device("cpu")}
    return Batches(examples, 32, **settings, augmentation=augmentation)


def drawn(batches: Batches, seed: int, epoch: int) -> Tensor:
    """The images of an epoch in the order of their labels, [C, H, W, count]."""
    found = list(batches.shuffled(seed, epoch))
    x, labels = torch.cat([batch.x for batch in found], -1), torch.cat([batch.targets for batch in found])
    assert sorted(labels.tolist()) == list(range(70))
    return x[..., labels.argsort()]


@pytest.mark.parametrize("threads", [1, 2])
def test_seed_and_epoch_decide_every_bit(examples: Examples, threads: int) -> None:
    batches = make(examples, EVERYTHING)
    first = drawn(batches, 3, 5)
    ops.set_threads(threads)
    assert torch.equal(first, drawn(batches, 3, 5))
    for seed, epoch in ((3, 6), (4, 5)):
        same = (first == drawn(batches, seed, epoch)).flatten(0, 2).all(0)
        assert not same.any()


def test_batches_of_an_epoch_differ() -> None:
    same = Examples(images(1, 1, 12, 12).to(torch.uint8).expand(64, 1, 12, 12), torch.zeros(64, dtype=torch.int64))
    first, second = make(same, EVERYTHING).shuffled(0, 0)
    assert not torch.equal(first.x, second.x)


def test_order_and_labels_are_those_without_augmentation(examples: Examples) -> None:
    changed, plain = make(examples, Augmentation(shift=2)), make(examples, None)
    for batch, as_it_is in zip(changed.shuffled(1, 2), plain.shuffled(1, 2), strict=True):
        assert torch.equal(batch.targets, as_it_is.targets)
        assert not torch.equal(batch.x, as_it_is.x)
    for batch, as_it_is in zip(changed.in_order(), plain.in_order(), strict=True):
        assert torch.equal(batch.x, as_it_is.x)


def test_black_moves_in(examples: Examples) -> None:
    """Augmentation comes before normalisation: what is outside has the value of a black pixel."""
    batch = next(make(examples, Augmentation(cutout=100)).shuffled(0, 0))
    assert torch.allclose(batch.x, torch.tensor(-0.1 / 0.3))


def test_mistakes_in_amounts_are_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "rotation=181": "a number >= 0 and <= 180",
        "shift=nan": "a number >= 0 and <= 1000",
        "scale=1": "a number >= 0 and < 1",
        "flip=2": "a number >= 0 and <= 1",
        "crop=1.5": "a whole number >= 0",
        "elastic_sigma=0": "a number >= 0.1 and <= 1000",
    }
    assert run(*(f"augment.{override}" for override in wrong), "augment.cutoff=3") == 2
    told = capsys.readouterr().err
    for override, allowed in wrong.items():
        key, value = override.split("=")
        assert f"augment.{key}: {value} is not allowed, give {allowed}" in told
    assert "augment.cutoff: unknown, did you mean cutout?" in told


@pytest.mark.parametrize("amounts", [{"shift": 1000.0}, {"elastic": 1000.0}, {"crop": 2**31 - 1}])
def test_the_largest_amounts_leave_finite_images(amounts: Any) -> None:
    x = images(1, 5, 5, 40, dtype=torch.float32)
    y = Augmentation(**amounts)(x, random())
    assert y.isfinite().all()
    assert (y == 0).any()


def test_a_run_augments_its_training_images_and_no_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counting(self: Augmentation, x: Tensor, generator: np.random.Generator) -> Tensor:
        counts.append(x.shape[-1])
        assert (self.rotation, self.cutout) == (10, 3)
        return x

    monkeypatch.setattr(Augmentation, "__call__", counting)
    assert run("augment=light", "augment.cutout=3", "epochs=2", "data.num_examples=50") == 0
    assert sum(counts) == 2 * 50


def test_augmented_runs_of_a_seed_have_the_same_bits(run: Run) -> None:
    for name, choice in (("a", "heavy"), ("b", "heavy"), ("c", "none")):
        assert run(f"run_dir={name}", f"augment={choice}") == 0
    a, b, c = (checkpoint.load(Path(name, "checkpoints/last.pkl")).networks["model"].weights for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not all(np.array_equal(a[name], c[name]) for name in a)
