"""Intervals against scipy's, and against what they promise: covering the truth 95 times in 100."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from trueup.stats.intervals import Estimate, informative, mean, rate, tied_rate, wilson
from trueup.stats.pivots import Z_95, tail_index


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


def test_outcomes_without_ties_have_the_rates_interval() -> None:
    assert tied_rate([1.0] * 3 + [0.0] * 7) == rate(3, 10)
    with pytest.raises(ValueError, match="n is 0"):
        tied_rate([])


def test_ties_tell_more_than_coins_by_hand() -> None:
    """10 won, 70 tied, 20 lost, and 3.8415 trials more, half won: centre 46.9207 / 103.8415 = 0.45185.

    A coin's variance is 0.24768 there, of which ties save 70 / 4 / 103.8415 = 0.16853, so an outcome is worth
    0.24768 / 0.07916 = 3.129 trials.
    """
    assert informative(45, 17.5, 100) == pytest.approx(3.129, abs=2e-3)
    ours = tied_rate([1.0] * 10 + [0.5] * 70 + [0.0] * 20)
    assert (ours.value, ours.n) == (0.45, 100)
    assert (ours.low, ours.high) == pytest.approx(wilson(0.45, 312.9), abs=1e-4)


def test_a_run_of_ties_alone_is_no_certainty() -> None:
    alone = tied_rate([0.5] * 10)
    assert alone.low < 0.4
    assert alone.high > 0.6


def tied_covered(n: int, ties: float, won: float, draws: int) -> float:
    """Return how often the interval holds the truth; `won` is the share of the untied pairs that are won."""
    truth = ties / 2 + (1 - ties) * won
    drawn = np.random.default_rng(n).multinomial(n, [(1 - ties) * won, ties, (1 - ties) * (1 - won)], draws)
    hits = 0
    for wins, halves, losses in drawn.tolist():
        ours = tied_rate([1.0] * wins + [0.5] * halves + [0.0] * losses)
        hits += ours.low <= truth <= ours.high
    return hits / draws


def test_win_rates_with_ties_cover_the_truth() -> None:
    assert 0.92 < tied_covered(100, 0.7, 0.4, 500) < 0.985


@pytest.mark.slow
@pytest.mark.parametrize("won", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("ties", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("n", [50, 100, 300])
def test_win_rates_with_ties_cover_the_truth_everywhere(n: int, ties: float, won: float) -> None:
    """Measured at 70% ties: 0.95 to 0.97; Wilson's interval at n covered every truth."""
    covered = tied_covered(n, ties, won, 2000)
    print(n, ties, won, covered)
    assert covered > 0.93
    assert covered <= 0.985 or n < 100


def test_a_symmetric_mean_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(1, 2, 60)
    known = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    ours = mean(values.tolist())
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(known, rel=1e-6)


def test_a_skewed_mean_has_a_longer_upper_side() -> None:
    """Student's interval of an exponential sample misses below its mean in 4% of cases, above it in 1%."""
    values = np.random.default_rng(0).exponential(size=60)
    low, high = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    ours = mean(values.tolist())
    assert ours.high > high
    assert ours.low > low
    assert mean(values.tolist()) == ours
    assert mean(values.tolist(), seed=1) != ours


def test_a_mean_that_hangs_on_a_few_items_has_no_interval() -> None:
    """Of 60 items 3 are 1,000 times the others: among the largest 6, the mean logarithm over the seventh is over 3."""
    values = [1.0 + 0.01 * at for at in range(57)] + [1000.0, 2000.0, 3000.0]
    ours = mean(values)
    assert "too skewed to say: 3 of 60 items" in ours.withheld
    assert (ours.low, ours.high) == (-math.inf, math.inf)
    assert ours.as_dict() == {"value": ours.value, "low": None, "high": None, "n": 60}


def test_the_tail_index_by_hand() -> None:
    """Of 20 distances the largest two are counted: (log 8 + log 4) / 2 over the third, 1, is 1.733."""
    assert tail_index(np.array([8.0, -4.0, *[1.0] * 18])) == (pytest.approx(math.log(32) / 2), 2)
    assert tail_index(np.zeros(5)) == (0.0, 1)


def test_a_mean_stays_where_it_can_be() -> None:
    values = [0.0] * 20 + [0.3, 0.2]
    assert mean(values).low < 0
    assert mean(values, bounds=(0.0, 1.0)).low == 0


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
