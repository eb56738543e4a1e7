"""What (estimate - truth) / standard error is distributed as, for means and ratios of sums over items.

An interval and a p-value that come from the same distribution cannot disagree. Which one is taken, and why, is said in
`paired.py`.
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
"""Items away from the commonest difference from which on the bootstrap is trusted."""
CHUNK = 1_000_000
"""Resampled items held in memory at a time."""
NORMAL_FROM = 200
"""Degrees of freedom from which on Student's t is taken for normal: its 97.5% point is 1.972 there."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """(N,) or (R, N) items: `above` is summed over the sum of `below`."""

    above: Floats
    below: Floats


@dataclass(frozen=True, slots=True)
class Drawn:
    """(estimate - truth) / standard error as a bootstrap has it: R sorted values."""

    draws: Floats

    def above(self, t: float) -> float:
        """P(pivot >= t)."""
        return (1 + int((self.draws >= t).sum())) / (1 + len(self.draws))

    def below(self, t: float) -> float:
        """P(pivot <= t)."""
        return (1 + int((self.draws <= t).sum())) / (1 + len(self.draws))

    def central(self) -> tuple[float, float]:
        """The points with 2.5% beyond them on either side."""
        spare = math.floor(0.025 * (len(self.draws) + 1)) - 1
        return float(self.draws[spare]), float(self.draws[-1 - spare])


@dataclass(frozen=True, slots=True)
class Student:
    """Student's t with a few whole degrees of freedom (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)."""

    freedom: int

    def above(self, t: float) -> float:
        """P(pivot >= t)."""
        angle = math.atan(t / math.sqrt(self.freedom))
        odd = self.freedom % 2
        term = math.cos(angle) if odd else 1.0
        total = 0.0 if self.freedom == 1 else term
        for at in range(3 if odd else 2, self.freedom, 2):
            term *= math.cos(angle) ** 2 * (at - 1) / at
            total += term
        inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
        return (1 - inside) / 2

    def below(self, t: float) -> float:
        """P(pivot <= t)."""
        return self.above(-t)

    def central(self) -> tuple[float, float]:
        """The points with 2.5% beyond them on either side."""
        point = self.quantile(0.975)
        return -point, point

    def quantile(self, share: float) -> float:
        """The point with this share, one half or more, below it."""
        return bisect(lambda t: self.above(t) <= 1 - share, 0.0, 100.0)


@lru_cache(maxsize=512)
def critical(freedom: int | None) -> float:
    """Return the 97.5% point of Student's t, or of the normal from 200 degrees of freedom on and for None."""
    return Z_95 if freedom is None or freedom >= NORMAL_FROM else Student(freedom).quantile(0.975)


@dataclass(frozen=True, slots=True)
class Signs:
    """All of n differences are equal: whether the truth is beyond them is left to the sign test."""

    n: int

    def above(self, t: float) -> float:
        """P(pivot >= t)."""
        return 0.5**self.n if t > 0 else 1.0

    def below(self, t: float) -> float:
        """P(pivot <= t)."""
        return self.above(-t)

    def central(self) -> tuple[float, float]:
        """The points with 2.5% beyond them on either side."""
        return (-math.inf, math.inf) if 0.5**self.n > 0.025 else (0.0, 0.0)


Pivot = Drawn | Student | Signs


def pivot_of(ratios: Sequence[Ratio], items: Floats, resamples: int, seed: int) -> tuple[Pivot, float, float, str]:
    """The pivot, the estimate, its standard error (0 where there is no spread), and the test's name.

    Args:
        ratios: what is added up: one ratio, or one a model.
        items: (N,) the difference each item makes, to count how many are telling.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: there are fewer than 100 resamples.
    """
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}: a 95% interval needs 100 or more")
    values, errors = _estimate(ratios)
    value, error = float(values), float(errors)
    if error <= 1e-12 * max(float(np.abs(one.above).max()) for one in ratios) or len(items) == 1:
        return Signs(len(items)), value, 0.0, "sign test"
    # Rounded, because 0.3 - 0.1 and 0.5 - 0.3 are the same difference.
    rounded = np.round(items / (np.abs(items).max() or 1.0), 9)
    telling = len(items) - int(np.unique(rounded, return_counts=True)[1].max())
    if telling < ENOUGH:
        return Student(max(1, telling)), value, error, "Student's t"
    return Drawn(_draws(ratios, value, resamples, seed)), value, error, "paired bootstrap"


def _draws(ratios: Sequence[Ratio], value: float, resamples: int, seed: int) -> Floats:
    generator, n, parts = np.random.default_rng(seed), len(ratios[0].above), []
    for start in range(0, resamples, max(1, CHUNK // n)):
        rows = min(max(1, CHUNK // n), resamples - start)
        taken = generator.integers(n, size=(rows, n))
        values, errors = _estimate([Ratio(one.above[taken], one.below[taken]) for one in ratios])
        parts.append(standardised(values - value, errors))
    return np.sort(np.concatenate(parts))


def _estimate(ratios: Sequence[Ratio]) -> tuple[Floats, Floats]:
    """The sum of the ratios and its standard error, over the last axis: two numbers, or (R,) of each."""
    n = ratios[0].above.shape[-1]
    value, spread = np.zeros(()), np.zeros(())
    for one in ratios:
        total = one.below.sum(-1)
        ratio = one.above.sum(-1) / total
        value = value + ratio
        spread = spread + (one.above - ratio[..., None] * one.below) * (n / total)[..., None]
    return value, np.sqrt((spread**2).sum(-1) / (n * max(1, n - 1)))


def standardised(distance: Floats | float, error: Floats | float) -> Floats:
    """Distance in standard errors; without a spread any distance at all is infinitely many."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(distance, 0), 0.0, np.divide(distance, error))


def bisect(true_above: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that is false, then true becomes true."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if true_above(middle) else (middle, high)
    return high
