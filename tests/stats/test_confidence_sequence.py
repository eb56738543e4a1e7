"""The interval that may be looked at at any time: fair bets, Robbins' mixture, and coverage under peeking."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.special import betaln

from trueup.stats import confidence_sequence as module
from trueup.stats.clustered import clustered_rate
from trueup.stats.confidence_sequence import confidence_sequence, more_prompts, outcomes


def wealth_after(scores: np.ndarray, m: float = 0.5) -> np.ndarray:
    """(N,) logs of the wealth of the gambler against m, a multiple of 0.005."""
    at = [round(m * 200) - 1]
    values, kinds = np.unique(scores, return_inverse=True)
    counts = (kinds[:, None] == np.arange(len(values))).cumsum(0)
    return module._wealth(counts, module._gains(values)[:, at], module._money()[at])[:, 0]


@pytest.mark.parametrize("m", [0.05, 0.3, 0.5, 0.8])
def test_the_bets_against_the_truth_are_fair(m: float) -> None:
    """Over all sequences of four outcomes, weighted by how likely they are if m is the truth, the wealth is 1."""
    values = np.array([0.0, 1 / 3, 0.5, 1.0])
    free = min(m, 1 - m) / 4
    chances = np.array([0.0, free, free, 0.0])
    chances[3] = m - free / 3 - free / 2
    chances[0] = 1 - chances.sum()
    assert (chances >= 0).all()
    assert chances @ values == pytest.approx(m)
    expected = sum(
        math.prod(chances[list(places)]) * math.exp(wealth_after(values[list(places)], m)[-1])
        for places in product(range(4), repeat=4)
    )
    assert expected == pytest.approx(1, abs=1e-9)


def test_at_one_half_it_is_robbins_mixture_and_ties_leave_it_as_it_is() -> None:
    """2^n B(w + 5, l + 5) / B(5, 5), with the integral taken exactly; ours is a sum of 48 bets."""
    draw = np.random.default_rng(0)
    scores = draw.choice([1.0, 0.5, 0.0], 300, p=[0.45, 0.25, 0.3])
    wins, losses = (scores == 1).cumsum(), (scores == 0).cumsum()
    known = (wins + losses) * math.log(2) + betaln(wins + 5, losses + 5) - betaln(5, 5)
    assert wealth_after(scores) == pytest.approx(known, abs=5e-3)


def test_when_one_half_falls_it_stays_fallen() -> None:
    """30 wins decide; 40 losses after them leave the rate below one half, and the decision where it was."""
    late = confidence_sequence(np.array([1.0] * 30 + [0.0] * 40))
    assert confidence_sequence(np.ones(30)).decided
    assert late.decided
    assert late.estimate.value < 0.5
    assert not confidence_sequence(np.array([1.0, 0.0] * 100)).decided


def test_a_few_votes_decide_nothing() -> None:
    assert not confidence_sequence(np.ones(4)).decided
    with pytest.raises(ValueError, match="no votes"):
        confidence_sequence(np.array([]))


def test_outcomes_are_means_of_the_first_k_votes_in_the_order_of_completion() -> None:
    """Prompt 7: 1, 0, (1); prompt 3: 0.5, 0.5, later; prompt 5 has one vote; prompt 9's first two are both bad."""
    nan = math.nan
    prompts = np.array([3, 7, 7, 9, 9, 7, 5, 3, 9])
    scores = np.array([0.5, 1.0, 0.0, nan, nan, 1.0, 1.0, 0.5, 1.0])
    assert outcomes(scores, prompts, 2).tolist() == [0.5, 0.5]
    scores[7] = 1.0
    assert outcomes(scores, prompts, 2).tolist() == [0.5, 0.75]
    assert outcomes(scores, prompts, 1).tolist() == [0.5, 1.0, 1.0]
    scores[3] = 0.0  # one of the two decides
    assert outcomes(scores, prompts, 2).tolist() == [0.5, 0.0, 0.75]
    assert outcomes(scores, prompts, 4).tolist() == []


def worlds(draw: np.random.Generator, mu: float, kind: str, n: int) -> np.ndarray:
    """Outcomes of mean mu: wins and losses, with ties, or means of three votes that agree somewhat."""
    if kind == "coins":
        return (draw.random(n) < mu).astype(float)
    if kind == "ties":
        spare = min(mu, 1 - mu)
        return draw.choice([1.0, 0.5, 0.0], n, p=[mu - spare / 2, spare, 1 - mu - spare / 2])
    return draw.binomial(3, draw.beta(2 * mu, 2 * (1 - mu), n)) / 3


def missed_ever(mu: float, kind: str, times: int, n: int, seed: int) -> float:
    """Return the share of runs in which the interval missed at any of n looks: the last is the intersection of all."""
    draw = np.random.default_rng(seed)
    missed = 0
    for _ in range(times):
        one = confidence_sequence(worlds(draw, mu, kind, n)).estimate
        missed += not one.low <= mu <= one.high
    return missed / times


def test_looking_after_every_vote_is_safe_here_and_not_with_a_single_looks_interval() -> None:
    """Equal models. The figures of the module's docstring: 38% within 100 votes, 54% within 1000."""
    draw = np.random.default_rng(0)
    scores = draw.random((1000, 1000)) < 0.5
    n = np.arange(1, 1001)
    apart = np.abs(scores.cumsum(1) / n - 0.5) > 1.959964 * 0.5 / np.sqrt(n)  # where Wilson's interval leaves out 1/2
    assert apart[:, :100].any(1).mean() == pytest.approx(0.38, abs=0.05)
    assert apart.any(1).mean() == pytest.approx(0.54, abs=0.05)
    ours = np.array([confidence_sequence(one.astype(float)).decided for one in scores[:500]])
    assert ours.mean() <= 0.05
    assert clustered_rate(scores[0].astype(float), n).decided == apart[0, -1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coins", "ties", "raters"])
@pytest.mark.parametrize("mu", [0.5, 0.5025, 0.6, 0.7525, 0.95])
def test_coverage_at_all_times(mu: float, kind: str) -> None:
    assert missed_ever(mu, kind, 1500, 1000, seed=3) <= 0.05 + 0.012


def test_a_real_difference_is_found() -> None:
    """At 60% a single planned look needs 194 votes for 80%; looking after every vote costs about twice as many."""
    draw = np.random.default_rng(2)
    stopped = []
    for _ in range(200):
        wealth = wealth_after((draw.random(1500) < 0.6).astype(float))
        stopped.append(int((wealth >= math.log(20)).argmax()) or 1500)
    assert np.median(stopped) < 260
    assert np.quantile(stopped, 0.8) < 450


def test_more_prompts_is_about_when_it_stops() -> None:
    """Planned from 24 outcomes of 62% with ties; the median of what it takes at that rate is within a third."""
    draw = np.random.default_rng(5)
    seen = confidence_sequence(np.array([1.0, 0.0, 1.0, 0.5] * 6))
    shares = [0.5, 0.25, 0.25]
    assert not seen.decided
    planned = 24 + more_prompts(seen, 10_000)
    stops = []
    for _ in range(300):
        wealth = wealth_after(draw.choice([1.0, 0.5, 0.0], 3000, p=shares))
        stops.append(int((wealth >= math.log(20)).argmax()) + 1)
    assert planned == pytest.approx(np.median(stops), rel=1 / 3)


def test_more_prompts_says_zero_and_none() -> None:
    assert more_prompts(confidence_sequence(np.ones(60)), 10_000) == 0
    assert more_prompts(confidence_sequence(np.array([1.0, 0.0] * 30)), 10_000) is None
    one = confidence_sequence(np.array([1.0, 0.0, 1.0, 0.0, 1.0] * 4))
    needed = more_prompts(one, 10_000)
    grown = np.repeat([1.0, 0.0], [round(12 * (1 + needed / 20)), round(8 * (1 + needed / 20))])
    assert wealth_after(grown)[-1] == pytest.approx(math.log(20), abs=0.15)
