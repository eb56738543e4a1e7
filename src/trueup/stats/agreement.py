"""Agreement of raters beyond chance: Cohen's kappa and Krippendorff's alpha, with bootstrap intervals.

* Cohen's kappa (1960) for two raters, and with linear weights (Cohen 1968): neighbouring categories are half a
  disagreement when there are three.
* Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability") for any number of raters, also where not
  everybody rated every unit; nominal, ordinal or interval.

Both are undefined where everybody always chose the same category: then nothing shows that raters can tell units apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from trueup.stats.intervals import Estimate, rate

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats, Ints

RESAMPLES = 1000
Level = Literal["nominal", "ordinal", "interval"]


def kappa(confusion: Floats, *, weighted: bool = False) -> Floats:
    """Return Cohen's kappa of two raters, 1 - observed / expected disagreement; NaN where no disagreement is expected.

    Args:
        confusion: (..., C, C) how often one rater chose the row and the other the column.
        weighted: disagreement grows with the distance of the categories instead of being 0 or 1.
    """
    count = np.arange(confusion.shape[-1])
    distance = np.abs(count[:, None] - count) if weighted else count[:, None] != count
    total = confusion.sum((-1, -2))
    chance = confusion.sum(-1)[..., :, None] * confusion.sum(-2)[..., None, :]
    return _one_minus((confusion * distance).sum((-1, -2)) * total, (chance * distance).sum((-1, -2)))


def coincidences(units: Floats) -> Floats:
    """Return (U, C, C) the share of each unit (rated item) in Krippendorff's matrix of coincidences.

    Args:
        units: (U, C) how many raters gave a unit each category; units with fewer than two raters add nothing.
    """
    raters = units.sum(1)
    pairs = units[:, :, None] * units[:, None, :] - units[:, :, None] * np.eye(units.shape[1])
    return pairs / np.maximum(raters - 1, 1)[:, None, None]


def alpha(matrix: Floats, level: Level = "nominal", values: Floats | None = None) -> Floats:
    """Return Krippendorff's alpha, 1 - observed / expected disagreement; NaN where no disagreement is expected.

    Args:
        matrix: (..., C, C) sums of `coincidences` over units.
        level: "nominal" (equal or not), "ordinal" (by order) or "interval" (by value) distance of two categories.
        values: (C,) numbers that the categories stand for, for "interval"; by default 0, 1, ...
    """
    margins = matrix.sum(-1)
    distance = _distance(margins, level, values)
    total = margins.sum(-1)
    # Of two different values drawn without putting back; the diagonal's distance is 0, so its correction is not needed.
    expected = (margins[..., :, None] * margins[..., None, :] * distance).sum((-1, -2))
    return _one_minus((matrix * distance).sum((-1, -2)) * (total - 1), expected)


def _distance(margins: Floats, level: Level, values: Floats | None) -> Floats:
    """Return (..., C, C) squared distances between categories, at alpha's level.

    `margins` are each category's counts.
    """
    count = np.arange(margins.shape[-1])
    if level == "nominal":
        return (count[:, None] != count).astype(np.float64)
    if level == "interval":
        numbers = count if values is None else values
        return (numbers[:, None] - numbers).astype(np.float64) ** 2
    # Ordinal: how many values lie from one category to the other, half of the two ends.
    middle = margins.cumsum(-1) - margins / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def _one_minus(observed: Floats, expected: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def bootstrapped(
    coefficient: Callable[[Floats], Floats], counts: Ints, worst: Floats, generator: np.random.Generator
) -> Estimate | None:
    """Return an agreement coefficient with its percentile interval over units, or None where it is undefined.

    A unit is a rated item; units with equal ratings are of one kind. Where raters never differed every resample agrees
    as well. The lower end is then the coefficient that the largest share of disagreement allowed by n agreements
    (Wilson's upper end) would give.

    Args:
        coefficient: maps (R, K) counts of the kinds of units to (R,) coefficients.
        counts: (K,) units of each kind.
        worst: (K,) one unit on which two raters disagree as much as possible.
        generator: random generator for the resamples.
    """
    n = int(counts.sum())
    value = float(coefficient(counts[None].astype(np.float64))[0])
    if np.isnan(value):
        return None
    drawn = coefficient(generator.multinomial(n, counts / n, size=RESAMPLES).astype(np.float64))
    # A resample in which all agree on one category has no coefficient; it counts as 1, as agreement is high there.
    low, high = np.quantile(np.where(np.isnan(drawn), 1.0, drawn), (0.025, 0.975))
    if value > 1 - 1e-9:
        share = rate(0, n).high
        low = coefficient((counts * (1 - share) + worst * n * share)[None])[0]
    return Estimate(value, min(float(low), value), max(float(high), value), n)
