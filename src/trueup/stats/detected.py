"""Rates measured by an instrument that errs: differences of models with the error of each, prediction-powered rates.

A detector flags items; what is wanted is the share of items that really have the property.

- `corrected_difference`: the detector's error is known from other, labelled models, and differs between models
  (Rogan & Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510, with the spread between models in the interval).
- `prediction_powered`: some of the items themselves have labels (PPI: Angelopoulos et al. 2023, arXiv:2301.09633; its
  power tuning, PPI++: Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trueup.stats.arrays import Floats
from trueup.stats.intervals import Estimate, rate
from trueup.stats.pivots import critical

SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
"""The bounds of a share of items, and of a difference of two."""
# The kinds of (label, prediction) that half an item is added to: the four cells of a paired table.
_KINDS: dict[tuple[float, float] | None, tuple[tuple[float, float], ...]] = {
    SHARE: ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)),
    DIFFERENCE: ((-1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (1.0, 0.0)),
}
# Labels of the rarer kind from which the normal interval covers.
_FEWEST = 5


def corrected_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    same: Sequence[bool],
    found: Sequence[float],
    flagged: Sequence[float],
) -> Estimate:
    """Return the difference of two models' true shares, ours minus theirs, with the detector's error of each model.

    A model's flagged share is p = t s + f (1 - s): of its true share s a share t is found, of the rest f is flagged. So
    s = (p - f) / (t - f) (Rogan & Gladen 1978). Both models draw their own t and f from what the labelled models had;
    items with the same reply of both models have the same error and count as no difference. The interval adds the
    variances of the items, of each model's t and f, and of their means, with Student's quantile at Satterthwaite's
    (1946) degrees of freedom: few labelled models make it wide.

    Args:
        ours: 1 for each item of our model that the detector flags, else 0.
        theirs: the same of the other model, in the same order.
        same: True for each item to which both models gave the same reply.
        found: for each labelled model the share of its true items that the detector finds.
        flagged: for each labelled model the share of its other items that the detector flags.

    Raises:
        ValueError: there are fewer than two items or labelled models, or the detector flags as many of the other items
            as it finds true ones.
    """
    mine, other, equal = np.asarray(ours, float), np.asarray(theirs, float), np.asarray(same, bool)
    t, f = np.asarray(found, float), np.asarray(flagged, float)
    n, models = len(mine), len(t)
    if min(n, models) < 2 or not len(mine) == len(other) == len(equal) or len(t) != len(f):
        raise ValueError(f"{n} items and {models} labelled models: both need two, and their columns the same length")
    slope = float(t.mean() - f.mean())
    if slope <= 0:
        raise ValueError("the detector flags other items as often as it finds true ones, so it measures nothing")
    differing = ~equal
    weight = float(differing.mean())
    if weight == 0:
        return Estimate(0.0, 0.0, 0.0, n)
    of_items = (mine - other) * differing / slope
    value = float(of_items.mean())
    between = np.array([t.var(ddof=1), f.var(ddof=1)])
    drawn = float(value**2 * between.sum() / slope**2 / models)  # of the means of t and f, which both models share
    for flags in (mine, other):
        share = min(1.0, max(0.0, (float(flags[differing].mean()) - float(f.mean())) / slope))
        drawn += float(weight**2 * (share**2 * between[0] + (1 - share) ** 2 * between[1]) / slope**2)
    sampled = float(of_items.var(ddof=1)) / n
    if sampled + drawn == 0:
        return Estimate(value, value, value, n)
    freedom = (sampled + drawn) ** 2 / (sampled**2 / (n - 1) + drawn**2 / (models - 1))
    half = critical(max(1, math.floor(freedom))) * math.sqrt(sampled + drawn)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), n)


def prediction_powered(
    labels: Sequence[float],
    predicted: Sequence[float],
    others: Sequence[float],
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Return the mean label over all items, of which a random part is labelled and the rest only predicted.

    theta = mean(labels) + w (mean(others) - mean(predicted)) is unbiased whatever the predictions are worth. The weight
    w that makes its variance var(labels - w predicted) / n + w² var(others) / N least is
    cov(labels, predicted) / ((1 + n / N) var(predicted)), kept in [0, 1]: at 0 it is the labels' own mean (PPI++, eq. 6
    and example 6.1). Of shares and differences of shares half an item is added to each kind before the variance is
    taken (Agresti & Min 2005): with no disagreement among n labels the interval would be a point. Where fewer than
    five labels of a share are 1, or 0, the result is the labels' own share with Wilson's interval.

    Args:
        labels: the true values of n items that were drawn at random.
        predicted: the predictions on these items.
        others: the predictions on the N other items.
        bounds: (0, 1) for a share of items that are 0 or 1; (-1, 1) for differences of such; None for other means.

    Raises:
        ValueError: fewer than two items are labelled, or the columns differ in length.
    """
    y, g, rest = (np.asarray(column, float) for column in (labels, predicted, others))
    n = len(y)
    if n < 2 or len(g) != n:
        raise ValueError(f"{n} labels and {len(g)} predictions on the same items: there must be two or more, one each")
    if bounds == SHARE and min(float(y.sum()), n - float(y.sum())) < _FEWEST:
        return rate(float(y.sum()), n)
    weight = _weight(y, g, rest)
    value = float(y.mean()) + weight * (float(rest.mean()) - float(g.mean()) if len(rest) else 0.0)
    variance = _variance(y - weight * g, [label - weight * guess for label, guess in _KINDS.get(bounds, ())]) / n
    if len(rest) > 1:
        variance += weight**2 * float(rest.var(ddof=1)) / len(rest)
    half = critical(n - 1) * math.sqrt(variance)
    low, high = bounds or (-math.inf, math.inf)
    return Estimate(value, max(low, value - half), min(high, value + half), n + len(rest))


def _weight(labels: Floats, predicted: Floats, others: Floats) -> float:
    spread = float(np.concatenate([predicted, others]).var(ddof=1))
    if not len(others) or spread == 0:
        return 0.0
    covariance = float(((labels - labels.mean()) * (predicted - predicted.mean())).sum()) / (len(labels) - 1)
    return min(1.0, max(0.0, covariance / ((1 + len(labels) / len(others)) * spread)))


def _variance(residuals: Floats, halves: Sequence[float]) -> float:
    """Return the variance of the residuals, with half an item more at each value of `halves`."""
    if not halves:
        return float(residuals.var(ddof=1))
    values = np.concatenate([residuals, np.asarray(halves, float)])
    counts = np.concatenate([np.ones(len(residuals)), np.full(len(halves), 0.5)])
    mean = float((counts * values).sum() / counts.sum())
    return float((counts * (values - mean) ** 2).sum() / counts.sum())
