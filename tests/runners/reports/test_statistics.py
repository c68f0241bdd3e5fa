from __future__ import annotations

import math
import statistics

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from runners.reports.statistics import Statistic, distribution, quantile, statistic


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 200, 999])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9995])
def test_quantiles_are_scipys(degrees: int, probability: float) -> None:
    assert quantile(probability, degrees) == pytest.approx(scipy.stats.t.ppf(probability, degrees), rel=1e-9)


@given(st.floats(0, 1e4), st.integers(1, 300))
def test_the_distribution_is_scipys(t: float, degrees: int) -> None:
    assert distribution(t, degrees) == pytest.approx(scipy.stats.t.cdf(t, degrees), abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_the_interval_is_scipys(values: list[float]) -> None:
    found = statistic(values)
    assert found is not None
    assert found.mean == statistics.fmean(values)
    assert found.count == len(values)
    spread = statistics.stdev(values)
    assert found.spread == spread
    if spread > 0:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, found.mean, spread / math.sqrt(len(values)))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9 * spread)


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    assert statistic([0.5]) == Statistic(0.5, 1)
    assert statistic([]) is None


def test_three_values_by_hand() -> None:
    """sd = 1, and t(0.975, 2) = 4.302653: tables of Student's distribution have it."""
    found = statistic([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.spread) == (2.0, 1.0)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
