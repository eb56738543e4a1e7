"""Intervals against scipy's, and against what they promise: covering the truth 95 times in 100."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from trueup.stats.intervals import Z_95, Estimate, mean, rate


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 10), (50, 100), (999, 1000), (7, 7)]
)
def test_a_rate_has_wilsons_interval(successes: int, n: int) -> None:
    theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    ours = rate(successes, n)
    assert (ours.value, ours.n) == (successes / n, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_normals_quantile() -> None:
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-14) == Z_95


def test_halves_lie_between_their_neighbours() -> None:
    low, half, high = rate(4, 10), rate(4.5, 10), rate(5, 10)
    assert low.low < half.low < high.low
    assert low.high < half.high < high.high
    assert half.value == 0.45


def test_a_mean_has_the_bootstraps_interval() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=np.random.default_rng(1)
    ).confidence_interval
    ours = mean(values.tolist(), resamples=20_000)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_a_mean_is_the_same_on_every_run() -> None:
    values = [(7.3 * at) % 1 for at in range(30)]
    assert mean(values) == mean(values)
    assert mean(values) != mean(values, seed=1)


def test_equal_values_have_no_spread() -> None:
    assert mean([2.5] * 8) == Estimate(2.5, 2.5, 2.5, 8)
    assert mean([2.5]) == Estimate(2.5, 2.5, 2.5, 1)


def test_rates_cover_the_truth() -> None:
    """Wilson's interval holds the true share about 95 times in 100 (Brown, Cai & DasGupta 2001, figure 5)."""
    generator = random.Random(0)
    for share in (0.05, 0.3, 0.5):
        hits = 0
        for _ in range(1000):
            one = rate(sum(generator.random() < share for _ in range(40)), 40)
            hits += one.low <= share <= one.high
        assert 0.92 < hits / 1000 < 0.99, share


def test_means_cover_the_truth() -> None:
    generator = random.Random(0)
    hits = 0
    for _ in range(200):
        one = mean([generator.gauss(1.0, 2.0) for _ in range(40)], resamples=300)
        hits += one.low <= 1.0 <= one.high
    assert 0.89 < hits / 200 < 0.99


def test_nothing_measured_is_no_number() -> None:
    with pytest.raises(ValueError, match="n is 0"):
        rate(0, 0)
    with pytest.raises(ValueError, match="there are no values"):
        mean([])


def test_text_of_an_estimate() -> None:
    assert str(rate(1, 2)) == "0.50 [0.09, 0.91]"
    assert rate(1, 2).as_dict() == {"value": 0.5, "low": rate(1, 2).low, "high": rate(1, 2).high, "n": 2}
