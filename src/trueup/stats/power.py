"""The chance that a gate passes, before anything is measured: how many items a limit needs.

A gate passes where the whole interval of a change lies within its limit, so the chance depends on the distance from
the *limit*, not from 0. For values of 0 and 1 it is exact: the gate's own test (`paired.rate_exceeds`,
`intervals.tied_rate_exceeds`) decides on every possible outcome, and the outcomes' probabilities are added up. For
other values the studentised mean is taken as normal; tests/stats/test_power.py compares both with simulated gates.

In each function the model's true change is `change`, signed so that more is better: 0 for an unchanged model, minus
the limit for one that is exactly at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from trueup.stats.intervals import tied_rate_exceeds
from trueup.stats.paired import rate_exceeds

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats, Ints

LEVEL = 0.025
"""One side of a 95% interval: the largest chance that a model at its limit passes one gate."""
OFTEN = 0.8
"""The chance from which a gate counts as planned well: 8 times of 10."""
LARGEST_N = 10**6
"""Items up to which a size is looked for."""
TEETH = 24
"""Sizes behind a size that passes often enough which are looked at as well, because counts are whole."""

EXACT_TO = 5000
"""Items up to which the sums are exact; with more the normal distribution gives the same to three digits."""
_FAR = 7.0
"""Standard deviations of the number of decided items that are added up; beyond lie less than 1e-11 of the outcomes."""


@lru_cache(maxsize=4096)
def rate_power(n: int, limit: float, discordance: float, change: float = 0.0, level: float = LEVEL) -> float:
    """Return the chance that a paired gate on 0/1 values passes: exact (sums of the trinomial distribution).

    Args:
        n: number of items.
        limit: the largest loss allowed; below 0 the smallest gain demanded.
        discordance: share of items on which the two models differ.
        change: true change of the share, at most `discordance` in size.
        level: one-sided level of the gate.

    Raises:
        ValueError: `change` is larger than `discordance`.
    """
    if abs(change) > discordance:
        raise ValueError(f"a change of {change:g} needs a discordance of {abs(change):g} or more, not {discordance:g}")
    if n > EXACT_TO:
        return mean_power(n, limit, math.sqrt(discordance - change * change), change, level)

    def passes(better: int, decided: int) -> bool:
        return rate_exceeds(better, decided - better, n, -limit) <= level

    return _trinomial(n, discordance, 0.5 + change / (2 * discordance) if discordance else 0.5, passes)


@lru_cache(maxsize=4096)
def win_power(n: int, limit: float, ties: float = 0.0, change: float = 0.0, level: float = LEVEL) -> float:
    """Return the chance that the win rate is shown to be at least `limit`: exact.

    Args:
        n: number of pairs.
        limit: the smallest win rate.
        ties: share of ties.
        change: true win rate minus one half.
        level: one-sided level of the gate.

    Raises:
        ValueError: `change` is larger than half the share of pairs that are no ties.
    """
    if 2 * abs(change) > 1 - ties:
        raise ValueError(f"a win rate of {0.5 + change:g} is not possible with {ties:g} ties")
    if n > EXACT_TO:
        return mean_power(n, 0.5 - limit, math.sqrt((1 - ties) / 4 - change * change), change, level)

    def passes(won: int, decided: int) -> bool:
        tied = n - decided
        return tied_rate_exceeds(won + tied / 2, tied / 4, n, limit) <= level

    return _trinomial(n, 1 - ties, 0.5 + change / (1 - ties) if ties < 1 else 0.5, passes)


def mean_power(n: int, limit: float, spread: float, change: float = 0.0, level: float = LEVEL) -> float:
    """Return the chance that a gate on means passes, by the normal distribution of the studentised mean.

    Args:
        n: number of items.
        limit: the largest loss allowed, in the values' unit.
        spread: standard deviation of the items' paired differences.
        change: true change of the mean.
        level: one-sided level of the gate.
    """
    if spread <= 0:
        return float(limit + change > 0 and 0.5**n <= level)  # the sign test, as for all equal differences
    normal = NormalDist()
    return normal.cdf((limit + change) * math.sqrt(n) / spread - normal.inv_cdf(1 - level))


def factor_power(n: int, factor: float, variation: float, level: float = LEVEL) -> float:
    """Return the chance that a ratio of two means is shown to lie from 1 / factor to factor, where it is truly 1.

    Each side is the test of a mean, of ours - factor x theirs and of theirs - factor x ours, for items whose two
    values are independent. Both have to pass: the chance is at least 1 less both chances of failing.

    Args:
        n: number of items.
        factor: the limit, above 1.
        variation: standard deviation of the values over their mean.
        level: one-sided level of each side.
    """
    one_side = mean_power(n, factor - 1, variation * math.sqrt(1 + factor * factor), level=level)
    return max(0.0, 2 * one_side - 1)


def largest_spread(n: int, limit: float, level: float = LEVEL, aim: float = OFTEN) -> float:
    """Return the largest standard deviation of paired differences at which an unchanged model passes `aim` times."""
    normal = NormalDist()
    return limit * math.sqrt(n) / (normal.inv_cdf(1 - level) + normal.inv_cdf(aim))


def smallest_n(power: Callable[[int], float], aim: float = OFTEN) -> int | None:
    """Return the smallest number of items with which a gate passes with the chance `aim`; None above a million.

    Counts are whole, so the chance rises in teeth: it is a size behind which the next teeth stay at
    `aim` or above.

    Args:
        power: number of items -> the chance that the gate passes.
        aim: the chance.
    """
    high = 1
    while power(high) < aim:
        high *= 2
        if high > LARGEST_N:
            return None
    high = first_true(lambda n: power(n) >= aim, high // 2, high)
    failing = [n for n in range(high, high + TEETH) if power(n) < aim]
    return failing[-1] + 1 if failing else high


def first_true(condition: Callable[[int], bool], low: int, high: int) -> int:
    """Return the first integer above `low` for which a monotone condition is true; it is true for `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high


def _trinomial(n: int, decided: float, better: float, passes: Callable[[int, int], bool]) -> float:
    """Return the probability that `passes(number better, number decided)` is true.

    Of n items each is decided with the probability `decided`, and a decided one is better with the probability
    `better`. More items that are better, of as many decided ones, never make a gate fail.
    """
    counts = _likely(n, decided)
    total, fewest = 0.0, 0
    for count, chance in zip(counts.tolist(), _binomial(counts, n, decided).tolist(), strict=True):
        while fewest > 0 and passes(min(fewest - 1, count), count):
            fewest = min(fewest - 1, count)
        while fewest <= count and not passes(fewest, count):
            fewest += 1
        total += chance * float(_binomial(np.arange(fewest, count + 1), count, better).sum())
    return min(1.0, total)


def _likely(n: int, p: float) -> Ints:
    """Return the numbers of successes in n trials, (K,), beyond which less than 1e-11 of the probability lies."""
    centre, far = n * p, _FAR * math.sqrt(n * p * (1 - p)) + 10
    return np.arange(max(0, math.floor(centre - far)), min(n, math.ceil(centre + far)) + 1)


def _binomial(k: Ints, n: int, p: float) -> Floats:
    """Return the probability of each number of successes k, (K,), in n trials."""
    if p in (0.0, 1.0):
        return (k == n * p).astype(np.float64)
    logs = _log_factorials(1 << max(10, n.bit_length()))
    return np.exp(logs[n] - logs[k] - logs[n - k] + k * math.log(p) + (n - k) * math.log1p(-p))


@lru_cache(maxsize=16)
def _log_factorials(size: int) -> Floats:
    """Return log 0!, log 1!, … log size!, (size + 1,)."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])
