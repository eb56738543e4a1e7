"""Win rates of models' answers against those of one baseline: as judged, and at equal length of the answers.

Judges like long answers, so a win rate is also given for answers of equal length. Two estimates have different names,
because they are not the same number:

* **Length-controlled win rate** (`jointly_length_controlled`): that of Dubois et al. 2024 (arXiv:2404.04475), for three
  or more models against one baseline. How hard a prompt is for all of them is estimated together with the effect of
  length, so that a hard prompt, to which the baseline gives a long answer, is not taken for an effect of length.
* **Length-adjusted win rate of a lone pair** (`length_controlled`): with one model nothing tells the two apart. Its
  interval holds every rate from "all of the association of length with preference is an effect of length" to "none is".

`python scripts/length_control.py` compares both with the published rates of AlpacaEval 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from trueup.stats.bradley_terry import logistic
from trueup.stats.intervals import Estimate, informative, tied_rate, wilson
from trueup.stats.pivots import Z_95, bisect, critical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

RIDGE = 1e-3
"""Added to both curvatures, in items: too small to move a fit, large enough to keep separable data finite."""
PENALTY = 0.1
"""Ridge on length and difficulty in the joint fit: a prior standard deviation of 3.2 logits. Dubois et al. choose an L1
penalty by cross-validation; on 21 models of AlpacaEval that changes the rates by 0.3 points at most."""
LEAST = 10
"""Judged pairs below which a length term is not fitted."""
FEWEST_MODELS = 3
"""Models from which on the difficulty of prompts is estimated."""
BEYOND = 0.025
"""Share of the pairs that must lie on either side of equal length; fewer is extrapolation."""
CHUNK = 1_000_000
"""Resampled items held in memory at a time."""

Method = Literal["joint", "lone pair"]
Values = Sequence[float | None] | Sequence[float]


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate corrected for length: the rate to expect if the two models' answers had the same length.

    Attributes:
        rate: the corrected rate; None where the data cannot separate length from preference.
        raw: the win rate as judged.
        length_effect: in logits, the gain of an answer that is much longer (the length term goes from -1 to 1): above 0
            where the judge prefers longer answers. For a lone pair it is the whole association, difficulty included.
            None where `rate` is.
        withheld: the reason why `rate` is None.
        unjudged: number of pairs without a verdict.
        method: "joint" for the length-controlled win rate of several models, "lone pair" for that of one.
    """

    rate: Estimate | None
    raw: Estimate
    length_effect: Estimate | None
    withheld: str | None = None
    unjudged: int = 0
    method: Method = "lone pair"


def win_rate(outcomes: Values) -> Estimate:
    """Return the share of pairs that our model won, ties as halves, with an interval that allows for ties.

    Args:
        outcomes: (N,) 1 won, 0 lost, 0.5 tied or a share in between, NaN or None not judged. Pairs without a judgement
            are left out, and `n` is the number of judged pairs.

    Raises:
        ValueError: no pair was judged, or an outcome is not from 0 to 1.
    """
    judged = _judged(outcomes)
    kept = np.asarray(outcomes, dtype=np.float64)[judged]
    if not len(kept):
        raise ValueError(f"there is no win rate: none of {len(outcomes)} pairs was judged")
    return tied_rate(kept.tolist())


def length_controlled(
    outcomes: Values, ours: Values, theirs: Values, *, resamples: int = 2000, seed: int = 0
) -> LengthControlled:
    """Bound the win rate at equal lengths of a lone pair of models: the length-adjusted win rate.

    The preference is regressed on the length term of Dubois et al. 2024 (arXiv:2404.04475, section 3), b * tanh of the
    difference of lengths / its standard deviation, and an intercept. They have a third term, the difficulty of the
    prompt, which needs other models: without it, b is the sum of what length itself does and of what long prompts and
    short ones differ in. Let k be the share of b that length itself has. At k = 1 the rate at equal lengths is the
    logistic function of the intercept, at k = 0 it is the win rate as judged, and nothing in a pair tells k.

    So the interval covers the true rate at any k from 0 to 1 in 95% of cases (Imbens & Manski 2004, Econometrica 72,
    eq. 6 and 7: its ends are the two rates' own ends, at the normal point that makes the coverage 95% at either), and
    the value is the rate at k = 1/2, with the intercept fitted again. The ends come from the percentile bootstrap over
    prompts (k = 1, in logits, stretched for a small n, and never shorter than Wilson's interval at that rate, as
    resamples of pairs that were all won have no spread) and from Wilson's interval (k = 0).

    Over 21 models of AlpacaEval 2 the published length-controlled win rate was at k = 0.27 to 0.90. Simulated with 100
    and 300 pairs and resamples of 400, the interval covered the truth in 0.96 and 0.95 of cases at k = 1, and in 0.95
    and 0.95 at k = 0.

    Args:
        outcomes: (N,) as for `win_rate`.
        ours: (N,) lengths of our answers, in any unit, the same for both. Ignored where the pair was not judged.
        theirs: (N,) lengths of their answers.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The rates. `rate` is withheld (None) with fewer than 10 judged pairs, where all pairs differ by the same length,
        and where fewer than 2.5% of the pairs (or 3) lie on one side of equal length: a rate at equal lengths would be
        extrapolated.

    Raises:
        ValueError: the three sequences differ in length, no pair was judged, or a length is not finite.
    """
    won, longer, _ = _pairs(outcomes, ours, theirs)
    raw, unjudged = win_rate(outcomes), len(outcomes) - len(won)
    if why := _too_few(raw.n) or _all_alike(longer) or _no_overlap(longer):
        return LengthControlled(None, raw, None, why, unjudged)
    if not longer.any():
        return LengthControlled(raw, raw, Estimate(0.0, 0.0, 0.0, raw.n), None, unjudged)
    term = np.tanh(longer / longer.std())
    best = fit(won, term, np.ones((1, raw.n)))[0]
    drawn = _bootstrap(won, term, resamples, seed, best)
    ends = _Ends(won, float(best[0]), drawn[:, 0])
    point = _critical_of_bounds(raw, ends.interval(Z_95))
    low, high = ends.interval(point)
    raw_low, raw_high = wilson(raw.value, ends.effective, point)
    low, high = min(low, raw_low), max(high, raw_high)
    value = min(max(rate_given_share(won, term, float(best[1]), 0.5), low), high)
    spread = np.quantile(drawn[:, 1], (0.025, 0.975)) - best[1]
    effect = Estimate(
        float(best[1]),
        float(best[1] + _stretch(raw.n) * min(spread[0], 0.0)),
        float(best[1] + _stretch(raw.n) * max(spread[1], 0.0)),
        raw.n,
    )
    return LengthControlled(Estimate(value, low, high, raw.n), raw, effect, None, unjudged)


def jointly_length_controlled(
    outcomes: Sequence[Values], ours: Sequence[Values], theirs: Sequence[Values]
) -> list[LengthControlled]:
    """Return the length-controlled win rates of M models against one baseline (Dubois et al. 2024, arXiv:2404.04475).

    For model m and prompt i, with the term t = tanh(difference of lengths / its standard deviation over m's prompts):

        P(m wins on i) = logistic(quality_m + length_m * t_mi + weight_m * difficulty_i)

    As in the paper (section 3), difficulties are estimated first, from all models together with weight_m = 1, and the
    three coefficients of each model then with the difficulties held fixed. The rate is the mean prediction over all
    prompts at t = 0. Difficulties are normal with a variance that is estimated too (EM, with the curvature at the mode
    as the posterior's): with few models they shrink towards 0. The paper has a separate L1 penalty by cross-validation
    and, as a guard against gaming, verdicts on two gamed baselines, at a weight of 0.2; here the penalty is a small
    ridge (`PENALTY`), and there are no gamed baselines.

    The interval is the sandwich estimate over prompts (Liang & Zeger 1986) in logits, with Student's t, widened for the
    parameters that the difficulties used up, and never shorter than Wilson's at the same rate. It covered 0.93 to 0.96
    of simulated truths with 3, 5 and 10 models and 50 to 300 prompts, whose difficulties spread by 0 to 2 logits.

    Args:
        outcomes: (M, N) for each model as for `win_rate`, on the same N prompts in the same order; NaN or None where
            the model has no verdict. Such a pair has no part in the fit, and is counted in `unjudged`.
        ours: (M, N) lengths of the models' answers; ignored where the pair was not judged.
        theirs: (M, N) lengths of the baseline's answers.

    Returns:
        M results. A rate is withheld with fewer than 10 judged pairs, and where all pairs differ by the same length.

    Raises:
        ValueError: fewer than 3 models, rows of different lengths, no pair of a model was judged, or a length is not
            finite.
    """
    if len(outcomes) < FEWEST_MODELS:
        raise ValueError(f"{len(outcomes)} models: the difficulty of prompts needs {FEWEST_MODELS} or more")
    if len({len(row) for row in (*outcomes, *ours, *theirs)}) > 1 or not len(outcomes) == len(ours) == len(theirs):
        raise ValueError("outcomes, ours and theirs need one row for each model, with one value for each prompt")
    rows = [_pairs(*row) for row in zip(outcomes, ours, theirs, strict=True)]
    raws = [win_rate(row) for row in outcomes]
    judged = np.stack([row[2] for row in rows])
    won, term = np.zeros(judged.shape), np.zeros(judged.shape)
    for m, (model_won, longer, kept) in enumerate(rows):
        won[m, kept] = model_won
        term[m, kept] = np.tanh(longer / (longer.std() or 1.0))
    weights = judged.astype(np.float64)
    difficulty, used = difficulties(won, term, weights)
    # As residuals are left by a fit with so many parameters for each prompt (MacKinnon & White 1985, HC1).
    widened = math.sqrt(len(rows) / (len(rows) - used))
    results: list[LengthControlled] = []
    for m, (_, longer, kept) in enumerate(rows):
        raw, unjudged = raws[m], int((~kept).sum())
        if why := _too_few(raw.n) or _all_alike(longer):
            results.append(LengthControlled(None, raw, None, why, unjudged, "joint"))
            continue
        rate, effect = _controlled_by(won[m], term[m], difficulty, weights[m], widened)
        results.append(LengthControlled(rate, raw, effect, None, unjudged, "joint"))
    return results


def difficulties(won: Array, term: Array, weights: Array) -> tuple[Array, float]:
    """Estimate how easy each prompt is for all models together, in logits, with a mean of 0.

    Args:
        won: (M, N) outcomes from 0 to 1.
        term: (M, N) length terms.
        weights: (M, N) 1 where judged, else 0.

    Returns:
        (N,) the mode of each prompt's effect, under a normal distribution whose variance is estimated with them; and
        the mean number of parameters that a prompt's effect is worth, from 0 (all shrunk to 0) to 1 (none shrunk).
    """
    quality, length, effect = np.zeros(len(won)), np.zeros(len(won)), np.zeros(won.shape[1])
    variance, used = 1.0, 0.0
    for _ in range(200):
        before, variance_before = effect.copy(), variance
        predicted = logistic(quality[:, None] + length[:, None] * term + effect)
        curve = (weights * predicted * (1 - predicted)).sum(0) + 1 / variance
        effect += np.clip(((weights * (won - predicted)).sum(0) - effect / variance) / curve, -2, 2)
        quality += effect.mean()
        effect -= effect.mean()
        predicted = logistic(quality[:, None] + length[:, None] * term + effect)
        rest, curves = weights * (won - predicted), weights * predicted * (1 - predicted)
        left, right = rest.sum(1) - RIDGE * quality, (rest * term).sum(1) - PENALTY * length
        aa, ab, bb = curves.sum(1) + RIDGE, (curves * term).sum(1), (curves * term**2).sum(1) + PENALTY
        determinant = aa * bb - ab**2
        quality += np.clip((bb * left - ab * right) / determinant, -1, 1)
        length += np.clip((aa * right - ab * left) / determinant, -1, 1)
        used = 1 - float((1 / curve).mean()) / variance
        variance = max(1e-4, float((effect**2 + 1 / curve).mean()))
        if np.abs(effect - before).max() < 1e-6 and abs(variance - variance_before) < 1e-6:
            break
    return effect, used


def _controlled_by(
    won: Array, term: Array, difficulty: Array, weights: Array, widened: float
) -> tuple[Estimate, Estimate]:
    """Return one model's length-controlled win rate and the effect of length, with the difficulties given.

    All arguments are (N,) but `widened`, the factor on standard errors for what estimating the difficulties used up.
    """
    columns = np.stack([np.ones_like(term), term, difficulty], axis=1)
    coefficients, curve = fit_columns(won, columns, weights, np.array([RIDGE, PENALTY, PENALTY]))
    n, prompts = round(float(weights.sum())), len(won)
    level = logistic(coefficients[0] + coefficients[2] * difficulty)
    value = float(level.mean())
    predicted = logistic(columns @ coefficients)
    slopes = np.linalg.solve(curve, (columns * (weights * (won - predicted))[:, None]).T).T
    flat = level * (1 - level)
    gradient = np.array([flat.mean(), 0.0, (flat * difficulty).mean()])
    # What each prompt adds to the rate: by being one of the prompts, and by moving the coefficients.
    moved = (level - value) / prompts + slopes @ gradient
    small = widened * math.sqrt(n / (n - 3)) * critical(n - 3)
    half = small * math.sqrt(float((moved**2).sum())) / (value * (1 - value))
    logit = math.log(value / (1 - value))
    low, high = (float(logistic(np.asarray(end))) for end in (logit - half, logit + half))
    kept = won[weights > 0]
    floor = wilson(value, n * informative(float(kept.sum()), float((kept * (1 - kept)).sum()), n))
    wide = small * math.sqrt(float((slopes[:, 1] ** 2).sum()))
    rate = Estimate(value, min(low, floor[0]), max(high, floor[1]), n)
    return rate, Estimate(float(coefficients[1]), float(coefficients[1] - wide), float(coefficients[1] + wide), n)


def fit_columns(won: Array, columns: Array, weights: Array, penalty: Array) -> tuple[Array, Array]:
    """Fit a logistic regression with a ridge penalty by Newton's method.

    Args:
        won: (N,) labels from 0 to 1.
        columns: (N, K) the regressors.
        weights: (N,) weight of each label.
        penalty: (K,) the ridge on each coefficient.

    Returns:
        The K coefficients, and the curvature (K, K) of the loss at them, penalty included.
    """

    def cost(coefficients: Array) -> float:
        logit = columns @ coefficients
        return float((weights * (np.logaddexp(0, logit) - won * logit)).sum() + penalty @ coefficients**2 / 2)

    def curvature(coefficients: Array) -> Array:
        predicted = logistic(columns @ coefficients)
        return (columns.T * (weights * predicted * (1 - predicted))) @ columns + np.diag(penalty)

    coefficients = np.zeros(columns.shape[1])
    for _ in range(100):
        slope = columns.T @ (weights * (won - logistic(columns @ coefficients))) - penalty * coefficients
        step = np.linalg.solve(curvature(coefficients), slope)
        present = cost(coefficients)
        # On separable data a full step can overshoot for good: it is halved until it leads downwards.
        for _ in range(40):
            if cost(coefficients + step) <= present * (1 + 1e-12):
                break
            step = step / 2
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-9:
            break
    return coefficients, curvature(coefficients)


class _Ends:
    """The interval of the rate at which all of the association is an effect of length, at any normal point."""

    def __init__(self, won: Array, intercept: float, drawn: Array) -> None:
        self.n, self.intercept, self.drawn = len(won), intercept, drawn
        self.value = float(logistic(np.asarray(intercept)))
        self.effective = self.n * informative(float(won.sum()), float((won * (1 - won)).sum()), self.n)

    def interval(self, point: float) -> tuple[float, float]:
        """Return the low and the high end, `point` standard errors away where the estimate is normal."""
        tail = NormalDist().cdf(-point)
        spread = np.quantile(self.drawn, (tail, 1 - tail)) - self.intercept
        low = logistic(np.asarray(self.intercept + _stretch(self.n) * min(spread[0], 0.0)))
        high = logistic(np.asarray(self.intercept + _stretch(self.n) * max(spread[1], 0.0)))
        least = wilson(self.value, self.effective, point)
        return min(float(low), least[0]), max(float(high), least[1])


def _critical_of_bounds(raw: Estimate, other: tuple[float, float]) -> float:
    """Return the normal point at which an interval around two bounds covers either of them in 95% of cases.

    It is 1.96 where the bounds coincide, and 1.64 where they are far apart (Imbens & Manski 2004, eq. 7). `other` is
    the 95% interval of the second bound.
    """
    apart = abs((raw.low + raw.high) / 2 - sum(other) / 2)
    error = max(raw.high - raw.low, other[1] - other[0]) / (2 * Z_95)
    normal = NormalDist()
    return bisect(lambda point: normal.cdf(point + apart / error) - normal.cdf(-point) >= 0.95, 1.6, Z_95)


def rate_given_share(won: Array, term: Array, effect: float, share: float) -> float:
    """Return the rate at equal lengths if a share of the association of length and preference is an effect of length.

    Args:
        won: (N,) outcomes from 0 to 1.
        term: (N,) the length term.
        effect: its fitted coefficient.
        share: from 0 (the rate is that of the outcomes) to 1 (that of the fit).
    """
    offset = share * effect * term

    def above(intercept: float) -> bool:
        return float((logistic(intercept + offset) - won).sum()) + RIDGE * intercept >= 0

    return float(logistic(np.asarray(bisect(above, -50.0, 50.0))))


def _stretch(n: int) -> float:
    """Return the factor that makes up for a small n and for the two fitted parameters.

    Resamples spread too little by sqrt((n - 2) / n), and as if the spread were known (Hesterberg 2015, section 5.1).
    """
    return critical(n - 2) / Z_95 * math.sqrt(n / (n - 2))


def _too_few(n: int) -> str | None:
    if n >= LEAST:
        return None
    return f"{n} judged pairs are too few to tell length from preference: {LEAST} are needed"


def _all_alike(longer: Array) -> str | None:
    if not longer.any() or longer.std() > 1e-9 * np.abs(longer).max():
        return None
    return f"every answer of ours is {longer[0]:+g} in length against theirs: the effect of length cannot be told"


def _no_overlap(longer: Array) -> str | None:
    """Return the reason for withholding a rate for which hardly any pair lies on one side of equal length."""
    sides = {"longer": int((longer >= 0).sum()), "shorter": int((longer <= 0).sum())}
    side, count = min(sides.items(), key=lambda item: item[1])
    needed = max(3, math.ceil(BEYOND * len(longer)))
    if count >= needed:
        return None
    return (
        f"in {count} of {len(longer)} judged pairs the answer of ours is as long as theirs or {side} ({needed} are "
        "needed): the lengths hardly overlap, and a rate at equal length would be extrapolated"
    )


def fit(won: Array, term: Array, counts: Array, start: Array | None = None) -> Array:
    """Fit R logistic regressions of the outcome on length, with a ridge penalty, all at once by Newton's method.

    Args:
        won: (N,) labels from 0 to 1.
        term: (N,) the length term: tanh of the standardized difference of lengths.
        counts: (R, N) weight of each pair in each regression (times drawn by the bootstrap).
        start: (2,) coefficients to begin at; by default 0.

    Returns:
        (R, 2) intercepts and coefficients of the length term.
    """
    fitted = np.zeros((len(counts), 2)) + (0.0 if start is None else start)
    for _ in range(100):
        step = _newton(fitted, won, term, counts)
        # A step that moves no logit by more than 1 leads downwards (Bach 2010, arXiv:0910.4627, proposition 1). On
        # separable data a full step can overshoot for good.
        large = np.abs(step).sum(1) > 1
        if large.any():
            step[large] = _shortened(step[large], fitted[large], won, term, counts[large])
        fitted += step
        if np.abs(step).max() < 1e-9:
            break
    return fitted


def _shortened(step: Array, fitted: Array, won: Array, term: Array, counts: Array) -> Array:
    """Return steps halved until they lead downwards."""
    cost = _cost(fitted, won, term, counts) * (1 + 1e-12)
    for _ in range(40):
        worse = _cost(fitted + step, won, term, counts) > cost
        if not worse.any():
            break
        step[worse] /= 2
    return step


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


def _bootstrap(won: Array, term: Array, resamples: int, seed: int, start: Array) -> Array:
    """Return (R, 2) the coefficients fitted to R resamples of the pairs."""
    generator, n, parts = np.random.default_rng(seed), len(won), []
    for first in range(0, resamples, max(1, CHUNK // n)):
        count = min(max(1, CHUNK // n), resamples - first)
        counts = generator.multinomial(n, [1 / n] * n, size=count).astype(np.float64)
        parts.append(fit(won, term, counts, start))
    return np.concatenate(parts)


def _pairs(outcomes: Values, ours: Values, theirs: Values) -> tuple[Array, Array, Flags]:
    """Return the judged pairs' outcomes (J,) and our lengths minus theirs (J,), and which of the N pairs they are (N,).

    Raises:
        ValueError: the sequences differ in length, or a length or outcome is malformed.
    """
    if not len(outcomes) == len(ours) == len(theirs):
        raise ValueError(f"{len(outcomes)} outcomes, {len(ours)} and {len(theirs)} lengths")
    judged = _judged(outcomes)
    longer = (np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64))[judged]
    if not np.isfinite(longer).all():
        raise ValueError("a length is not a finite number")
    return np.asarray(outcomes, dtype=np.float64)[judged], longer, judged


def _judged(outcomes: Values) -> Flags:
    values = np.asarray(outcomes, dtype=np.float64)
    judged = ~np.isnan(values)
    wrong = np.flatnonzero(judged & ~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ValueError(f"outcomes[{wrong[0]}] is {values[wrong[0]]}: 1 is won, 0 lost, 0.5 tied, NaN not judged")
    return judged
