"""Augmentation: randomly shift, rotate, distort, mirror and partly erase training images, a whole batch at a time.

All geometric changes are combined into one map from the new image's pixels to places on the old one, sampled once.
Images are [C, *S, N] with height and width last in S; the axes before them, such as the frames of a clip, share a map.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from cnn.arguments import Fraction, NonNegative, UnitInterval

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
        return any((self.shift, self.rotation, self.scale, self.elastic, self.flip, self.crop, self.cutout))

    def __call__(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Change pixels [C, *S, N] of any floating type, where 0 is black; returns new images of the same shape."""
        if any((self.shift, self.rotation, self.scale, self.elastic, self.flip, self.crop)):
            x = sample(x, self._places(x, generator))
        if self.cutout:
            height, width, count = x.shape[-3:]
            centres = generator.integers([[height], [width]], size=(2, count), endpoint=False)
            x = erase(x, torch.from_numpy(centres - self.cutout // 2).to(x.device), self.cutout)
        return x

    def _places(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """The place on the old image of each pixel of the new one, [2, H, W, N]."""
        height, width, count = x.shape[-3:]
        matrix, shift = self.draw_affine(generator, count)
        places = affine_grid(_like(x, matrix), _like(x, shift), height, width)
        if self.elastic:  # drawn in float32, so that both precisions see the same images
            noise = _like(x, generator.random((2, height, width, count), np.float32))
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
    return torch.from_numpy(values).to(x.dtype).to(x.device)


def affine_grid(matrix: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """The places c + A (p - c - t) for all pixels p, [2, H, W, N]: rows, then columns; A [2, 2, N], t [2, N]."""
    centre = matrix.new_zeros(2, 1)
    centre[0], centre[1] = (height - 1) / 2, (width - 1) / 2
    down = torch.arange(height, dtype=matrix.dtype, device=matrix.device)[:, None] - centre[0]
    right = torch.arange(width, dtype=matrix.dtype, device=matrix.device)[:, None] - centre[1]
    # c is added last, so that a shift by whole pixels is exact
    by_row = matrix[:, :1] * (down - shift[0])  # [2, H, N]
    by_column = matrix[:, 1:] * (right - shift[1]) + centre[:, None]  # [2, W, N]
    return by_row[:, :, None] + by_column[:, None]


def displacement(noise: Tensor, sigma: float) -> Tensor:
    """Smooth fields from noise [2, H, W, N] that is uniform in [0, 1): mean 0, standard deviation 1 at every pixel."""
    _, height, width, _ = noise.shape
    field = (noise - 0.5) * 12**0.5
    field = (_like(noise, _smoothing(height, sigma)) @ field.flatten(2)).view_as(noise)
    return (_like(noise, _smoothing(width, sigma)) @ field.flatten(0, 1)).view_as(noise)


@cache
def _smoothing(size: int, sigma: float) -> Array:
    """Gaussian smoothing as a matrix [size, size]. The squares of each row sum to 1, which preserves variance."""
    distance = np.subtract.outer(np.arange(size), np.arange(size)) / sigma
    kernel = np.exp(-(distance**2) / 2)
    matrix: Array = kernel / np.sqrt((kernel**2).sum(1, keepdims=True))
    return matrix


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
