"""Numbers with their n and their 95% interval."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5% point of the standard normal."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value, its 95% interval and the number of things it was measured on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float | int]:
        """The same, fit for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def rate(successes: float, n: int) -> Estimate:
    """A share with Wilson's interval (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4). Ties count as halves.

    Raises:
        ValueError: n is 0: nothing was measured.
    """
    if n < 1:
        raise ValueError("a rate of nothing was asked for: n is 0")
    p, z2 = successes / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At 0 and n the interval touches the rate itself; rounding must not put it a hair beside.
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)


def mean(values: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """A mean with the percentile bootstrap's interval (Efron 1979), seeded.

    Raises:
        ValueError: there are no values: nothing was measured.
    """
    if not values:
        raise ValueError("a mean of nothing was asked for: there are no values")
    n, generator = len(values), random.Random(seed)
    centre = math.fsum(values) / n
    means = sorted(math.fsum(generator.choices(values, k=n)) / n for _ in range(resamples))
    low, high = means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))]
    return Estimate(centre, low, high, n)
