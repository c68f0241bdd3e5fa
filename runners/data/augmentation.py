"""Augmentation: randomly shift, rotate, distort, mirror and partly erase training images, a whole batch at a time.

All geometric changes are combined into one map from the new image's pixels to places on the old one, sampled once.
Images are [C, *S, N] with height and width last in S; the axes before them, such as the frames of a clip, share a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from cnn.arguments import Fraction, NonNegative, UnitInterval
from runners.data.transfer import upload

Array = np.ndarray[Any, Any]
Pixels = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Sigma = Annotated[float, Field(ge=0.1, le=1000, allow_inf_nan=False)]
Degrees = Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)]


class Augmentation:
    """Random changes of training images; each argument is an amount, and 0 turns it off.

    y(p) = x(c + A (p - c - t) + u(p)), c the image's centre, x bilinear between pixels and 0 (black) outside, with
    A = [[cos a, sin a], [-f sin a, f cos a]] / s on (row, column): the image is mirrored (f = -1), rotated by a
    counter-clockwise, scaled by s, shifted by t, and displaced by a smooth field u; then a square is erased.

    shift: t is uniform in [-shift, shift] pixels along both axes (a real number: fractions blur the image slightly).
    rotation: a is uniform in [-rotation, rotation] degrees. scale: s is uniform in [1 - scale, 1 + scale].
    elastic: root mean square of u along each axis, in pixels; elastic_sigma: standard deviation of the Gaussian that
    smooths u, in pixels (Simard, Steinkraus and Platt 2003, section 2; they scale u differently).
    flip: probability of f = -1. crop: black padding in pixels before a random crop to the original size, which adds an
    integer from -crop to crop to t along both axes (both as in He et al. 2016, section 4.2).
    cutout: side in pixels of the square set to 0, centred on any pixel (DeVries and Taylor 2017, section 3).
    """

    def __init__(
        self,
        shift: Pixels = 0.0,
        rotation: Degrees = 0.0,
        scale: Fraction = 0.0,
        elastic: Pixels = 0.0,
        elastic_sigma: Sigma = 4.0,
        flip: UnitInterval = 0.0,
        crop: NonNegative = 0,
        cutout: NonNegative = 0,
    ) -> None:
        self.shift = shift
        self.rotation = rotation
        self.scale = scale
        self.elastic = elastic
        self.elastic_sigma = elastic_sigma
        self.flip = flip
        self.crop = crop
        self.cutout = cutout

    @property
    def changes_anything(self) -> bool:
        """Whether any amount is nonzero."""
        return self._moves or bool(self.cutout)

    @property
    def _moves(self) -> bool:
        """Whether pixels are sampled from other places."""
        return any((self.shift, self.rotation, self.scale, self.elastic, self.flip, self.crop))

    def __call__(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Change pixels [C, *S, N] of any floating type, where 0 is black; returns new images of the same shape."""
        return self.apply(x, self.draw(generator, x.shape, x))

    def draw(self, generator: np.random.Generator, shape: Sequence[int], like: Tensor) -> list[Tensor]:
        """The random numbers that change images [C, *S, N] of this shape; for a dtype and a device, those of `like`.

        They are the same for every device, except for the noise of `elastic` and the squares that are drawn after it.
        """
        draws: list[Tensor] = []
        if not self.changes_anything:
            return draws
        height, width, count = shape[-3:]
        if self._moves:
            matrix, shift = self.draw_affine(generator, count)
            draws.append(_like(like, np.concatenate([matrix, shift[None]])))  # as one, which is copied at once
        if self.elastic:
            draws.append(elastic_noise(generator, (2, height, width, count), like))
        if self.cutout:
            centres = generator.integers([[height], [width]], size=(2, count), endpoint=False)
            draws.append(upload(torch.from_numpy(centres - self.cutout // 2), like.device))
        return draws

    def apply(self, x: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """Change pixels [C, *S, N] by what `draw` has returned for their shape: a function of tensors alone."""
        if self._moves:
            x = sample(x, self._places(x, *draws[: 2 if self.elastic else 1]))
        return erase(x, draws[-1], self.cutout) if self.cutout else x

    def _places(self, x: Tensor, affine: Tensor, noise: Tensor | None = None) -> Tensor:
        """The place on the old image of each pixel of the new one, [2, H, W, N]; `affine` is A, and t below it."""
        places = affine_grid(affine[:2], affine[2], *x.shape[-3:-1])
        if noise is not None:
            places += self.elastic * displacement(noise, self.elastic_sigma)
        return places

    def draw_affine(self, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
        """A [2, 2, count] and t [2, count] for this many images."""
        draws = generator.uniform(-1, 1, (4, count))
        angle = np.radians(self.rotation) * draws[0]
        cos, sin = np.cos(angle), np.sin(angle)
        mirror = np.where(generator.random(count) < self.flip, -1, 1)
        matrix = np.array([[cos, sin], [-mirror * sin, mirror * cos]]) / (1 + self.scale * draws[1])
        return matrix, self.shift * draws[2:] + generator.integers(-self.crop, self.crop, (2, count), endpoint=True)


def _like(x: Tensor, values: Array) -> Tensor:
    return upload(torch.from_numpy(values).to(x.dtype), x.device)


def elastic_noise(generator: np.random.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform noise in [0, 1). It is too large to be copied to a device, and is drawn there, from a seed.

    Drawn in float32, so that both precisions see the same images.
    """
    if like.device.type == "cpu":
        return _like(like, generator.random(shape, np.float32))
    return noise_from_seed(int(generator.integers(2**63)), shape, like.device).to(like.dtype)


def noise_from_seed(seed: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform noise in [0, 1) that a device draws."""
    source = torch.Generator(device=device).manual_seed(seed)
    return torch.rand(shape, generator=source, dtype=torch.float32, device=device)


def affine_grid(matrix: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """The places c + A (p - c - t) for all pixels p, [2, H, W, N]: rows, then columns; A [2, 2, N], t [2, N]."""
    centre = (height - 1) / 2, (width - 1) / 2
    down = torch.arange(height, dtype=matrix.dtype, device=matrix.device)[:, None] - centre[0]
    right = torch.arange(width, dtype=matrix.dtype, device=matrix.device)[:, None] - centre[1]
    by_row = matrix[:, :1] * (down - shift[0])  # [2, H, N]
    by_column = matrix[:, 1:] * (right - shift[1])  # [2, W, N]
    for places, middle in zip(by_column, centre, strict=True):
        places += middle  # last, so that a shift by whole pixels is exact
    return by_row[:, :, None] + by_column[:, None]


def displacement(noise: Tensor, sigma: float) -> Tensor:
    """Smooth fields from noise [2, H, W, N] that is uniform in [0, 1): mean 0, standard deviation 1 at every pixel."""
    _, height, width, _ = noise.shape
    field = (noise - 0.5) * 12**0.5
    field = (_smoothing(height, sigma, noise.dtype, noise.device) @ field.flatten(2)).view_as(noise)
    return (_smoothing(width, sigma, noise.dtype, noise.device) @ field.flatten(0, 1)).view_as(noise)


@cache
def _smoothing(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian smoothing as a matrix [size, size]. The squares of each row sum to 1, which preserves variance.

    It is copied to a device once, and not while a batch is recorded: the first one isn't.
    """
    distance = np.subtract.outer(np.arange(size), np.arange(size)) / sigma
    kernel = np.exp(-(distance**2) / 2)
    return torch.from_numpy(kernel / np.sqrt((kernel**2).sum(1, keepdims=True))).to(dtype).to(device)


def sample(x: Tensor, places: Tensor) -> Tensor:
    """Sample x [C, *S, N] at places [2, H, W, N], in pixels: bilinear between pixels, 0 outside. Returns [C, *S, N]."""
    *lead, height, width, count = x.shape
    padded = x.new_zeros(*lead, height + 2, width + 2, count)
    padded[..., 1:-1, 1:-1, :] = x
    rows, columns = places[0].clamp(-1, height), places[1].clamp(-1, width)  # beyond the padding, all is black as well
    top, left = rows.floor().clamp_(max=height - 1), columns.floor().clamp_(max=width - 1)
    down, right = rows.sub_(top), columns.sub_(left)
    line = (width + 2) * count
    corner = top.add_(1).mul_(width + 2).add_(left).add_(1).to(torch.int64).mul_(count)
    corner += torch.arange(count, device=x.device)
    flat = padded.view(-1, (height + 2) * line)
    index = corner.view(1, -1).expand(len(flat), -1)

    def neighbour(offset: int) -> Tensor:
        return flat[:, offset:].gather(1, index).view_as(x)

    upper = neighbour(0).lerp_(neighbour(count), right.expand_as(x))
    lower = neighbour(line).lerp_(neighbour(line + count), right.expand_as(x))
    return upper.lerp_(lower, down.expand_as(x))


def erase(x: Tensor, corner: Tensor, side: int) -> Tensor:
    """x [C, *S, N] with squares set to 0; `corner` [2, N] is the first row and column of each, possibly outside."""
    rows, columns = (
        torch.arange(size, device=x.device)[:, None] - first for size, first in zip(x.shape[-3:-1], corner, strict=True)
    )
    inside = ((rows >= 0) & (rows < side))[:, None] & ((columns >= 0) & (columns < side))
    return x.masked_fill(inside, 0)
