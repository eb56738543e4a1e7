"""Win rates with clusters: against Wilson's interval, scipy's t, arithmetic by hand, and covering the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trueup.stats import intervals
from trueup.stats.clustered import clustered_mean, clustered_rate, design_effect, votes_needed


def test_votes_on_prompts_of_their_own_without_ties_have_wilsons_interval() -> None:
    for wins, n in ((0, 7), (3, 10), (61, 100), (40, 40)):
        scores = np.array([1.0] * wins + [0.0] * (n - wins))
        one, known = clustered_rate(scores, np.arange(n)), intervals.rate(wins, n)
        assert (one.estimate.value, one.estimate.n, one.design) == (known.value, n, 1)
        assert (one.estimate.low, one.estimate.high) == pytest.approx((known.low, known.high), abs=1e-12)


def test_design_effect_by_hand() -> None:
    """Four prompts with two votes each, which always agree: rest is +-1/2, alone 8/4 = 2.

    Sums a prompt are +1, +1, -1, -1: their squares make 4, times 4/3 is 5.333. Independent votes: 2 * 8/7 = 2.286.
    """
    rest = np.array([0.5] * 4 + [-0.5] * 4)
    assert design_effect(rest, np.repeat(np.arange(4), 2), 4) == pytest.approx(5.3333333 / 2.2857143)


def test_one_prompt_says_as_much_as_one_vote() -> None:
    """50 votes that agree on one prompt are not 50 prompts."""
    one = clustered_rate(np.ones(50), np.zeros(50, dtype=int)).estimate
    assert one.low < 0.05
    assert one.n == 50


def test_votes_that_agree_in_every_prompt_count_as_prompts() -> None:
    repeated = clustered_rate(np.repeat([1.0, 1.0, 1.0, 0.0] * 10, 3), np.repeat(np.arange(40), 3))
    assert repeated.design == pytest.approx(3 * (40 / 39) / (120 / 119))
    assert repeated.effective == pytest.approx(120 / repeated.design)
    assert repeated.freedom == 39


@pytest.mark.parametrize("seed", range(30))
def test_p_and_interval_agree(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n = int(draw.integers(2, 120))
    scores = draw.choice([1.0, 0.5, 0.0], n, p=[0.5, 0.2, 0.3])
    one = clustered_rate(scores, draw.integers(0, max(2, n // 2), n))
    number = one.estimate
    assert number.low <= one.value <= number.high
    assert (one.p < 0.05) == one.decided
    statistic = 2 * (one.value - 0.5) * math.sqrt(one.effective)
    tail = stats.norm.sf(abs(statistic)) if one.freedom is None else stats.t.sf(abs(statistic), one.freedom)
    assert one.p == pytest.approx(min(1, 2 * tail), abs=1e-9)


def test_ties_tell_more_than_coins_but_no_run_of_them_is_certain() -> None:
    halves = clustered_rate(np.full(40, 0.5), np.arange(40)).estimate
    coins = clustered_rate(np.array([1.0, 0.0] * 20), np.arange(40)).estimate
    assert halves.low is not None
    assert coins.low is not None
    assert coins.low < halves.low < 0.5 - 0.04


def test_mean_is_cluster_robust_with_students_t() -> None:
    """Two prompts of two votes: 1, 3 and 5, 7. Mean 4; sums of rests -4 and 4; error sqrt(32 * 2/1) / 4 = 2."""
    one = clustered_mean(np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 1, 1]))
    half = 2 * stats.t.ppf(0.975, 1)
    assert (one.value, one.low, one.high) == pytest.approx((4, 4 - half, 4 + half), rel=1e-6)
    values = np.random.default_rng(0).normal(2, 3, 30)
    alone = clustered_mean(values, np.arange(30))
    known = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert (alone.low, alone.high) == pytest.approx(known, rel=1e-6)


def test_nothing_is_never_a_rate_or_a_mean() -> None:
    with pytest.raises(ValueError, match="no votes"):
        clustered_rate(np.array([]), np.array([], dtype=int))
    with pytest.raises(ValueError, match="1 prompts"):
        clustered_mean(np.array([1.0, 2.0]), np.array([0, 0]))


def world(draw: np.random.Generator, prompts: int, k: int, share: float, spread: float, ties: float):
    """A prompt's rate is Beta-distributed about `share`; a large `spread` makes prompts alike."""
    rates = (
        draw.beta(share * spread, (1 - share) * spread, prompts) if math.isfinite(spread) else np.full(prompts, share)
    )
    each = draw.integers(1, k + 1, prompts)
    at = np.repeat(np.arange(prompts), each)
    scores = (draw.random(len(at)) < rates[at]).astype(float)
    scores[draw.random(len(at)) < ties] = 0.5
    return scores, at


def coverage(times: int, seed: int = 0, *, share: float = 0.5, ties: float = 0.0, **shape) -> float:
    draw = np.random.default_rng(seed)
    truth = share * (1 - ties) + 0.5 * ties
    kept = 0
    for _ in range(times):
        one = clustered_rate(*world(draw, share=share, ties=ties, **shape)).estimate
        kept += one.low <= truth <= one.high
    return kept / times


def test_equal_models_are_flagged_one_time_in_twenty_at_most() -> None:
    """The control: with votes that cluster strongly. A plain Wilson interval fails this by far."""
    assert coverage(400, prompts=40, k=6, spread=1.0) > 0.93
    draw, plain = np.random.default_rng(0), 0
    for _ in range(400):
        scores, _ = world(draw, 40, 6, 0.5, 1.0, 0)
        one = intervals.rate(scores.sum(), len(scores))
        plain += one.low <= 0.5 <= one.high
    assert plain / 400 < 0.88


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
@pytest.mark.parametrize("ties", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    "shape",
    [
        {"prompts": 20, "k": 1, "spread": math.inf},
        {"prompts": 200, "k": 1, "spread": math.inf},
        {"prompts": 8, "k": 3, "spread": 1.0},
        {"prompts": 30, "k": 3, "spread": 1.0},
        {"prompts": 30, "k": 3, "spread": math.inf},
        {"prompts": 200, "k": 5, "spread": 2.0},
    ],
)
def test_coverage(share: float, ties: float, shape: dict) -> None:
    """Never too short; with eight prompts and mostly ties it is longer than it need be."""
    assert 0.93 <= coverage(3000, share=share, ties=ties, **shape) <= (1 if shape["prompts"] == 8 else 0.995)


def test_votes_needed_is_where_the_interval_leaves_out_one_half() -> None:
    """With 60% of n votes, no ties: 1.96 * 0.5 / 0.1 squared = 96.04."""
    one = clustered_rate(np.array([1.0] * 6 + [0.0] * 4), np.arange(10))
    assert votes_needed(one) == pytest.approx(96.04, abs=0.01)
    assert not intervals.rate(0.6 * 96, 96).low > 0.5
    assert intervals.rate(0.6 * 97, 97).low > 0.5
    assert votes_needed(clustered_rate(np.array([1.0, 0.0]), np.arange(2))) == math.inf


def test_with_so_many_votes_a_decision_comes_in_an_even_chance_of_cases() -> None:
    """Votes with ties and clusters, at the truth they were planned with: decided about half of the time."""
    draw = np.random.default_rng(1)
    shape = {"k": 3, "share": 0.6, "spread": 2.0, "ties": 0.2}
    one = clustered_rate(*world(draw, prompts=20_000, **shape))
    prompts = round(votes_needed(one) / 2)  # 2 votes a prompt on average
    decided = np.mean([clustered_rate(*world(draw, prompts=prompts, **shape)).decided for _ in range(400)])
    assert 0.4 < decided < 0.6
    fewer = np.mean([clustered_rate(*world(draw, prompts=prompts // 3, **shape)).decided for _ in range(400)])
    assert fewer < 0.3
