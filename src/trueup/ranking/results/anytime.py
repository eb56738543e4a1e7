"""An interval that may be looked at after every vote.

A 95% interval misses one time in twenty when it is looked at once. Who looks after every vote and stops at the first
one that leaves out one half is wrong far more often: on equal models 38% of the time within 100 votes, 54% within 1000.
What holds at all times at once is a confidence sequence. This one bets (Waudby-Smith & Ramdas 2024, JRSS B 86:1, for
means of bounded values): for each rate m there is a gambler whose stakes are fair if m is the truth; the chance that
the wealth ever reaches 20 is then at most 5% (Ville 1939), so every m at which it was reached is out, for good.

An outcome x from 0 to 1 multiplies the wealth by 1 + bet (x - m), which has the mean 1 if m is the truth. With
q = m + bet m (1 - m) that is x q/m + (1-x) (1-q)/(1-m). The money is spread over q by a Beta(10 m, 10 (1-m)), made for
true rates 0.1 to 0.2 away from m. At m = 1/2 a tie leaves the wealth as it is, and w wins and l losses make it
2^n B(w + 5, l + 5) / B(5, 5): Robbins' mixture (1970).

Votes on one prompt are no fair bets after the first: that one tells how the next will be. So each prompt is one
outcome, the mean of its first k votes, when it has them; k is how many a pair is to have, fixed beforehand. Prompts
must come in an order that does not depend on what is said of them, as the store's random order does.

In simulations of 1000 prompts the truth was left out, at any of 1000 looks, 0.1% to 1.7% of the time
(tests/ranking/results/test_anytime.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.schema import Number

if TYPE_CHECKING:
    from trueup.ranking.results.table import Floats, Ints

WEALTH = 20.0
"""1 / 5%: what a fair gambler reaches one time in twenty at most."""
_PRIOR = 10.0
_RATES = 199  # rates m that are bet on, 0.5% apart
_HALF = 99  # the place of one half among them
_BETS = 48
_LOOKS = 24  # moments at which rates other than one half are looked at; fewer looks can only widen the interval


@dataclass(frozen=True, slots=True)
class Anytime:
    """The interval at the last outcome, the intersection of those before.

    Attributes:
        number: rate and interval; n is prompts.
        decided: whether one half is out.
        values, counts: (V,) which outcomes there were, and how often.
    """

    number: Number
    decided: bool
    values: Floats
    counts: Ints


def outcomes(scores: Floats, prompts: Ints, k: int) -> Floats:
    """(P,) the mean of the first k votes on each prompt that has them, in the order in which they were complete.

    Args:
        scores: (N,) 1, 0.5, 0, or NaN for a vote that both are bad: it counts among the k, but not in the mean.
        prompts: (N,) the prompt of each.
        k: votes that make a prompt complete. Prompts whose first k are all NaN are left out.
    """
    order = np.argsort(prompts, kind="stable")
    _, starts, sizes = np.unique(prompts[order], return_index=True, return_counts=True)
    firsts = order[starts[sizes >= k][:, None] + np.arange(k)]  # (P, k) places of votes
    firsts = firsts[np.argsort(firsts[:, -1])]
    said = ~np.isnan(scores[firsts])
    means = np.where(said, scores[firsts], 0).sum(1) / np.maximum(said.sum(1), 1)
    return means[said.any(1)]


def confidence_sequence(scores: Floats) -> Anytime:
    """The interval that holds at every n at once with 95%.

    Args:
        scores: (N,) outcomes from 0 to 1 in the order in which they came, independent of each other.

    Raises:
        ValueError: there are none.
    """
    if not len(scores):
        raise ValueError("an interval of nothing was asked for: there are no votes")
    values, at = np.unique(scores.round(12), return_inverse=True)
    counts = (at[:, None] == np.arange(len(values))).cumsum(axis=0)
    value = float(scores.mean())
    gains = _gains(values)
    low, high = _kept(counts, gains, value)
    out = _wealth(counts, gains[:, [_HALF]], _money()[[_HALF]])[:, 0] >= math.log(WEALTH)
    if out.any():
        # Which side of one half the truth is on was settled when the wealth was reached, and stays settled.
        side = float(scores[: int(out.argmax()) + 1].mean())
        low, high = (max(low, 0.5), high) if side > 0.5 else (low, min(high, 0.5))
    number = Number(value=value, low=min(low, value), high=max(high, value), n=len(scores))
    return Anytime(number, bool(out.any()), values, counts[-1])


def more_prompts(one: Anytime, limit: int) -> int | None:
    """More prompts until one half would be out, should outcomes go on coming as they did.

    Returns: 0 where it is out, None where it would take more than `limit`.
    """
    if one.decided:
        return 0
    gains, money = _gains(one.values)[:, [_HALF]], _money()[[_HALF]]

    def out(more: int) -> bool:
        grown = (one.counts[None] * (1 + more / one.number.n)).astype(np.float64)
        return bool(_wealth(grown, gains, money)[0, 0] >= math.log(WEALTH))

    if not out(limit):
        return None
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if out(middle) else (middle, high)
    return high


def _kept(counts: Ints, gains: Floats, value: float) -> tuple[float, float]:
    """The least and the greatest rate still in, each a step of the grid outwards."""
    n = len(counts)
    looks = np.unique(np.geomspace(1, n, min(n, _LOOKS)).round().astype(np.int64)) - 1
    kept = np.flatnonzero((_wealth(counts[looks], gains, _money()) < math.log(WEALTH)).all(axis=0))
    if not len(kept):  # the truth is between two rates of the grid
        return value - 1 / (_RATES + 1), value + 1 / (_RATES + 1)
    return float(kept[0] / (_RATES + 1)), float((kept[-1] + 2) / (_RATES + 1))


def _wealth(counts: Ints | Floats, gains: Floats, money: Floats) -> Floats:
    """(T, M) logs of the wealth of the gambler against each rate.

    Args:
        counts: (T, V) how often each outcome came, at T moments.
        gains: (V, M, Q) logs of what an outcome multiplies each bet by.
        money: (M, Q) logs of the shares of the money.
    """
    bets = (counts.astype(np.float64) @ gains.reshape(len(gains), -1)).reshape(len(counts), *money.shape) + money
    highest = bets.max(axis=2)
    return highest + np.log(np.exp(bets - highest[..., None]).sum(axis=2))


def _grid() -> tuple[Floats, Floats]:
    """(M, 1) rates and (1, Q) bets."""
    return (np.arange(_RATES) + 1)[:, None] / (_RATES + 1), (np.arange(_BETS) + 0.5)[None] / _BETS


def _gains(values: Floats) -> Floats:
    m, q = _grid()
    x = values[:, None, None]
    return np.log(x * (q / m) + (1 - x) * ((1 - q) / (1 - m)))


@lru_cache(maxsize=1)
def _money() -> Floats:
    m, q = _grid()
    money = (_PRIOR * m - 1) * np.log(q) + (_PRIOR * (1 - m) - 1) * np.log(1 - q)
    money -= money.max(axis=1, keepdims=True)
    # Shares that sum to 1, so that the bets are fair to the last digit, however coarse the grid.
    return money - np.log(np.exp(money).sum(axis=1, keepdims=True))
