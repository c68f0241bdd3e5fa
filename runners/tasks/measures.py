"""Measures of pictures and of sets of samples, for tasks that aren't classification. Tensors have the batch last.

Values that are infinite or NaN give a measure that is NaN or infinite: the loop reports such a metric as divergence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

MAX_PSNR = 100.0
SSIM_WINDOW = 11
"""Height and width of the window of `ssim`, in pixels; smaller pictures have no SSIM."""
SIGMA, K1, K2 = 1.5, 0.01, 0.03
BLOCK = 512
"""Rows of a matrix of distances that are in memory at a time."""


def psnr(y: Tensor, target: Tensor) -> Tensor:
    r"""The peak signal-to-noise ratio of each example, [N], in dB, for values in [0, 1] of shape [..., N].

    $10 \log_{10} (1 / \mathrm{MSE})$ with the example's mean squared error, and at most 100 dB: what an MSE of 0, which
    has no finite ratio, counts as. Raises ValueError if the shapes differ.
    """
    _check_shapes(y, target)
    return (-10 * (y - target).square().flatten(0, -2).mean(0).log10()).clamp(max=MAX_PSNR)


def ssim(y: Tensor, target: Tensor) -> Tensor:
    r"""The structural similarity of each picture, [N], for values in [0, 1] of shape [C, H, W, N].

    The mean over channels and windows of

    $$\frac{(2 \mu_y \mu_t + C_1) (2 \sigma_{yt} + C_2)}{(\mu_y^2 + \mu_t^2 + C_1) (\sigma_y^2 + \sigma_t^2 + C_2)}$$

    with $C_1 = 0.01^2$, $C_2 = 0.03^2$, and means, variances and the covariance weighted by a Gaussian window of 11x11
    pixels with a standard deviation of 1.5. Only windows within the picture count. After Wang et al. 2004, equation 13
    and section III-C. Raises ValueError if the shapes differ, or if the pictures are smaller than `SSIM_WINDOW`.
    """
    _check_shapes(y, target)
    if y.dim() != 4 or min(y.shape[1:3]) < SSIM_WINDOW:
        allowed = f"[C, H, W, N] with H and W of at least {SSIM_WINDOW}"
        raise ValueError(f"the structural similarity takes pictures {allowed}, not {list(y.shape)}")
    mean_y, mean_t = _windowed(y), _windowed(target)
    of_means = 2 * mean_y * mean_t, mean_y.square() + mean_t.square()
    covariance = 2 * _windowed(y * target) - of_means[0]
    variances = _windowed(y.square() + target.square()) - of_means[1]
    c1, c2 = K1**2, K2**2
    similarity = (of_means[0] + c1) * (covariance + c2) / ((of_means[1] + c1) * (variances + c2))
    return similarity.flatten(0, -2).mean(0)


def _windowed(x: Tensor) -> Tensor:
    """The Gaussian mean of each window, [C, H - 10, W - 10, N]; the window is separable: along H, then along W."""
    weights = [math.exp(-(((i - SSIM_WINDOW // 2) / SIGMA) ** 2) / 2) for i in range(SSIM_WINDOW)]
    for axis in (1, 2):
        places = x.shape[axis] - SSIM_WINDOW + 1
        y = torch.zeros_like(x.narrow(axis, 0, places))
        for start, weight in enumerate(weights):
            y.add_(x.narrow(axis, start, places), alpha=weight / sum(weights))
        x = y
    return x


def _check_shapes(y: Tensor, target: Tensor) -> None:
    if y.shape != target.shape:
        raise ValueError(f"the shapes {list(y.shape)} and {list(target.shape)} differ")


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""The squared Frechet distance of two Gaussians with the means and covariances of features [F, M] and [F, N].

    $$|\mu_a - \mu_b|^2 + \mathrm{tr}(C_a + C_b - 2 (C_a C_b)^{1/2})$$

    with unbiased covariances, in float64. After Dowson & Landau 1982, equation 4; Heusel et al. 2017, equation 6, whose
    features come from another network, so that numbers compare only for the same features. Features that aren't finite
    give NaN. Raises ValueError if the numbers of features differ, or for fewer than two examples.
    """
    first, second = _features(a, b, at_least=2)
    if not _finite(first, second):
        return math.nan
    means = [features.mean(1) for features in (first, second)]
    covariances = [np.cov(features).reshape(len(features), -1) for features in (first, second)]
    # The product of two covariances isn't symmetric. The trace of its root is the sum of the singular values of the
    # product of their own roots, which is as accurate where covariances are singular.
    roots = [_root(covariance) for covariance in covariances]
    trace = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    distance = np.square(means[0] - means[1]).sum() + sum(map(np.trace, covariances)) - 2 * trace
    return max(float(distance), 0.0)


def _root(covariance: Array) -> Array:
    """The square root of a symmetric matrix; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    root: Array = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    return root


def precision_and_recall(real: Tensor, generated: Tensor, k: int = 3) -> tuple[float, float]:
    """How much of what is generated is realistic, and how much of what is real can be generated, each from 0 to 1.

    A set of features covers the union of balls around its points, each of which reaches to the point's k-th nearest
    neighbour in the set. Precision is the share of generated points [F, N] that the real ones [F, M] cover, recall the
    share of real points that the generated ones cover. After Kynkaanniemi et al. 2019, equations 1 to 3. Features that
    aren't finite give NaN. Raises ValueError if the numbers of features differ, or for at most k examples.
    """
    r, g = (features.T for features in _features(real, generated, at_least=k + 1))
    if not _finite(r, g):
        return math.nan, math.nan
    r, g = r - r.mean(0), g - r.mean(0)  # short vectors: differences of their squares lose fewer digits
    real_radii, generated_radii = _squared_radii(r, k), _squared_radii(g, k)
    realistic, covered = np.zeros(len(g), bool), np.zeros(len(r), bool)
    for rows, distances in _squared_distances(r, g):
        realistic |= (distances <= real_radii[rows, None]).any(0)
        covered[rows] = (distances <= generated_radii).any(1)
    return float(realistic.mean()), float(covered.mean())


def _squared_radii(points: Array, k: int) -> Array:
    """The squared distance of each point [N, F] from its k-th nearest neighbour, which isn't itself."""
    radii = np.empty(len(points))
    for rows, distances in _squared_distances(points, points):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(distances, k - 1)[:, k - 1]
    return radii


def _squared_distances(a: Array, b: Array) -> Iterator[tuple[slice, Array]]:
    """Squared distances of all pairs of points [M, F] and [N, F], some rows [rows, N] at a time.

    |a - b|^2 is |a|^2 + |b|^2 - 2ab, a matrix product. What rounding can leave of 0 counts as 0, so that equal points
    are in each other's balls also where these have no radius.
    """
    of_a, of_b = np.square(a).sum(1), np.square(b).sum(1)
    noise = 4 * a.shape[1] * np.finfo(a.dtype).eps
    for start in range(0, len(a), BLOCK):
        rows = slice(start, min(start + BLOCK, len(a)))
        scale = of_a[rows, None] + of_b
        distances = scale - 2 * (a[rows] @ b.T)
        distances[distances <= noise * scale] = 0
        yield rows, distances


def _features(a: Tensor, b: Tensor, at_least: int) -> tuple[Array, Array]:
    """Two sets of features [F, M] and [F, N] in float64."""
    for features in (a, b):
        if features.dim() != 2 or features.shape[0] != a.shape[0] or features.shape[1] < at_least:
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise ValueError(f"features are [F, M] and [F, N], with M and N of at least {at_least}, not {shapes}")
    return a.cpu().double().numpy(), b.cpu().double().numpy()


def _finite(*arrays: Array) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


def class_shares(classes: Tensor, count: int) -> Tensor:
    """The share of examples in each of `count` classes, [count] in float64, for classes [N].

    Raises ValueError for a class that isn't 0 to count - 1, and if there are no examples.
    """
    if not len(classes) or not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise ValueError(f"there have to be examples, and their classes have to be 0 to {count - 1}")
    return torch.bincount(classes.cpu(), minlength=count).double() / len(classes)
