"""One scale for all models: Bradley & Terry's model (1952), P(i beats j) = 1 / (1 + exp(strength j - strength i)).

* A tie is half a win for each (Davidson's term for ties, 1970, changes the strengths little and needs another number).
* In addition to its votes each model has one tie against a model of strength 0 (Davidson & Solomon 1973), so a model
  that never lost has a finite strength. The tie's weight is `prior`; at 0 the fit is by maximum likelihood. The
  interval of a model that never lost has no upper end, that of a model that never won no lower end.
* Models that were never compared, not even through others, are in different groups: strengths compare within a group
  only, and are centred there.
* Intervals are the bootstrap's over prompts, as votes on one prompt are not independent, stretched for few prompts
  (Hesterberg 2015, section 5.1).

Fitted by Newton's method, all resamples at once; steps are shortened, so that the likelihood grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trueup.stats.intervals import Z_95
from trueup.stats.pivots import critical

if TYPE_CHECKING:
    from trueup.stats.arrays import Flags, Floats, Ints

POINTS = 400 / math.log(10)
"""Elo's points in one unit of log odds."""
PRIOR = 1.0
RESAMPLES = 1000
_HELD = 20_000_000  # numbers in memory at a time
_FEWEST = 200  # resamples


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
        value, low, high: strength in Elo points and its interval; None where the model never won (low) or lost (high).
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
    """Return the standings of all models that were compared, by Bradley-Terry strength, with bootstrap intervals.

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
    drawn = _stretched(drawn, strengths, wins.prompts)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
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
                low=POINTS * float(min(low[m], strengths[m])) if matrix[m].any() else None,
                high=POINTS * float(max(high[m], strengths[m])) if matrix[:, m].any() else None,
                games=round(games[m].sum()),
                wins=float(matrix[m].sum()),
                group=group_numbers[int(groups[m])],
            )
        )
    return standings


def _stretched(drawn: Floats, strengths: Floats, prompts: int) -> Floats:
    """Return resampled strengths spread further around the estimated strengths.

    With few prompts resamples spread too little, so an interval from them would be too short.
    """
    freedom = max(1, prompts - 1)
    return strengths + critical(freedom) / Z_95 * math.sqrt(prompts / freedom) * (drawn - strengths)


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
