"""One scale for all models: Bradley & Terry's model (1952), P(i beats j) = 1 / (1 + exp(strength j - strength i)).

* A tie is half a win for each (Davidson's term for ties, 1970, changes the strengths little and needs another number).
* In addition to its votes each model has one tie against a model of strength 0 (Davidson & Solomon 1973), so a model
  that never lost has a finite strength. The tie's weight is `prior`; at 0 the fit is by maximum likelihood.
* Models that were never compared, not even through others, are in different groups: strengths compare within a group
  only, and are centred there.
* The interval of a strength inverts the score test (Rao 1948) of its distance from the group's mean, with the other
  strengths fitted at each value: for two models it is Wilson's interval. Its variance allows for votes on one prompt
  that resemble each other (White 1982; Rotnitzky & Jewell 1990) and for what ties save. It has no upper end for a model
  that never lost, and no lower end for one that never won. Of 2 to 8 models with strengths spread over 5 log odds it
  covered 0.93 to 0.97 of simulated truths at 50 to 300 votes; the bootstrap's interval 0.90 to 0.95, as resamples of
  a model that hardly ever loses have too little spread.
* Ranks are the bootstrap's over prompts, stretched to the intervals of the strengths, so that the two agree.

Fitted by Newton's method, all resamples at once; steps are shortened, so that the likelihood grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trueup.stats.pivots import Z_95, critical

if TYPE_CHECKING:
    from trueup.stats.arrays import Flags, Floats, Ints

POINTS = 400 / math.log(10)
"""Elo's points in one unit of log odds."""
PRIOR = 1.0
RESAMPLES = 1000
_HELD = 20_000_000  # numbers in memory at a time
_FEWEST = 200  # resamples
_TIE = 0.25
"""Ties of each model with a model of strength 0 in the fits behind the intervals. With none, a single model that never
lost opens the intervals of all, as all are measured from the mean; with many, strengths far from it are pulled in."""
_RIDGE = 1e-3
"""Ridge of these fits, which keeps curvatures of models far apart above 0."""
_REACH = 12.0
"""Log odds from the estimate beyond which an interval counts as open: odds of 160,000 to 1."""


@dataclass(frozen=True)
class Wins:
    """Wins of models over models, prompt by prompt, as a sparse table of E entries.

    Attributes:
        prompt, winner, loser: (E,) indices of the prompt, and of the models that won and lost.
        wins: (E,) 1, or one half for a tie.
        models: number of models.
        prompts: number of prompts.
    """

    prompt: Ints
    winner: Ints
    loser: Ints
    wins: Floats
    models: int
    prompts: int

    def matrix(self) -> Floats:
        """Return (M, M) the number of wins of the row's model over the column's, for M models."""
        matrix = np.zeros((self.models, self.models))
        np.add.at(matrix, (self.winner, self.loser), self.wins)
        return matrix

    def resampled(self, resamples: int, generator: np.random.Generator) -> Floats:
        """Return (R, M, M) wins of the row's model over the column's, in R resamples of the prompts.

        Prompts are drawn with replacement.
        """
        cells, cell_of_entry = np.unique(self.winner * self.models + self.loser, return_inverse=True)
        by_prompt = np.zeros((self.prompts, len(cells)))
        np.add.at(by_prompt, (self.prompt, cell_of_entry), self.wins)
        drawn = generator.integers(self.prompts, size=(resamples, self.prompts))
        drawn += np.arange(resamples)[:, None] * self.prompts
        counts = np.bincount(drawn.ravel(), minlength=resamples * self.prompts).reshape(resamples, self.prompts)
        matrices = np.zeros((resamples, self.models**2))
        matrices[:, cells] = counts @ by_prompt
        return matrices.reshape(resamples, self.models, self.models)


@dataclass(frozen=True, slots=True)
class Standing:
    """Place of one model in the ranking, with its strength.

    Attributes:
        model: index of the model.
        rank, rank_low, rank_high: place within its group (1 is best); 95% of resamples rank it from low to high.
        value, low, high: strength in Elo points and its interval; None where the votes do not bound it, as for a model
            that never won (low) or never lost (high).
        games: votes on its answers.
        wins: votes won, ties as halves.
        group: number of its group, from 0; models of different groups were never compared.
    """

    model: int
    rank: int
    rank_low: int
    rank_high: int
    value: float
    low: float | None
    high: float | None
    games: int
    wins: float
    group: int


def fit(wins: Floats, *, prior: float = PRIOR, steps: int = 200) -> Floats:
    """Return (R, M) Bradley-Terry strengths of M models in log odds, fitted to each of R win matrices.

    Args:
        wins: (R, M, M) wins of the row's model over the column's.
        prior: ties of each model against a model of strength 0. At 0 every model must have won and lost.
        steps: most steps of Newton's method.
    """
    games = wins + wins.transpose(0, 2, 1)
    # Without the prior a shift of all strengths changes nothing; this fixes it and moves nothing else.
    anchor = np.full(wins.shape[1:], 1 / wins.shape[1]) if prior == 0 else np.zeros(wins.shape[1:])
    eye = np.eye(wins.shape[1])
    strengths = np.zeros(wins.shape[:2])
    active = np.arange(len(wins))  # fits that have not converged
    for _ in range(steps):
        current = strengths[active]
        chance = logistic(current[:, :, None] - current[:, None, :])
        prior_chance = logistic(current)
        slope = (wins[active] - games[active] * chance).sum(2) + prior * (0.5 - prior_chance)
        weight = games[active] * chance * (1 - chance)
        diagonal = weight.sum(2) + prior * prior_chance * (1 - prior_chance)
        curve = eye * diagonal[:, :, None] - weight * (1 - eye) + anchor
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        # Far from the top the parabola is too flat; a step of one unit of log odds is safe there.
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
        strengths[active] = current + step
        active = active[np.abs(step).max(axis=1) > 1e-9]
        if not len(active):
            break
    return strengths


def rank(wins: Wins, *, seed: int = 0, resamples: int = RESAMPLES) -> list[Standing]:
    """Return the standings of all models that were compared, by Bradley-Terry strength, with intervals.

    The group (models linked by comparisons) with most votes comes first, and within a group the strongest model.
    """
    if not len(wins.wins):
        return []
    matrix = wins.matrix()
    games = matrix + matrix.T
    groups = _groups(games > 0)
    compared = games.sum(1) > 0
    strengths = _centred(fit(matrix[None]), groups)[0]
    resamples = max(_FEWEST, min(resamples, _HELD // wins.models**2, _HELD // max(1, wins.prompts)))
    drawn = _centred(fit(wins.resampled(resamples, np.random.default_rng(seed))), groups)
    low, high = intervals(wins)
    drawn = _stretched(drawn, strengths, low, high, wins.prompts)
    weights = {group: games[groups == group].sum() for group in set(groups.tolist())}
    order = sorted(np.flatnonzero(compared), key=lambda m: (-weights[groups[m]], groups[m], -strengths[m], m))
    group_numbers = {group: number for number, group in enumerate(dict.fromkeys(int(groups[m]) for m in order))}
    standings: list[Standing] = []
    for m in order:
        peers = np.flatnonzero((groups == groups[m]) & compared)
        place = int(1 + (strengths[peers] > strengths[m]).sum())
        ranks = np.sort(1 + (drawn[:, peers] > drawn[:, [m]]).sum(1))
        tail = math.floor(0.025 * len(ranks))
        standings.append(
            Standing(
                model=int(m),
                rank=place,
                rank_low=min(place, int(ranks[tail])),
                rank_high=max(place, int(ranks[-1 - tail])),
                value=POINTS * float(strengths[m]),
                low=POINTS * float(min(low[m], strengths[m])) if np.isfinite(low[m]) else None,
                high=POINTS * float(max(high[m], strengths[m])) if np.isfinite(high[m]) else None,
                games=round(games[m].sum()),
                wins=float(matrix[m].sum()),
                group=group_numbers[int(groups[m])],
            )
        )
    return standings


def intervals(wins: Wins) -> tuple[Floats, Floats]:
    """Return the low and high ends, each (M,), of the strengths' 95% intervals in log odds, centred in each group.

    An end is infinite where the votes do not bound it: the high end of a model that never lost, the low end of one that
    never won, and ends more than 12 from the estimate.
    """
    matrix = wins.matrix()
    groups = _groups(matrix + matrix.T > 0)
    low, high = np.full(wins.models, -np.inf), np.full(wins.models, np.inf)
    for group in set(groups.tolist()):
        members = np.flatnonzero(groups == group)
        if len(members) > 1:
            low[members], high[members] = _group_intervals(wins, matrix, members)
    return np.where(matrix.any(1), low, -np.inf), np.where(matrix.any(0), high, np.inf)


def _group_intervals(wins: Wins, matrix: Floats, members: Ints) -> tuple[Floats, Floats]:
    """Return the ends of the intervals of one group's K models, each (K,)."""
    count = len(members)
    table = matrix[np.ix_(members, members)]
    contrasts = np.repeat(np.eye(count) - 1 / count, 2, axis=0)
    sides = np.tile([-1.0, 1.0], count)
    start = _constrained(table, np.zeros((1, count)), None, np.zeros(1))[0]
    strengths = np.repeat(start, 2 * count, axis=0)
    centres = (contrasts * strengths).sum(1)
    limits = np.repeat(_limits(wins, table, members, start[0]), 2)
    # The score is far from 0 at `outside`, near it at `inside`; both are distances from the estimate.
    inside, outside = np.zeros(2 * count), np.full(2 * count, _REACH)
    inside_gap = -limits
    score = _constrained(table, strengths, contrasts, centres + sides * outside)[1]
    outside_gap = np.abs(score) - limits
    is_open = outside_gap < 0
    for step in range(40):
        # The rule of false position, with every third step a halving, so that neither end can stand still.
        share = (
            np.full(2 * count, 0.5)
            if step % 3 == 2
            else np.clip(-inside_gap / np.maximum(outside_gap - inside_gap, 1e-9), 0.05, 0.95)
        )
        middle = inside + share * (outside - inside)
        strengths, score = _constrained(table, strengths, contrasts, centres + sides * middle)
        gap = np.abs(score) - limits
        beyond = gap >= 0
        outside, outside_gap = np.where(beyond, middle, outside), np.where(beyond, gap, outside_gap)
        inside, inside_gap = np.where(beyond, inside, middle), np.where(beyond, inside_gap, gap)
        if ((outside - inside < 1e-3) | is_open).all():
            break
    ends = centres + sides * np.where(is_open, np.inf, outside)
    return ends[::2], ends[1::2]


def _constrained(table: Floats, strengths: Floats, contrasts: Floats | None, values: Floats) -> tuple[Floats, Floats]:
    """Fit strengths by maximum likelihood with one contrast of them held at a value, in each of R problems.

    Args:
        table: (K, K) wins of the row's model over the column's.
        strengths: (R, K) where to begin.
        contrasts: (R, K) the contrasts; None for fits without a constraint.
        values: (R,) their values.

    Returns:
        The strengths (R, K), and for each problem the score of the constraint over its standard error (R,), above 0
        where the likelihood grows with the value.
    """
    games, count = table + table.T, len(table)
    eye, anchor = np.eye(count), np.full((count, count), 1 / count)
    score = np.zeros(len(strengths))
    for _ in range(60):
        chance = logistic(strengths[:, :, None] - strengths[:, None, :])
        level = logistic(strengths)
        slope = (table - games * chance).sum(2) + _TIE * (0.5 - level) - _RIDGE * strengths
        weight = games * chance * (1 - chance)
        curve = eye * (weight.sum(2) + _RIDGE + _TIE * level * (1 - level))[:, :, None] - weight * (1 - eye) + anchor
        if contrasts is None:
            step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        else:
            solved = np.linalg.solve(curve, np.stack([slope, contrasts], axis=2))
            variance = (contrasts * solved[:, :, 1]).sum(1)
            missing = values - (contrasts * strengths).sum(1)
            multiplier = ((contrasts * solved[:, :, 0]).sum(1) - missing) / variance
            score = multiplier * np.sqrt(variance)
            step = solved[:, :, 0] - multiplier[:, None] * solved[:, :, 1]
        largest = np.abs(step).max(axis=1, keepdims=True)
        strengths = strengths + step / np.maximum(1.0, largest / 2)
        if largest.max() < 1e-4:
            break
    return strengths, score


def _limits(wins: Wins, table: Floats, members: Ints, strengths: Floats) -> Floats:
    """Return (K,) the scores, over their standard errors for independent votes, at which the intervals end.

    1.96, or Student's t with one degree of freedom fewer than prompts where a prompt has several votes; times the root
    of the variance of each strength over that of independent votes without ties.
    """
    games, count = table + table.T, len(members)
    chance = logistic(strengths[:, None] - strengths[None, :])
    weight = games * chance * (1 - chance)
    curve = np.diag(weight.sum(1) + _RIDGE) - weight * (1 - np.eye(count)) + 1 / count
    kept = np.isin(wins.winner, members)
    place = np.searchsorted(members, wins.winner[kept]), np.searchsorted(members, wins.loser[kept])
    won, prompt = wins.wins[kept], np.unique(wins.prompt[kept], return_inverse=True)[1]
    prompts = int(prompt.max()) + 1
    information, z2 = weight.sum() / 2, Z_95**2
    # A tie is two entries of a half: y (1 - y) is a quarter in each.
    ties = max(0.02, (information - (won * (1 - won)).sum() / 2 + z2 / 4) / (information + z2 / 4))
    if np.bincount(prompt, weights=won).max() <= 1:
        return np.full(count, Z_95 * math.sqrt(ties))
    rest = np.zeros((prompts, count))
    residual = won * (1 - chance[place])
    np.add.at(rest, (prompt, place[0]), residual)
    np.add.at(rest, (prompt, place[1]), -residual)
    solved = np.linalg.solve(curve, np.eye(count) - 1 / count)
    clustered = ((rest @ solved) ** 2).sum(0) * prompts / max(1, prompts - 1)
    independent = ((np.eye(count) - 1 / count) * solved).sum(0)
    return critical(max(1, prompts - 1)) * np.sqrt(np.maximum(ties, clustered / independent))


def _stretched(drawn: Floats, strengths: Floats, low: Floats, high: Floats, prompts: int) -> Floats:
    """Return resampled strengths (R, M), stretched to have the intervals as middle 95%, so that ranks agree with them.

    Where an end is open, resamples are stretched for few prompts, as they spread too little then.
    """
    freedom = max(1, prompts - 1)
    apart = drawn - strengths
    few = critical(freedom) / Z_95 * math.sqrt(prompts / freedom)
    factors: list[Floats] = []
    for end, reached in zip((low, high), np.quantile(apart, (0.025, 0.975), axis=0), strict=True):
        usable = np.isfinite(end) & (np.sign(reached) == np.sign(end - strengths)) & (np.abs(reached) > 1e-9)
        factors.append(np.where(usable, (np.where(usable, end, 0.0) - strengths) / np.where(usable, reached, 1.0), few))
    return strengths + apart * np.where(apart < 0, factors[0], factors[1])


def _groups(compared: Flags) -> Ints:
    """Return (M,) the group of each model: the lowest index among the models it is linked to by comparisons.

    `compared` (M, M) is True where two models were compared.
    """
    labels = np.arange(len(compared))
    reach = compared | np.eye(len(compared), dtype=bool)
    while True:
        least = np.where(reach, labels[None, :], len(compared)).min(1)
        if (least == labels).all():
            return labels
        labels = least


def _centred(strengths: Floats, groups: Ints) -> Floats:
    """Return strengths (R, M) with the mean of each group moved to 0."""
    centred = strengths.copy()
    for group in set(groups.tolist()):
        inside = groups == group
        centred[:, inside] -= centred[:, inside].mean(1, keepdims=True)
    return centred


def logistic(logit: Floats) -> Floats:
    """Return 1 / (1 + exp(-logit))."""
    # By way of tanh, which never overflows.
    return 0.5 * (1 + np.tanh(logit / 2))
