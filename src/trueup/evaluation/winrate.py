"""Win rates of one model's answers against another's: as judged, and corrected for the length of the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trueup.stats.bradley_terry import logistic
from trueup.stats.intervals import Z_95, Estimate, rate
from trueup.stats.pivots import Student

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RIDGE = 1e-3
"""Added to both curvatures, in items: too small to move a fit, large enough to keep separable data finite."""
LEAST = 10
"""Judged pairs below which a length term is not fitted."""
CHUNK = 1_000_000
"""Resampled items held in memory at a time."""


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate corrected for length: the rate to expect if the two models' answers had the same length.

    Attributes:
        rate: the length-controlled rate; None where the data cannot separate length from preference.
        raw: the win rate as judged.
        length_effect: in logits, the gain of an answer that is much longer (the length term goes from -1 to 1): above 0
            where the judge prefers longer answers. None where `rate` is.
        withheld: the reason why `rate` is None.
    """

    rate: Estimate | None
    raw: Estimate
    length_effect: Estimate | None
    withheld: str | None = None


def win_rate(outcomes: Sequence[float]) -> Estimate:
    """Return the share of pairs that our model won, ties as halves, with Wilson's interval (wide where ties are many).

    Args:
        outcomes: (N,) 1 won, 0 lost, 0.5 tied, NaN not judged. Pairs without a judgement are left out, and `n` is the
            number of judged pairs.

    Raises:
        ValueError: no pair was judged, or an outcome is not from 0 to 1.
    """
    judged = _judged(outcomes)
    kept = np.asarray(outcomes, dtype=np.float64)[judged]
    if not len(kept):
        raise ValueError(f"there is no win rate: none of {len(outcomes)} pairs was judged")
    return rate(float(kept.sum()), len(kept))


def length_controlled(
    outcomes: Sequence[float],
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> LengthControlled:
    """Estimate the win rate at equal lengths (Dubois et al. 2024, arXiv:2404.04475, section 3).

    Their regression of the preference has a term for the two models, one for the length and one for the prompt's
    difficulty. For one pair of models it comes down to an intercept and b * tanh(difference of lengths / its standard
    deviation): difficulties are estimated over many models, and without them the term is a constant. The length-
    controlled rate is the prediction at a difference of 0, the logistic function of the intercept.

    A tie has the label 0.5. The interval is the percentile bootstrap's over prompts, in logits and stretched for a
    small n, joined with Wilson's at the same rate: where all pairs were won, resamples have no spread. It covered 0.93,
    0.94 and 0.95 of simulated truths at 20, 60 and 200 pairs.

    Args:
        outcomes: (N,) as for `win_rate`.
        ours: (N,) lengths of our answers, in any unit, the same for both.
        theirs: (N,) lengths of their answers.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The rates. `rate` is withheld (None) with fewer than 10 judged pairs, and where all pairs differ by the same
        length: then the effect of length cannot be estimated.

    Raises:
        ValueError: the three sequences differ in length, no pair was judged, or a length is not finite.
    """
    if not len(outcomes) == len(ours) == len(theirs):
        raise ValueError(f"{len(outcomes)} outcomes, {len(ours)} and {len(theirs)} lengths")
    judged, raw = _judged(outcomes), win_rate(outcomes)
    if raw.n < LEAST:
        why = f"{raw.n} judged pairs are too few to tell length from preference: {LEAST} are needed"
        return LengthControlled(None, raw, None, why)
    won = np.asarray(outcomes, dtype=np.float64)[judged]
    longer = (np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64))[judged]
    if not np.isfinite(longer).all():
        raise ValueError("a length is not a finite number")
    if not longer.any():
        return LengthControlled(raw, raw, Estimate(0.0, 0.0, 0.0, raw.n))
    spread = longer.std()
    if spread <= 1e-9 * np.abs(longer).max():
        why = f"every answer of ours is {longer[0]:+g} in length against theirs: the effect of length cannot be told"
        return LengthControlled(None, raw, None, why)
    term = np.tanh(longer / spread)
    best = fit(won, term, np.ones((1, raw.n)))[0]
    drawn = _bootstrap(won, term, resamples, seed)
    effect = _interval(best[1], drawn[:, 1], raw.n)
    logits = _interval(best[0], drawn[:, 0], raw.n)
    value, low, high = (float(logistic(np.asarray(logit))) for logit in (logits.value, logits.low, logits.high))
    wilson = rate(value * raw.n, raw.n)
    controlled = Estimate(value, min(low, wilson.low), max(high, wilson.high), raw.n)
    return LengthControlled(controlled, raw, effect)


def _interval(value: Array, drawn: Array, n: int) -> Estimate:
    """Return `value` as an Estimate over `n` prompts with the percentile interval of its bootstrap resamples, `drawn`.

    The interval is stretched to make up for a small n and for the two fitted parameters.
    """
    # Resamples spread too little by sqrt((n - 2) / n), and as if the spread were known (Hesterberg 2015, section 5.1).
    stretch = Student(n - 2).quantile(0.975) / Z_95 * math.sqrt(n / (n - 2))
    low, high = np.quantile(drawn, (0.025, 0.975)) - value
    return Estimate(float(value), float(value + stretch * min(low, 0.0)), float(value + stretch * max(high, 0.0)), n)


def fit(won: Array, term: Array, counts: Array) -> Array:
    """Fit R logistic regressions of the outcome on length, with a ridge penalty, all at once by Newton's method.

    Args:
        won: (N,) labels from 0 to 1.
        term: (N,) the length term: tanh of the standardized difference of lengths.
        counts: (R, N) weight of each pair in each regression (times drawn by the bootstrap).

    Returns:
        (R, 2) intercepts and coefficients of the length term.
    """
    fitted = np.zeros((len(counts), 2))
    cost = _cost(fitted, won, term, counts)
    for _ in range(100):
        step = _newton(fitted, won, term, counts)
        # On separable data a full step can overshoot for good: it is halved until it leads downwards.
        for _ in range(40):
            worse = _cost(fitted + step, won, term, counts) > cost * (1 + 1e-12)
            if not worse.any():
                break
            step[worse] /= 2
        fitted += step
        cost = _cost(fitted, won, term, counts)
        if np.abs(step).max() < 1e-9:
            break
    return fitted


def _cost(fitted: Array, won: Array, term: Array, counts: Array) -> Array:
    """Return the loss of each of R regressions, (R,): negative log-likelihood in nats plus the ridge penalty."""
    logit = fitted[:, :1] + fitted[:, 1:] * term
    return (counts * (np.logaddexp(0, logit) - won * logit)).sum(1) + RIDGE / 2 * (fitted**2).sum(1)


def _newton(fitted: Array, won: Array, term: Array, counts: Array) -> Array:
    """Return each regression's Newton step, (R, 2): to the minimum of the quadratic approximation of `_cost`."""
    predicted = logistic(fitted[:, :1] + fitted[:, 1:] * term)
    rest, curve = counts * (won - predicted), counts * predicted * (1 - predicted)
    left, right = rest.sum(1) - RIDGE * fitted[:, 0], rest @ term - RIDGE * fitted[:, 1]
    aa, ab, bb = curve.sum(1) + RIDGE, curve @ term, curve @ term**2 + RIDGE
    return np.stack([bb * left - ab * right, aa * right - ab * left], axis=1) / (aa * bb - ab * ab)[:, None]


def _bootstrap(won: Array, term: Array, resamples: int, seed: int) -> Array:
    generator, n, parts = np.random.default_rng(seed), len(won), []
    for start in range(0, resamples, max(1, CHUNK // n)):
        count = min(max(1, CHUNK // n), resamples - start)
        parts.append(fit(won, term, generator.multinomial(n, [1 / n] * n, size=count).astype(np.float64)))
    return np.concatenate(parts)


def _judged(outcomes: Sequence[float]) -> NDArray[np.bool_]:
    values = np.asarray(outcomes, dtype=np.float64)
    judged = ~np.isnan(values)
    wrong = np.flatnonzero(judged & ~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ValueError(f"outcomes[{wrong[0]}] is {values[wrong[0]]}: 1 is won, 0 lost, 0.5 tied, NaN not judged")
    return judged
