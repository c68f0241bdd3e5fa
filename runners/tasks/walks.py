"""Walks through a latent space, from one latent vector to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

WALKERS, WALK_COLUMNS = 16, 4
"""The samples that walk, and how many are shown side by side."""
STOPS, STEPS = 4, 15
"""The latent vectors that each of them passes, and the frames from one to the next."""
PARALLEL = 1e-4
"""Below this sine of the angle between two vectors, the arc between them is as good as straight, or isn't unique."""


def spherical(p: Tensor, q: Tensor, t: float) -> Tensor:
    """The vectors at a share t of the way from p to q, [L, N], along an arc.

    z = (sin((1 - t) a) p + sin(t a) q) / sin(a), where a is the angle between p and q; on a straight line if they are
    parallel. Lengths of normal vectors of many values hardly differ: they are close to sqrt(L), and so are those on an
    arc. The middle of a straight line is only about 0.7 times as long, where a generator has seen no vector.

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; for latent vectors: White 2016, "Sampling
    generative networks".
    """
    lengths = p.square().sum(0).sqrt() * q.square().sum(0).sqrt()
    angle = ((p * q).sum(0) / lengths.clamp(min=1e-12)).clamp(-1, 1).arccos()
    sine = angle.sin()
    straight = sine < PARALLEL
    divisor = sine.masked_fill(straight, 1.0)
    from_p = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / divisor)
    from_q = torch.where(straight, t, (t * angle).sin() / divisor)
    return from_p * p + from_q * q


def endless(points: Sequence[Tensor], steps: int) -> Iterator[Tensor]:
    """The vectors of each frame: `steps` from each of the points [L, N] to the next, and from the last to the first."""
    for index, start in enumerate(points):
        end = points[(index + 1) % len(points)]
        for step in range(steps):
            yield spherical(start, end, step / steps)
