"""Estimates: a measured value with its 95% interval and its number of items n; rates and means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trueup.stats.pivots import Z_95, Ratio, Withheld, pivot_of


@dataclass(frozen=True, slots=True)
class Estimate:
    """Measured value with the low and high end of its 95% interval, and the number n of items it was measured on.

    `withheld` is the reason why there is no interval, whose ends are then infinite; "" where there is one.
    """

    value: float
    low: float
    high: float
    n: int
    withheld: str = ""

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float | int | None]:
        """Return value, low, high and n by name, for JSON; an end that is withheld becomes None."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"value": self.value, "low": low, "high": high, "n": self.n}


def rate(successes: float, n: int) -> Estimate:
    """Return the share `successes / n` with Wilson's 95% interval; `tied_rate` is for outcomes with ties.

    Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4.

    Raises:
        ValueError: n is 0: nothing was measured.
    """
    if n < 1:
        raise ValueError("cannot compute a rate: n is 0")
    return Estimate(successes / n, *wilson(successes / n, n), n)


def wilson(p: float, n: float, critical: float = Z_95) -> tuple[float, float]:
    """Return the low and high end of Wilson's 95% interval (1927) around a share.

    Args:
        p: the share.
        n: the number of independent trials; an effective number need not be whole.
        critical: half-width of a 95% interval in standard errors: the normal's 1.96, or Student's t for few trials.
    """
    c2 = critical**2
    centre = (p + c2 / (2 * n)) / (1 + c2 / n)
    half = critical / (1 + c2 / n) * math.sqrt(p * (1 - p) / n + c2 / (4 * n * n))
    # At 0 and 1 the interval ends at the share itself, and rounding must not move the end past it.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def tied_rate(outcomes: Sequence[float]) -> Estimate:
    """Return a mean of outcomes from 0 to 1, ties as 0.5, with Wilson's interval at the trials they are worth.

    Without ties it is `rate`. It covers 95% to 97% of simulated truths where 70% are ties, Wilson's at n all of them.

    Raises:
        ValueError: there are no outcomes: nothing was measured.
    """
    n = len(outcomes)
    if not n:
        raise ValueError("cannot compute a rate: n is 0")
    won = math.fsum(outcomes)
    effective = n * informative(won, math.fsum(outcome * (1 - outcome) for outcome in outcomes), n)
    return Estimate(won / n, *wilson(won / n, effective), n)


def informative(won: float, between: float, n: float) -> float:
    """Return how many 0/1 trials an outcome from 0 to 1 is worth: 1 where all are 0 or 1, more with ties.

    An outcome has the variance p (1 - p) - mean of y (1 - y), which is smaller than a coin's, p (1 - p). Both are taken
    with 1.96^2 more trials, half won: a run of ties alone is no certainty (Agresti & Coull 1998).

    Args:
        won: sum of the n outcomes y.
        between: sum of y (1 - y): a quarter of the number of ties where there are no outcomes but 0, 0.5 and 1.
        n: number of outcomes.
    """
    z2 = Z_95**2
    centre = (won + z2 / 2) / (n + z2)
    coin = centre * (1 - centre)
    return coin / (coin - between / (n + z2))


def tied_rate_exceeds(won: float, between: float, n: int, limit: float) -> float:
    """Return the p-value against "the rate is at most `limit`": the score test of which `tied_rate` is the interval.

    Args:
        won: sum of the n outcomes y.
        between: sum of y (1 - y).
        n: number of outcomes.
        limit: the rate, between 0 and 1.
    """
    trials = n * informative(won, between, n)
    return 0.5 * math.erfc((won / n - limit) / math.sqrt(2 * limit * (1 - limit) / trials))


def mean(
    values: Sequence[float],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    resamples: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Return a mean with its 95% interval: the studentised bootstrap's or Student's t, as `pivots.pivot_of` chooses.

    Args:
        values: (N,) independent values.
        bounds: the least and largest value that the true mean can have, such as 0 for a length.
        resamples: bootstrap resamples, 100 or more.
        seed: seed of the bootstrap.

    Raises:
        ValueError: there are no values: nothing was measured.
    """
    if not len(values):
        raise ValueError("cannot take a mean: there are no values")
    items = np.asarray(values, dtype=np.float64)
    centre = math.fsum(values) / len(items)
    if np.ptp(items) <= 1e-12 * np.abs(items).max():
        return Estimate(centre, centre, centre, len(items))
    pivot, _, error, _ = pivot_of([Ratio(items, np.ones(len(items)))], items, resamples, seed)
    if isinstance(pivot, Withheld):
        return Estimate(centre, -math.inf, math.inf, len(items), pivot.reason)
    left, right = pivot.central()
    low, high = max(bounds[0], centre - right * error), min(bounds[1], centre - left * error)
    return Estimate(centre, min(low, centre), max(high, centre), len(items))
