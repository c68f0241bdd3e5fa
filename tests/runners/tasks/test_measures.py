"""Measures against scikit-image, scipy's matrix square root, closed forms and loops over all pairs."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from runners.tasks import measures
from runners.tasks.measures import class_shares, frechet_distance, precision_and_recall, psnr, ssim


def pictures(shape: tuple[int, ...], noise: float) -> tuple[Tensor, Tensor]:
    """Smooth pictures [C, H, W, N] in [0, 1], and the same with noise of another strength for each example."""
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(*shape, dtype=torch.float64, generator=generator)
    target[:, 1:] = (target[:, 1:] + target[:, :-1]) / 2
    strength = noise * torch.linspace(0.1, 1, shape[-1], dtype=torch.float64)
    y = target + strength * torch.randn(*shape, dtype=torch.float64, generator=generator)
    return y.clamp(0, 1), target


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SHAPES = [(1, 28, 28, 5), (3, 32, 32, 4), (1, 11, 11, 3), (2, 17, 40, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_psnr_against_scikit_image(shape: tuple[int, ...]) -> None:
    y, target = pictures(shape, 0.3)
    pairs = zip(y.movedim(-1, 0).numpy(), target.movedim(-1, 0).numpy(), strict=True)
    expected = [peak_signal_noise_ratio(its_target, its_y, data_range=1) for its_y, its_target in pairs]
    assert psnr(y, target).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_against_scikit_image(shape: tuple[int, ...], noise: float) -> None:
    y, target = pictures(shape, noise)
    expected = [
        structural_similarity(
            its_target,
            its_y,
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for its_y, its_target in zip(y.movedim(-1, 0).numpy(), target.movedim(-1, 0).numpy(), strict=True)
    ]
    assert ssim(y, target).tolist() == pytest.approx(expected, rel=1e-6)
    assert ssim(y.float(), target.float()).tolist() == pytest.approx(expected, abs=1e-4)


def test_equal_pictures() -> None:
    y, _ = pictures((1, 12, 12, 3), 0.1)
    assert psnr(y, y).tolist() == [100.0] * 3
    assert ssim(y, y).tolist() == pytest.approx([1.0] * 3, abs=1e-12)
    assert psnr(y + 1e-6, y).tolist() == [100.0] * 3  # closer than the limit of 100 dB
    assert psnr(torch.zeros(1, 2, 2, 1), torch.ones(1, 2, 2, 1)).item() == 0


def test_psnr_takes_examples_of_any_shape() -> None:
    assert psnr(torch.tensor([[0.1, 0.0], [0.1, 0.0]]), torch.zeros(2, 2)).tolist() == pytest.approx([20, 100])


def test_pictures_that_are_not_finite_spoil_only_themselves() -> None:
    y, target = pictures((1, 12, 12, 3), 0.1)
    y[0, 3, 3, 1] = torch.nan
    for measure in (psnr, ssim):
        assert measure(y, target).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(1, 10, 28, 2), (1, 28, 10, 2), (28, 28, 2), (1, 12, 12, 12, 2)])
def test_pictures_without_a_window(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[C, H, W, N\] with H and W of at least 11"):
        ssim(torch.zeros(shape), torch.zeros(shape))


def test_shapes_that_differ() -> None:
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=r"\[1, 12, 12, 2\] and \[1, 12, 12, 1\] differ"):
            measure(torch.zeros(1, 12, 12, 2), torch.zeros(1, 12, 12, 1))


def by_definition(a: Tensor, b: Tensor) -> float:
    """Heusel et al. 2017, equation 6, with the square root of a general matrix."""
    first, second = np.cov(a.numpy()), np.cov(b.numpy())
    root = sqrtm(first @ second)
    means = (a.mean(1) - b.mean(1)).square().sum().item()
    return float(means + np.trace(first + second - 2 * root.real))


@pytest.mark.parametrize(("features", "count", "other"), [(2, 50, 60), (16, 300, 200), (64, 1000, 1000)])
def test_frechet_distance_by_definition(features: int, count: int, other: int) -> None:
    mixing = normal(features, features, seed=1)
    a, b = mixing @ normal(features, count, seed=2), normal(features, other, seed=3) + 0.5
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(frechet_distance(a, b), rel=1e-5)


def whitened(features: int, count: int, seed: int) -> Tensor:
    """Features whose mean is 0 and whose covariance is the identity."""
    x = normal(features, count, seed=seed)
    x -= x.mean(1, keepdim=True)
    whitening: Tensor = torch.linalg.cholesky(x @ x.T / (count - 1)).inverse()
    return whitening @ x


def test_frechet_distance_of_diagonal_gaussians() -> None:
    """The sum of squared differences of means and of standard deviations."""
    means, deviations = torch.tensor([1.0, -2.0, 0.0]).double(), torch.tensor([0.5, 3.0, 0.0]).double()
    a = whitened(3, 100, 4)
    b = means[:, None] + deviations[:, None] * whitened(3, 80, 5)
    expected = (means.square() + (deviations - 1).square()).sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_one_feature() -> None:
    assert frechet_distance(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 4.0]])) == pytest.approx(1 + 2)


@pytest.mark.parametrize("count", [2, 20, 500])
def test_equal_sets_have_no_distance(count: int) -> None:
    """Also with fewer examples than features, and with features that are always 0, as of a ReLU that died."""
    a = 100 * normal(30, count, seed=6).clamp(min=0)
    a[10:20] = 0
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(a, a[:, order]) <= 1e-9


def test_singular_covariances() -> None:
    """Directions in which one set doesn't vary contribute the variance of the other."""
    a, b = whitened(6, 100, 7), whitened(6, 100, 8)
    a[:3], b[2:] = 0, 0
    assert frechet_distance(a, b) == pytest.approx(3 + 2, abs=1e-6)
    assert frechet_distance(torch.zeros(4, 5), torch.ones(4, 5)) == pytest.approx(4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite(value: float) -> None:
    good, bad = normal(4, 10, seed=1), normal(4, 10, seed=2)
    bad[2, 3] = value
    for sets in ((good, bad), (bad, good)):
        assert math.isnan(frechet_distance(*sets))
        assert all(map(math.isnan, precision_and_recall(*sets)))


@pytest.mark.parametrize(
    ("a", "b", "enough"),
    [((3, 9), (4, 9), 2), ((3, 1), (3, 9), 2), ((3, 9), (3, 1), 2), ((3, 9, 9), (3, 9), 2), ((9,), (9,), 2)],
)
def test_features_of_unusable_shapes(a: tuple[int, ...], b: tuple[int, ...], enough: int) -> None:
    with pytest.raises(ValueError, match=r"features are \[F, M\] and \[F, N\], with M and N of at least 2, not"):
        frechet_distance(torch.zeros(a), torch.zeros(b))
    with pytest.raises(ValueError, match=r"of at least 4, not"):
        precision_and_recall(torch.zeros(a), torch.zeros(b))


def covered_by_definition(points: Tensor, manifold: Tensor, k: int) -> float:
    """Kynkaanniemi et al. 2019, equations 1 to 3, point by point."""
    points, manifold = points.T, manifold.T
    radii = [sorted((other - point).norm().item() for other in manifold)[k] for point in manifold]  # itself is first
    inside = [
        any((point - centre).norm() <= radius for centre, radius in zip(manifold, radii, strict=True))
        for point in points
    ]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", [7, 512])
def test_precision_and_recall_by_definition(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "BLOCK", block)
    real, generated = normal(5, 70, seed=1) + 100, 0.7 * normal(5, 50, seed=2) + 100.5
    precision, recall = precision_and_recall(real, generated, k)
    assert precision == covered_by_definition(generated, real, k)
    assert recall == covered_by_definition(real, generated, k)
    assert 0 < recall < precision <= 1
    assert precision_and_recall(generated, real, k) == (recall, precision)


def test_the_same_distribution() -> None:
    assert min(precision_and_recall(normal(4, 1000, seed=1), normal(4, 1000, seed=2))) > 0.85
    same = normal(4, 200, seed=1)
    assert precision_and_recall(same, same) == (1, 1)


def test_a_collapsed_set() -> None:
    """All it has is realistic, but it is nearly nothing of what there is; and the other way round."""
    real = normal(8, 1000, seed=1)
    collapsed = 0.01 * normal(8, 1000, seed=2)
    precision, recall = precision_and_recall(real, collapsed)
    assert precision > 0.95
    assert recall < 0.01
    assert precision_and_recall(collapsed, real) == (recall, precision)


def test_sets_that_are_apart() -> None:
    assert precision_and_recall(normal(3, 100, seed=1), normal(3, 100, seed=2) + 50) == (0, 0)


def test_balls_without_a_radius_have_their_own_points() -> None:
    """One example of the real ones, again and again."""
    real = 1000 + normal(8, 100, seed=1)
    repeated = real[:, :1].repeat(1, 50)
    assert precision_and_recall(real, repeated) == (1, 0.01)
    assert precision_and_recall(repeated, real) == (0.01, 1)


def test_large_sets_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """All distances of 2,000 and 2,000 points would take 32 MB."""
    monkeypatch.setattr(measures, "BLOCK", 64)
    real, generated = normal(16, 2000, seed=1), normal(16, 2000, seed=2)
    tracemalloc.start()
    try:
        first = precision_and_recall(real, generated)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert precision_and_recall(real, generated) == first


def test_class_shares() -> None:
    shares = class_shares(torch.tensor([0, 2, 2, 0, 2]), 4)
    assert shares.tolist() == pytest.approx([0.4, 0, 0.6, 0])
    for wrong in ([4], [-1], []):
        with pytest.raises(ValueError, match="classes have to be 0 to 3"):
            class_shares(torch.tensor(wrong, dtype=torch.int64), 4)
