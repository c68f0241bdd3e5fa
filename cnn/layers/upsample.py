"""Upsampling by repetition or by linear interpolation. The backward passes are derived in docs/shapes.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple

from torch import Tensor

from cnn import ops
from cnn.arguments import PositivePerAxis
from cnn.faults import ConfigError, Fault
from cnn.layer import Cache, Layer, Mode, Shape, ShapeError

LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}
"""Spatial axes of the modes that interpolate."""


class Upsample(Layer):
    """Enlarge each spatial axis `scale_factor` times, as `torch.nn.Upsample` does.

    `mode: nearest` repeats values:
    Forward:  y[c, i, n] = x[c, i // scale, n]
    Backward: dx[c, p, n] = sum over all i with i // scale = p of dy[c, i, n]

    `mode: linear` (of one spatial axis), `bilinear` (two) and `trilinear` (three) interpolate between two neighbours,
    one axis after the other:
    Forward:  y[c, i, n] = (1 - t_i) * x[c, p_i, n] + t_i * x[c, q_i, n],  q_i = min(p_i + 1, S - 1),
              p_i + t_i = max((i + 1/2) / scale - 1/2, 0), or i * (S - 1) / (S * scale - 1) with `align_corners`
    Backward: dx[c, p, n] = sum over i with p_i = p of (1 - t_i) * dy[c, i, n]
                            + sum over i with q_i = p of t_i * dy[c, i, n]

    Shapes: x [C, *S, N], y [C, *(S * scale), N]; the scale is one number, or one per axis.
    Raises ShapeError for inputs with no spatial axes or another number of them.
    """

    kind = "upsample"

    def __init__(
        self,
        scale_factor: PositivePerAxis,
        mode: Literal["nearest", "linear", "bilinear", "trilinear"] = "nearest",
        align_corners: bool = False,
    ) -> None:
        if align_corners and mode == "nearest":
            raise ConfigError([Fault("align_corners", "true has no meaning for mode nearest: leave it out")])
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners

    def output_shape(self, input_shape: Shape) -> Shape:
        scale = self._scale(input_shape[1:])
        return input_shape[0], *(extent * factor for extent, factor in zip(input_shape[1:], scale, strict=True))

    def flops(self, input_shape: Shape) -> int:
        if self.mode == "nearest":
            return 0
        shape, total = list(input_shape), 0
        for axis, extent in enumerate(self.output_shape(input_shape)[1:], start=1):
            shape[axis] = extent
            total += 3 * math.prod(shape)
        return total

    def _scale(self, size: Shape) -> Shape:
        axes = len(size)
        scale = (self.scale_factor,) * axes if isinstance(self.scale_factor, int) else tuple(self.scale_factor)
        if not axes or len(scale) != axes:
            wanted = f"{len(scale)} spatial axes" if axes else "spatial axes"
            raise ShapeError(f"takes channels and {wanted}, got axes of size {list(size)}")
        if LINEAR.get(self.mode, axes) != axes:
            fitting = next((mode for mode, own in LINEAR.items() if own == axes), "nearest")
            raise ShapeError(f"has mode {self.mode} for {axes} spatial axes: use {fitting}")
        return scale

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        channels, *size, batch = x.shape
        if self.mode != "nearest":
            y = x
            for axis, (extent, scale) in enumerate(zip(size, self._scale(tuple(size)), strict=True), start=1):
                terms = interpolation(extent, scale, self.align_corners)
                y = _weighted_sums(y, axis, extent * scale, terms)
            return y, mode.keep(tuple(size))
        y = ops.empty((*self.output_shape(tuple(x.shape[:-1])), batch), like=x)
        repeated = self._by_repeats(y, tuple(size))  # [C, S1, scale1, S2, scale2, ..., N]
        source = x.view(channels, *(part for extent in size for part in (extent, 1)), batch)
        repeated.copy_(source)
        return y, mode.keep(tuple(size))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        (size,) = cache.take()
        if not need_dx:
            return None
        if self.mode == "nearest":
            return self._by_repeats(dy.contiguous(), size).sum([2 * axis + 2 for axis in range(len(size))])
        dx = dy
        for axis, (extent, scale) in reversed([*enumerate(zip(size, self._scale(size), strict=True), start=1)]):
            terms = [term.transposed() for term in interpolation(extent, scale, self.align_corners)]
            dx = _weighted_sums(dx, axis, extent, terms)
        return dx

    def _by_repeats(self, y: Tensor, size: Shape) -> Tensor:
        """The output with a separate axis for the repeats along each axis."""
        pairs = zip(size, self._scale(size), strict=True)
        return y.view(y.shape[0], *(part for pair in pairs for part in pair), y.shape[-1])


class Term(NamedTuple):
    """Places along an axis of one tensor that get a multiple of places of another."""

    target: slice
    source: slice
    weight: float

    def transposed(self) -> Term:
        return Term(self.source, self.target, self.weight)


@cache
def interpolation(extent: int, scale: int, align_corners: bool) -> tuple[Term, ...]:
    """The terms of linear interpolation along an axis, from `extent` to `extent * scale` places.

    Positions are fractions of whole numbers, and so are exact. Every `scale`-th place usually has the same weights, and
    then a single term: a few passes over whole slices are several times as fast as gathering place by place.
    """
    starts: dict[tuple[bool, float, int], tuple[int, int]] = {}
    counts: Counter[tuple[bool, float, int]] = Counter()
    for i in range(extent * scale):
        if align_corners:
            above, below = i * (extent - 1), max(extent * scale - 1, 1)
        else:
            above, below = max(2 * i + 1 - scale, 0), 2 * scale
        p, rest = divmod(above, below)
        taps = (False, p, (below - rest) / below), (True, min(p + 1, extent - 1), rest / below)
        for upper, place, weight in taps:
            if weight:  # zero times infinity is NaN, and nothing is to be added
                key = upper, weight, place * scale - i  # the same for i + scale and place + 1
                starts.setdefault(key, (i, place))
                counts[key] += 1
    return tuple(
        Term(slice(i, i + counts[key] * scale, scale), slice(place, place + counts[key]), key[1])
        for key, (i, place) in starts.items()
    )


def _weighted_sums(x: Tensor, axis: int, extent: int, terms: Iterable[Term]) -> Tensor:
    """A tensor with this extent along the axis, each of whose places is the sum of its terms."""
    y = ops.empty((*x.shape[:axis], extent, *x.shape[axis + 1 :]), like=x).zero_()
    before = (slice(None),) * axis
    for term in terms:
        y[(*before, term.target)].add_(x[(*before, term.source)], alpha=term.weight)
    return y
