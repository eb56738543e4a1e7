"""Distributions of the pivot, (estimate - truth) / standard error, for means and ratios of sums over items.

An interval and a p-value from one distribution cannot disagree. `paired.py` says when each of them is used, and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from trueup.stats.intervals import Z_95

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats

ENOUGH = 10
"""Number of items away from the commonest difference from which the bootstrap is trusted."""
CHUNK = 1_000_000
"""Resampled items held in memory at a time."""
NORMAL_FROM = 200
"""Degrees of freedom from which Student's t is treated as normal: its 97.5% point is 1.972 there."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio of two sums over items: of `numerator` over `denominator`, each (N,), or (R, N) for R resamples."""

    numerator: Floats
    denominator: Floats


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Bootstrap distribution of the pivot, (estimate - truth) / standard error, as R sorted draws."""

    draws: Floats

    def above(self, t: float) -> float:
        """Return P(pivot >= t), never 0."""
        return (1 + int((self.draws >= t).sum())) / (1 + len(self.draws))

    def below(self, t: float) -> float:
        """Return P(pivot <= t), never 0."""
        return (1 + int((self.draws <= t).sum())) / (1 + len(self.draws))

    def central(self) -> tuple[float, float]:
        """Return the 2.5% and 97.5% points of the distribution."""
        index = math.floor(0.025 * (len(self.draws) + 1)) - 1
        return float(self.draws[index]), float(self.draws[-1 - index])


@dataclass(frozen=True, slots=True)
class Student:
    """Student's t as the pivot's distribution, with a few whole degrees of freedom.

    Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """

    freedom: int

    def above(self, t: float) -> float:
        """Return P(pivot >= t)."""
        angle = math.atan(t / math.sqrt(self.freedom))
        odd = self.freedom % 2
        term = math.cos(angle) if odd else 1.0
        total = 0.0 if self.freedom == 1 else term
        for k in range(3 if odd else 2, self.freedom, 2):
            term *= math.cos(angle) ** 2 * (k - 1) / k
            total += term
        inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
        return (1 - inside) / 2

    def below(self, t: float) -> float:
        """Return P(pivot <= t)."""
        return self.above(-t)

    def central(self) -> tuple[float, float]:
        """Return the 2.5% and 97.5% points of the distribution."""
        point = self.quantile(0.975)
        return -point, point

    def quantile(self, share: float) -> float:
        """Return the point with the share `share` of the distribution, one half or more, below it."""
        return bisect(lambda t: self.above(t) <= 1 - share, 0.0, 100.0)


@lru_cache(maxsize=512)
def critical(freedom: int | None) -> float:
    """Return the 97.5% point of Student's t with `freedom` degrees of freedom, for 95% intervals.

    With None, or from 200 degrees of freedom, it is the normal distribution's.
    """
    return Z_95 if freedom is None or freedom >= NORMAL_FROM else Student(freedom).quantile(0.975)


@dataclass(frozen=True, slots=True)
class SignTest:
    """Distribution of the pivot if all n differences are equal, so that only their sign counts."""

    n: int

    def above(self, t: float) -> float:
        """Return the one-sided p-value of the sign test: 0.5^n for t above 0, else 1."""
        return 0.5**self.n if t > 0 else 1.0

    def below(self, t: float) -> float:
        """Return the one-sided p-value of the sign test: 0.5^n for t below 0, else 1."""
        return self.above(-t)

    def central(self) -> tuple[float, float]:
        """Return the 2.5% and 97.5% points: infinite if n is too small to show anything, else 0."""
        return (-math.inf, math.inf) if 0.5**self.n > 0.025 else (0.0, 0.0)


Pivot = Bootstrap | Student | SignTest


def pivot_of(ratios: Sequence[Ratio], items: Floats, resamples: int, seed: int) -> tuple[Pivot, float, float, str]:
    """Choose the pivot's distribution for an estimate, a sum of ratios: bootstrap, Student's t or the sign test.

    Returned are the distribution, the estimate, its standard error (0 if there is no spread), and the test's name.

    Args:
        ratios: the terms of the estimate: one ratio, or one for each model.
        items: (N,) each item's difference, to count those away from the commonest.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Raises:
        ValueError: `resamples` is below 100.
    """
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}: a 95% interval needs 100 or more")
    values, errors = _estimate(ratios)
    value, error = float(values), float(errors)
    if error <= 1e-12 * max(float(np.abs(ratio.numerator).max()) for ratio in ratios) or len(items) == 1:
        return SignTest(len(items)), value, 0.0, "sign test"
    # Rounded, because 0.3 - 0.1 and 0.5 - 0.3 are the same difference.
    rounded = np.round(items / (np.abs(items).max() or 1.0), 9)
    uncommon = len(items) - int(np.unique(rounded, return_counts=True)[1].max())
    if uncommon < ENOUGH:
        return Student(max(1, uncommon)), value, error, "Student's t"
    return Bootstrap(_draws(ratios, value, resamples, seed)), value, error, "paired bootstrap"


def _draws(ratios: Sequence[Ratio], value: float, resamples: int, seed: int) -> Floats:
    generator, n, chunks = np.random.default_rng(seed), len(ratios[0].numerator), []
    for start in range(0, resamples, max(1, CHUNK // n)):
        rows = min(max(1, CHUNK // n), resamples - start)
        drawn = generator.integers(n, size=(rows, n))
        values, errors = _estimate([Ratio(ratio.numerator[drawn], ratio.denominator[drawn]) for ratio in ratios])
        chunks.append(standardised(values - value, errors))
    return np.sort(np.concatenate(chunks))


def _estimate(ratios: Sequence[Ratio]) -> tuple[Floats, Floats]:
    """Return the estimate, a sum of ratios, and its standard error: two numbers, or (R,) of each for R resamples."""
    n = ratios[0].numerator.shape[-1]
    value, spread = np.zeros(()), np.zeros(())
    for ratio in ratios:
        total = ratio.denominator.sum(-1)
        quotient = ratio.numerator.sum(-1) / total
        value = value + quotient
        spread = spread + (ratio.numerator - quotient[..., None] * ratio.denominator) * (n / total)[..., None]
    return value, np.sqrt((spread**2).sum(-1) / (n * max(1, n - 1)))


def standardised(distance: Floats | float, error: Floats | float) -> Floats:
    """Return a distance divided by its standard error: infinite if the error is 0 and the distance is not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(distance, 0), 0.0, np.divide(distance, error))


def bisect(condition: Callable[[float], bool], low: float, high: float) -> float:
    """Return the point between `low` and `high` from which on a monotone condition is true."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high
