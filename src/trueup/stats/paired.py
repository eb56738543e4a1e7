"""Paired comparison of two models on the same items: difference, 95% interval, p-value, detectable difference.

Every interval is an inverted test: it contains the limits L for which neither `exceeds(ours, theirs, L)` nor
`exceeds(theirs, ours, -L)` is at 2.5% or below. So an interval, its p-value and a gate never disagree.

* 0/1 values: Tango's score interval (1998, Statistics in Medicine 17, eq. 7 to 9), widened to include 0 unless
  McNemar's exact test rejects 0. Newcombe's hybrid score interval (1998, method 10) was not chosen: it covered the
  truth in 88% of cases, Tango's in 98% (n = 100, 2% discordant, all one way), and with no discordant pair among 50 it
  ends at 0.038, though with 5% discordance one sample in 13 shows none.
* Other values: the studentised bootstrap over items as far as they are skewed, else Student's t with as many degrees of
  freedom as items differ from the commonest difference; no interval where they are too skewed to say (`pivots.py`).
* All differences equal, to rounding: there is no spread, so the sign test is used: with 6 items or more the interval is
  a single point, with fewer it is infinite.

docs/evaluation.md has the coverage of the 95% intervals, by `python scripts/coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from trueup.stats.pivots import Z_95, Ratio, Student, Withheld, bisect, pivot_of, standardised

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two models' means (ours - theirs) on the same n items, with its 95% interval, in the values' unit.

    `p` is the two-sided p-value of no difference, from the test named in `test`. `detectable` is the true difference
    that an experiment of this size shows in 80% of cases at a two-sided 5%; infinite if the spread is unknown.
    `withheld` is the reason why there is no interval (its ends are infinite and p is 1); "" where there is one.
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    test: str
    detectable: float
    withheld: str = ""

    @property
    def shown(self) -> bool:
        """True if the interval excludes 0, so the difference is statistically shown."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    def as_dict(self) -> dict[str, float | int | str | bool | None]:
        """Return the fields and `shown` by name for JSON; an infinite number becomes None."""
        ends = {"low": self.low, "high": self.high, "detectable": self.detectable}
        finite = {key: end if math.isfinite(end) else None for key, end in ends.items()}
        return {"value": self.value, **finite, "n": self.n, "p": self.p, "test": self.test, "shown": self.shown}


def difference(
    ours: Sequence[float], theirs: Sequence[float], *, resamples: int = 4000, seed: int = 0
) -> PairedDifference:
    """Return the mean of ours minus the mean of theirs, paired by item.

    For 0/1 values `detectable` is 2.80 standard errors of the paired differences (Cohen 1988), but at least the
    difference that McNemar's exact test can detect if all discordant pairs favour ours: 7.9/n, see `_fewest`. The rule
    of three (Hanley & Lippman-Hand 1983) is not used: it bounds the true difference, not the detectable one.

    Args:
        ours: (N,) our values, one for each item.
        theirs: (N,) their values of the same items in the same order.
        resamples: bootstrap resamples, 100 or more; a bootstrapped p is at least 2 / (resamples + 1).
        seed: seed of the bootstrap; not used for 0/1 values.

    Raises:
        ValueError: no items, different numbers of items, too few resamples, or a value that is not finite.
    """
    mine, other = _checked(ours, theirs)
    if _binary(mine, other):
        return _of_rates(*_discordant(mine, other), len(mine))
    return _of_values(_ratios(mine, other), mine - other, resamples, seed)


def weighted_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    weights: Sequence[float],
    their_weights: Sequence[float] | None = None,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedDifference:
    """Return the difference of two weighted means, paired by item, for example in nats per token.

    It is sum(ours) / sum(weights) - sum(theirs) / sum(their_weights). Items are resampled, not tokens: tokens of one
    text are not independent. Within a resample the spread is that of the ratio estimator (Cochran 1977, eq. 6.13).

    Args:
        ours: (N,) our sum over each item, e.g. nats.
        theirs: (N,) their sum over the same items.
        weights: (N,) tokens of each item, more than 0.
        their_weights: (N,) tokens of the items under their tokenizer; by default `weights`.
        resamples: bootstrap resamples, 100 or more.
        seed: seed of the bootstrap.

    Raises:
        ValueError: see `difference`; also if a weight is not above 0.
    """
    mine, other = _checked(ours, theirs)
    return _of_values(_ratios(mine, other, weights, their_weights), mine - other, resamples, seed)


def exceeds(
    ours: Sequence[float],
    theirs: Sequence[float],
    limit: float,
    *,
    weights: Sequence[float] | None = None,
    their_weights: Sequence[float] | None = None,
    resamples: int = 4000,
    seed: int = 0,
) -> float:
    """Return the one-sided p-value of "ours - theirs is at most `limit`": small is evidence that it is more.

    `exceeds(theirs, ours, tolerance)` tests for a loss above the tolerance, `exceeds(ours, theirs, -tolerance)` for
    non-inferiority (exchange both sides' weights as well). With the same resamples and seed it is at 2.5% or below
    exactly if the interval's low end is above the limit. For 0/1 values it is Tango's score test, and for limits of 0
    or more at least McNemar's exact p. With weights it is the test of `weighted_difference`.

    Raises:
        ValueError: see `weighted_difference`.
    """
    mine, other = _checked(ours, theirs)
    if weights is None and _binary(mine, other):
        return rate_exceeds(*_discordant(mine, other), len(mine), limit)
    pivot, value, error, _ = pivot_of(_ratios(mine, other, weights, their_weights), mine - other, resamples, seed)
    return pivot.above(float(standardised(value - limit, error)))


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p-value of McNemar's test of equal success rates on the same items.

    Args:
        b: number of items that only ours solved.
        c: number of items that only theirs solved.

    Raises:
        ValueError: a count is negative.
    """
    if min(b, c) < 0:
        raise ValueError(f"a count of pairs is negative: {b} and {c}")
    return min(1.0, 2 * _tail(max(b, c), b + c))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values adjusted for multiple tests (Holm 1979), under the same keys in the same order.

    Rejecting the tests with an adjusted value of 5% or below keeps the chance of any false rejection at 5% at most.

    Raises:
        ValueError: a value is not between 0 and 1.
    """
    wrong = [f"{name}: {p}" for name, p in p_values.items() if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"p-values lie between 0 and 1: {', '.join(wrong)}")
    adjusted, highest = {}, 0.0
    for index, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - index) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _checked(ours: Sequence[float], theirs: Sequence[float]) -> tuple[Floats, Floats]:
    mine, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if len(mine) != len(other):
        raise ValueError(f"{len(mine)} values against {len(other)}: a paired difference needs the same items")
    if not len(mine):
        raise ValueError("cannot compute a difference: n is 0")
    for name, values in (("ours", mine), ("theirs", other)):
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{name}[{index}] is {values[index]}: leave out unmeasured items on both sides")
    return mine, other


def _ratios(
    mine: Floats, other: Floats, weights: Sequence[float] | None = None, their_weights: Sequence[float] | None = None
) -> list[Ratio]:
    tokens = np.ones(len(mine)) if weights is None else _weights(weights, len(mine))
    if their_weights is None:
        return [Ratio(mine - other, tokens)]
    return [Ratio(mine, tokens), Ratio(-other, _weights(their_weights, len(mine)))]


def _weights(weights: Sequence[float], n: int) -> Floats:
    tokens = np.asarray(weights, dtype=np.float64)
    if len(tokens) != n:
        raise ValueError(f"{len(tokens)} weights for {n} items")
    if not (np.isfinite(tokens).all() and (tokens > 0).all()):
        raise ValueError("a weight is not above 0: an item without tokens has no nats per token")
    return tokens


# 0/1 values: b items only ours solved, c items only theirs solved.


def _binary(mine: Floats, other: Floats) -> bool:
    return bool(np.isin(mine, (0, 1)).all() and np.isin(other, (0, 1)).all())


def _discordant(mine: Floats, other: Floats) -> tuple[int, int]:
    return int((mine > other).sum()), int((mine < other).sum())


def _of_rates(b: int, c: int, n: int) -> PairedDifference:
    value, p = (b - c) / n, mcnemar(b, c)
    low = bisect(lambda limit: _score(b, c, n, limit) < Z_95, -1.0, value)
    high = bisect(lambda limit: _score(b, c, n, limit) <= -Z_95, value, 1.0)
    if p > 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    spread = math.sqrt(max(0.0, (b + c) / n - value**2) * n / max(1, n - 1))
    detectable = (Z_95 + NormalDist().inv_cdf(0.8)) * spread / math.sqrt(n)
    return PairedDifference(value, low, high, n, p, "McNemar, exact", min(1.0, max(detectable, _fewest(0.8, 0.05) / n)))


def rate_exceeds(b: int, c: int, n: int, limit: float) -> float:
    """Return the p-value of `exceeds` for 0/1 values, from counts.

    Args:
        b: number of items that only ours solved.
        c: number of items that only theirs solved.
        n: number of items.
        limit: as for `exceeds`.
    """
    if not -1 <= limit < 1:
        return 0.0 if limit < -1 else 1.0
    p = NormalDist().cdf(-_score(b, c, n, limit))
    return p if limit < 0 else max(p, _tail(b, b + c))


def _score(b: int, c: int, n: int, limit: float) -> float:
    """Return Tango's score statistic, which is standard normal if `limit` is the true difference of success rates.

    b of n items only ours solved, c only theirs. It decreases in `limit`.
    """
    excess = b - c - n * limit
    linear = (2 * n - b + c) * limit - b - c
    root = math.sqrt(max(0.0, linear * linear + 8 * n * c * limit * (1 - limit)))
    only_theirs = (root - linear) / (4 * n)  # their share under the limit, by maximum likelihood
    variance = n * (2 * only_theirs + limit * (1 - limit))
    if abs(excess) < 1e-12:
        return 0.0
    return math.copysign(math.inf, excess) if variance < 1e-12 else excess / math.sqrt(variance)


def _tail(least: int, n: int) -> float:
    """Return the probability of at least `least` heads in n tosses of a fair coin."""
    if least <= 0:
        return 1.0
    chances, term = 0, math.comb(n, least)
    for heads in range(least, n + 1):
        chances += term
        term = term * (n - heads) // (heads + 1)
    return chances / 2**n


def _fewest(power: float, alpha: float) -> float:
    """Return the expected number of discordant pairs, all in our favour, at which McNemar's exact test has this power.

    `alpha` is the test's two-sided level.
    """
    needed = math.ceil(1 - math.log2(alpha))

    def enough(expected: float) -> bool:
        below = sum(math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(needed))
        return 1 - below >= power

    return bisect(enough, 1e-9, 100.0 + 10 * needed)


def _of_values(ratios: Sequence[Ratio], items: Floats, resamples: int, seed: int) -> PairedDifference:
    pivot, value, error, test = pivot_of(ratios, items, resamples, seed)
    if isinstance(pivot, Withheld):
        return PairedDifference(value, -math.inf, math.inf, len(items), 1.0, test, math.inf, pivot.reason)
    left, right = pivot.central()
    scale = error or 1.0
    t = float(standardised(value, error))
    p = min(1.0, 2 * min(pivot.above(t), pivot.below(t)))
    factor = right + pivot.quantile(0.8) if isinstance(pivot, Student) else Z_95 + NormalDist().inv_cdf(0.8)
    detectable = factor * error if error else math.inf
    return PairedDifference(value, value - right * scale, value - left * scale, len(items), p, test, detectable)
