"""Mean, spread and confidence interval of a few values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Statistic:
    """The mean of `count` values, their sample standard deviation, and the 95 % interval of the mean.

    The interval is mean +- t * spread / sqrt(count), with the quantile t of Student's distribution with count - 1
    degrees of freedom: it assumes that the values are independent and normally distributed. One value has neither.
    """

    mean: float
    count: int
    spread: float | None = None
    low: float | None = None
    high: float | None = None


def statistic(values: Sequence[float]) -> Statistic | None:
    """The statistic of finite values; None if there are none."""
    count = len(values)
    if count < 2:
        return Statistic(float(values[0]), 1) if values else None
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    half = quantile(0.5 + CONFIDENCE / 2, count - 1) * spread / math.sqrt(count)
    return Statistic(mean, count, spread, mean - half, mean + half)


def quantile(probability: float, degrees: int) -> float:
    """The value that a variable of Student's distribution is below with this probability, which is above 1/2.

    By bisection of the distribution function: importing scipy.stats would take a second.
    """
    low, high = 0.0, 1.0
    while distribution(high, degrees) < probability:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if distribution(middle, degrees) < probability else (low, middle)
    return high


def distribution(t: float, degrees: int) -> float:
    """Student's distribution function for t >= 0 and a whole number of degrees of freedom.

    A finite sum in theta = atan(t / sqrt(degrees)): Abramowitz & Stegun, 26.7.3 and 26.7.4.
    """
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    within = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return 0.5 + within / 2
