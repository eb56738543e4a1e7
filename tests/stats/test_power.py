"""The chance that a gate passes: exact sums against enumeration, normal theory against simulated gates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trueup.stats import power
from trueup.stats.intervals import tied_rate
from trueup.stats.paired import difference, exceeds
from trueup.stats.power import factor_power, largest_spread, mean_power, rate_power, smallest_n, win_power


@pytest.mark.parametrize(("limit", "discordance", "change"), [(0.2, 0.1, 0.0), (0.2, 0.3, -0.2), (0.15, 0.25, 0.05)])
def test_the_chance_is_the_sum_over_all_outcomes_whose_interval_is_within_the_limit(
    limit: float, discordance: float, change: float
) -> None:
    """30 items: every pair of counts, its multinomial probability, and the interval's end as the gate reads it."""
    n, better, worse = 30, (discordance + change) / 2, (discordance - change) / 2
    total = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            chance = math.comb(n, b) * math.comb(n - b, c) * better**b * worse**c * (1 - better - worse) ** (n - b - c)
            if chance > 1e-7:
                ours, theirs = [1.0] * b + [0.0] * (n - b), [0.0] * b + [1.0] * c + [0.0] * (n - b - c)
                total += chance * (difference(ours, theirs).low >= -limit)
    assert rate_power(n, limit, discordance, change) == pytest.approx(total, abs=1e-4)


def test_the_chance_of_a_win_rate_is_the_sum_over_all_outcomes() -> None:
    n, limit, ties = 25, 0.35, 0.4
    total = 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            tied = n - won - lost
            chance = math.comb(n, won) * math.comb(n - won, lost) * 0.3 ** (won + lost) * ties**tied
            total += chance * (tied_rate([1.0] * won + [0.0] * lost + [0.5] * tied).low >= limit)
    assert win_power(n, limit, ties) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(("n", "limit"), [(200, 0.05), (600, 0.05), (300, 0.07), (200, 0.1), (1000, 0.02)])
def test_a_model_at_its_limit_passes_once_in_40_and_one_at_twice_the_limit_never(n: int, limit: float) -> None:
    for discordance in (0.05, 0.10):
        assert rate_power(n, limit, max(discordance, limit), -limit) <= 0.03
        assert rate_power(n, limit, max(discordance, 2 * limit), -2 * limit) <= 0.001


def test_sizes_that_are_known() -> None:
    """The limit of 0.02 on 200 questions; 44 innocent prompts under 0.05, whose interval ends at 0.08 at best."""
    assert [round(rate_power(200, 0.02, d), 2) for d in (0.02, 0.05, 0.10)] == [0.34, 0.19, 0.13]
    assert rate_power(44, 0.05, 0.0) == 0.0
    assert rate_power(100, 0.05, 0.0) == 1.0
    needed = smallest_n(lambda n: rate_power(n, 0.05, 0.1))
    assert needed == 339
    assert rate_power(338, 0.05, 0.1) < 0.8 <= rate_power(339, 0.05, 0.1)
    assert smallest_n(lambda n: 0.5) is None


def test_large_numbers_are_as_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = rate_power(4000, 0.01, 0.1), win_power(4000, 0.48)
    power.rate_power.cache_clear()
    power.win_power.cache_clear()
    monkeypatch.setattr(power, "EXACT_TO", 100)
    assert (rate_power(4000, 0.01, 0.1), win_power(4000, 0.48)) == pytest.approx(exact, abs=0.01)
    power.rate_power.cache_clear()
    power.win_power.cache_clear()


def test_a_mean_has_the_normal_chance() -> None:
    """(0.1 + 0) x sqrt(100) / 0.4 = 2.5 standard errors, 1.96 of which are the interval's: Phi(0.54) = 0.705."""
    assert mean_power(100, 0.1, 0.4) == pytest.approx(0.7054, abs=1e-3)
    assert mean_power(100, 0.1, 0.4, change=-0.1) == pytest.approx(0.025, abs=1e-6)
    assert mean_power(6, 0.1, 0.0) == 1.0
    assert mean_power(5, 0.1, 0.0) == 0.0  # five equal differences have no interval
    spread = largest_spread(64, 0.1)
    assert mean_power(64, 0.1, spread) == pytest.approx(0.8)


def test_impossible_changes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a discordance"):
        rate_power(100, 0.05, 0.05, -0.1)
    with pytest.raises(ValueError, match="not possible"):
        win_power(100, 0.4, 0.5, 0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "limit", "spread"), [(64, 0.1, 0.25), (64, 0.1, 0.4), (200, 0.1, 0.6)])
def test_normal_theory_is_what_the_bootstrap_gate_does(n: int, limit: float, spread: float) -> None:
    """400 evaluations of an unchanged model: the share that passes is within four standard errors and 0.02."""
    generator, passed = np.random.default_rng(0), 0
    for _ in range(400):
        theirs = generator.normal(size=n)
        ours = theirs + generator.normal(scale=spread, size=n)
        passed += exceeds(ours.tolist(), theirs.tolist(), -limit, resamples=800) <= 0.025
    expected = mean_power(n, limit, spread)
    assert passed / 400 == pytest.approx(expected, abs=0.02 + 4 * math.sqrt(expected * (1 - expected) / 400))


@pytest.mark.slow
def test_lengths_pass_as_often_as_is_said() -> None:
    """Lengths of lognormal shape with 0.7 of their mean as spread, 64 prompts, a factor of 1.6 on either side."""
    generator, passed, sigma = np.random.default_rng(1), 0, math.sqrt(math.log(1 + 0.7**2))
    for _ in range(400):
        ours, theirs = generator.lognormal(3, sigma, size=(2, 64))
        pairs = ((1.6 * ours, theirs), (1.6 * theirs, ours))
        passed += max(exceeds(a.tolist(), b.tolist(), 0.0, resamples=800) for a, b in pairs) <= 0.025
    assert passed / 400 >= factor_power(64, 1.6, 0.7) - 0.06
