"""Distributions of the pivot, (estimate - truth) / standard error, for means and ratios of sums over items.

An interval and a p-value from one distribution cannot disagree. Everything that is no rate has one of these:

* `Bootstrap`: the studentised bootstrap over items (Efron & Tibshirani 1993, section 12.5; Hall 1988), which follows
  skewness, joined with Student's t as far as the items' skewness is in doubt, see `_mixed`. Of the resampled items the
  distances from the median are multiplied by lognormal noise as wide as the items' tail is heavy, because no resample
  holds an item larger than the largest one.
* `Student`: where the items tell of no skewness; its degrees of freedom are the items that differ from the commonest.
* `SignTest`: where all items are equal.
* `Withheld`: where the mean depends on a tail of which too little was seen: no interval is given.

docs/evaluation.md has the coverage, by `python scripts/coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats

Z_95 = 1.959963984540054
"""The 97.5% point of the standard normal."""
CHUNK = 1_000_000
"""Resampled items held in memory at a time."""
NORMAL_FROM = 200
"""Degrees of freedom from which Student's t is treated as normal: its 97.5% point is 1.972 there."""
SKEWED, LOPSIDED = 2.0, 4.0
"""Skewness, in squared standard errors (`_skewness`), from which the bootstrap makes an interval longer and shorter."""
TAIL = 10
"""One in so many items is taken to be in the tail."""
LARGEST_TAIL = 1.5
"""The largest tail index that resamples are drawn with."""
STRETCH = 20.0
"""The bootstrap's draws are stretched by 1 + STRETCH (tail index)^2 / n: the tail itself is an estimate."""


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
        return max(0.0, (1 - inside) / 2)  # rounding can leave less than 0

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


@dataclass(frozen=True, slots=True)
class Withheld:
    """Stand-in for the pivot's distribution where it cannot be known; every p-value is 1 and every interval infinite.

    Attributes:
        reason: the reason in words, such as "too skewed to say: …".
    """

    reason: str

    def above(self, t: float) -> float:  # noqa: ARG002  (the signature of the others)
        """Return 1: nothing can be shown."""
        return 1.0

    def below(self, t: float) -> float:  # noqa: ARG002
        """Return 1: nothing can be shown."""
        return 1.0

    def central(self) -> tuple[float, float]:
        """Return infinite points."""
        return -math.inf, math.inf


Pivot = Bootstrap | Student | SignTest | Withheld


def pivot_of(ratios: Sequence[Ratio], items: Floats, resamples: int, seed: int) -> tuple[Pivot, float, float, str]:
    """Choose the pivot's distribution for an estimate, a sum of ratios, as the module's docstring says.

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
    value, error, n = float(values), float(errors), len(items)
    if error <= 1e-12 * max(float(np.abs(ratio.numerator).max()) for ratio in ratios) or n == 1:
        return SignTest(n), value, 0.0, "sign test"
    # Rounded, because 0.3 - 0.1 and 0.5 - 0.3 are the same difference.
    rounded = np.round(items / (np.abs(items).max() or 1.0), 12)
    uncommon = n - int(np.unique(rounded, return_counts=True)[1].max())
    student = Student(max(1, min(uncommon, n - 1, NORMAL_FROM)))
    distances = _distances(ratios)
    tail, counted = tail_index(distances)
    if tail * (1 - 1 / math.sqrt(counted)) >= 1:
        return Withheld(_too_skewed(distances)), value, error, "none"
    skewness = _skewness(distances)
    if skewness <= SKEWED:
        return student, value, error, "Student's t"
    tail = min(tail, LARGEST_TAIL)
    draws = _draws(ratios, value, tail, resamples, seed) * (1 + STRETCH * tail**2 / n)
    return Bootstrap(_mixed(draws, student, skewness)), value, error, "paired bootstrap"


def _distances(ratios: Sequence[Ratio]) -> Floats:
    """Return each item's distance from the median, (N,), in its effect on the estimate."""
    effects = np.zeros(len(ratios[0].numerator))
    for ratio in ratios:
        total = ratio.denominator.sum()
        effects = effects + (ratio.numerator - ratio.numerator.sum() / total * ratio.denominator) / total
    distances = effects - np.median(effects)
    distances[np.abs(distances) <= 1e-12 * np.abs(distances).max()] = 0.0
    return distances


def tail_index(distances: Floats) -> tuple[float, int]:
    """Return Hill's estimate (1975) of the tail index of the items, and the number of items that it is an average of.

    It is the mean logarithm of the largest tenth of the distances over the next one; the commonest value is left out.
    A Pareto tail has a mean for an index below 1 and a variance below one half.
    """
    sizes = np.sort(np.abs(distances[distances != 0]))[::-1]
    counted = min(max(2, math.ceil(len(sizes) / TAIL)), len(sizes) - 1)
    if counted < 1:
        return 0.0, 1
    return float(np.log(sizes[:counted] / sizes[counted]).mean()), counted


def _too_skewed(distances: Floats) -> str:
    sizes = np.sort(np.abs(distances))[::-1]
    few = int(np.searchsorted(np.cumsum(sizes), 0.9 * sizes.sum())) + 1
    return f"too skewed to say: {few} of {len(sizes)} items make up 90% of all distances from the median"


def _skewness(distances: Floats) -> float:
    """Return the squared number of standard errors between mean and median: about 1 or less without skewness."""
    return float(distances.sum() ** 2 / (distances**2).sum())


def _mixed(draws: Floats, student: Student, skewness: float) -> Floats:
    """Return the bootstrap's draws, moved towards Student's t as far as the skewness is in doubt, sorted.

    Of few items away from the commonest, or of symmetric ones with heavy tails, the skewness of a sample is chance, and
    the bootstrap follows it: the intervals are too short on the side that it shortens. So the weight of a draw is
    1 - (c / skewness)^2, with a larger c where the bootstrap is the shorter one.
    """
    count = len(draws)
    points = (np.arange(count) + 0.5) / count
    others = student_points(student.freedom, count)
    longer = np.abs(draws) > np.abs(others)
    needed = np.where(longer & ((draws < 0) == (points < 0.5)), SKEWED, LOPSIDED)
    weights = np.maximum(0.0, 1 - (needed / skewness) ** 2)
    return np.sort(weights * draws + (1 - weights) * others)


@lru_cache(maxsize=64)
def student_points(freedom: int, count: int) -> Floats:
    """Return `count` points of Student's t, sorted, at equal steps of probability: (k + 1/2) / count."""
    grid = np.concatenate([[0.0], np.geomspace(0.01, 1e4, 400)])
    distribution = Student(freedom)
    inside = np.array([1 - distribution.above(float(t)) for t in grid])
    upper = np.interp((np.arange(count) + 0.5) / count, inside, grid)
    half = upper[count - count // 2 :]
    return np.concatenate([-half[::-1], np.zeros(count % 2), half])


def _draws(ratios: Sequence[Ratio], value: float, tail: float, resamples: int, seed: int) -> Floats:
    """Return the sorted pivots of resampled items, (R,); see the module's docstring for the noise.

    A resample without any spread has that of a single item.
    """
    generator, n, chunks = np.random.default_rng(seed), len(ratios[0].numerator), []
    distances = np.abs(_distances(ratios))
    least = float(distances[distances > 0].min())
    rests = [_rest(ratio) for ratio in ratios]
    for start in range(0, resamples, max(1, CHUNK // n)):
        rows = min(max(1, CHUNK // n), resamples - start)
        drawn = generator.integers(n, size=(rows, n))
        noise = np.exp(tail * generator.standard_normal((rows, n)) - tail**2 / 2)
        resampled = [
            Ratio(
                quotient * ratio.denominator[drawn] + middle + (rest[drawn] - middle) * noise, ratio.denominator[drawn]
            )
            for ratio, (quotient, rest, middle) in zip(ratios, rests, strict=True)
        ]
        values, errors = _estimate(resampled)
        chunks.append(standardised(values - value, np.maximum(errors, least)))
    return np.sort(np.concatenate(chunks))


def _rest(ratio: Ratio) -> tuple[float, Floats, float]:
    """Return the ratio of the sums, what each item's numerator is more than the ratio tells, (N,), and its median."""
    quotient = float(ratio.numerator.sum() / ratio.denominator.sum())
    rest = ratio.numerator - quotient * ratio.denominator
    return quotient, rest, float(np.median(rest))


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
