"""An interval that may be looked at after every vote.

A 95% interval misses one time in twenty when it is looked at once. Who looks after every vote and stops at the first
one that leaves out one half is wrong far more often: on equal models 38% of the time within 100 votes, 54% within 1000.
What holds at all times at once is a confidence sequence. This one bets (Waudby-Smith & Ramdas 2024, JRSS B 86:1, for
means of bounded values): for each rate m there is a gambler whose stakes are fair if m is the truth; the chance that the
wealth ever reaches 20 is then at most 5% (Ville 1939), so every m at which it was reached is out, for good.

A vote x of 1, 0.5 or 0 multiplies the wealth by 1 + bet (x - m), which has the mean 1 if m is the truth. With
q = m + bet m (1 - m) that is q/m for a win, (1-q)/(1-m) for a loss and half their sum for a tie. The money is spread
over q by a Beta(10 m, 10 (1-m)), made for true rates 0.1 to 0.2 away from m. At m = 1/2 a tie leaves the wealth as it
is, and the wealth is 2^n B(w + 5, l + 5) / B(5, 5) for w wins and l losses: Robbins' mixture (1970).

Votes on one prompt are no fair bets after the first: that one tells how the next will be. So each prompt counts once,
by its first deciding vote. Prompts must come in an order that does not depend on what is said of them, as the store's
random order does.
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
_BETS = 48
_LOOKS = 24  # moments at which rates other than one half are looked at; fewer looks can only widen the interval


@dataclass(frozen=True, slots=True)
class Anytime:
    """The interval at the last vote, the intersection of those before.

    Attributes:
        number: rate and interval; n is prompts.
        decided: whether one half is out.
        losses, ties, wins: prompts.
    """

    number: Number
    decided: bool
    losses: int
    ties: int
    wins: int


def first_of_each(prompts: Ints) -> Ints:
    """(P,) places of the first vote on each prompt, in order."""
    return np.sort(np.unique(prompts, return_index=True)[1])


def confidence_sequence(scores: Floats) -> Anytime:
    """The interval that holds at every n at once with 95%.

    Args:
        scores: (N,) 1, 0.5 or 0 in the order in which they came, one a prompt.

    Raises:
        ValueError: there are none.
    """
    if not len(scores):
        raise ValueError("an interval of nothing was asked for: there are no votes")
    counts = np.stack([(scores == kind).cumsum() for kind in (0.0, 0.5, 1.0)], axis=1)
    value = float(scores.mean())
    low, high = _kept(counts)
    out = log_wealth_at_half(scores) >= math.log(WEALTH)
    if out.any():
        # Which side of one half the truth is on was settled when the wealth was reached, and stays settled.
        side = float(scores[: int(out.argmax()) + 1].mean())
        low, high = (max(low, 0.5), high) if side > 0.5 else (low, min(high, 0.5))
    losses, ties, wins = (int(one) for one in counts[-1])
    decided = bool(out.any())
    number = Number(value=value, low=min(low, value), high=max(high, value), n=len(scores))
    return Anytime(number, decided, losses, ties, wins)


def log_wealth_at_half(scores: Floats) -> Floats:
    """(N,) logs of the wealth after each vote of who bets against one half: Robbins' mixture, vote by vote."""
    wins, losses = scores == 1, scores == 0
    before = np.stack([wins.cumsum() - wins, losses.cumsum() - losses])
    share = (before + _PRIOR / 2) / (before.sum(0) + _PRIOR)
    return np.log(np.where(wins, 2 * share[0], np.where(losses, 2 * share[1], 1.0))).cumsum()


def more_prompts(one: Anytime, limit: int) -> int | None:
    """More prompts until one half would be out, should wins, ties and losses go on coming as they did.

    Returns: 0 where it is out, None where it would take more than `limit`.
    """
    if one.decided:
        return 0
    n = one.number.n

    def out(more: int) -> bool:
        grown = 1 + more / n
        return _mixture(one.wins * grown, one.losses * grown) >= math.log(WEALTH)

    if not out(limit):
        return None
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if out(middle) else (middle, high)
    return high


def _mixture(wins: float, losses: float) -> float:
    """The log of 2^n B(w + 5, l + 5) / B(5, 5)."""
    half = _PRIOR / 2

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return (wins + losses) * math.log(2) + log_beta(wins + half, losses + half) - log_beta(half, half)


def _kept(counts: Ints) -> tuple[float, float]:
    """The least and the greatest rate still in, each a step of the grid outwards."""
    n = len(counts)
    looks = np.unique(np.geomspace(1, n, min(n, _LOOKS)).round().astype(np.int64)) - 1
    gains, weights = _bets()
    wealth = counts[looks].astype(np.float64) @ gains.reshape(3, -1)
    wealth = wealth.reshape(len(looks), _RATES, _BETS) + weights
    highest = wealth.max(axis=2)
    totals = highest + np.log(np.exp(wealth - highest[..., None]).sum(axis=2))
    kept = np.flatnonzero((totals < math.log(WEALTH)).all(axis=0))
    if not len(kept):  # the truth is between two rates of the grid
        value = float((counts[-1] @ np.array([0, 0.5, 1])) / n)
        return value - 1 / (_RATES + 1), value + 1 / (_RATES + 1)
    return float(kept[0] / (_RATES + 1)), float((kept[-1] + 2) / (_RATES + 1))


@lru_cache(maxsize=1)
def _bets() -> tuple[Floats, Floats]:
    """(3, M, Q) logs of what a loss, a tie and a win multiply the wealth by, and (M, Q) logs of the money's shares."""
    m = (np.arange(_RATES) + 1)[:, None] / (_RATES + 1)
    q = (np.arange(_BETS) + 0.5)[None] / _BETS
    loss, win = (1 - q) / (1 - m), q / m
    money = (_PRIOR * m - 1) * np.log(q) + (_PRIOR * (1 - m) - 1) * np.log(1 - q)
    money -= money.max(axis=1, keepdims=True)
    money -= np.log(
        np.exp(money).sum(axis=1, keepdims=True)
    )  # shares of 1, so that the bets are fair to the last digit
    return np.log(np.stack([loss, (loss + win) / 2, win])), money
