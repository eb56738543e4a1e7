"""One scale for all models: Bradley & Terry's model (1952), P(i beats j) = 1 / (1 + exp(strength j - strength i)).

* A tie is half a win for each (Davidson's term for ties, 1970, changes the strengths little and needs another number).
* Besides its votes each model has one tie against a model of strength 0 (Davidson & Solomon 1973): so one that never
  lost has a finite strength. The tie's weight is `prior`; at 0 the fit is by maximum likelihood. The upper end of the
  interval of a model that never lost is left open, and the lower end of one that never won.
* Models that never met, not even through others, are groups of their own: strengths compare within a group only, and
  are centred there.
* Intervals are the bootstrap's over prompts, since votes on one prompt are not independent, stretched for few prompts
  (Hesterberg 2015, section 5.1).

Fitted by Newton's method, all resamples at once; steps are shortened, so that they go upwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.schema import Number, Strength
from trueup.stats.intervals import Z_95
from trueup.stats.pivots import Student

if TYPE_CHECKING:
    from trueup.ranking.results.table import Flags, Floats, Ints, Table

POINTS = 400 / math.log(10)
"""Elo's points in one unit of log odds."""
PRIOR = 1.0
RESAMPLES = 1000
_HELD = 20_000_000  # numbers in memory at a time
_FEWEST = 200


@dataclass(frozen=True)
class Wins:
    """What each prompt adds to the matrix of wins, as sparse entries.

    Attributes:
        prompt, winner, loser: (E,) where.
        wins: (E,) how much: 1, or one half for a tie.
        models: their number.
        prompts: their number.
    """

    prompt: Ints
    winner: Ints
    loser: Ints
    wins: Floats
    models: int
    prompts: int

    def matrix(self) -> Floats:
        """(M, M) wins of row over column."""
        made = np.zeros((self.models, self.models))
        np.add.at(made, (self.winner, self.loser), self.wins)
        return made

    def resampled(self, resamples: int, generator: np.random.Generator) -> Floats:
        """(R, M, M) the same of prompts drawn with replacement."""
        cells, at = np.unique(self.winner * self.models + self.loser, return_inverse=True)
        each = np.zeros((self.prompts, len(cells)))
        np.add.at(each, (self.prompt, at), self.wins)
        drawn = generator.integers(self.prompts, size=(resamples, self.prompts))
        drawn += np.arange(resamples)[:, None] * self.prompts
        counts = np.bincount(drawn.ravel(), minlength=resamples * self.prompts).reshape(resamples, self.prompts)
        made = np.zeros((resamples, self.models**2))
        made[:, cells] = counts @ each
        return made.reshape(resamples, self.models, self.models)


def wins_of(table: Table) -> Wins:
    """The deciding votes between two named models, as wins."""
    table = table.where(table.deciding & table.paired)
    prompts = np.unique(table.prompt, return_inverse=True)[1]
    score = table.score
    both = np.concatenate
    wins = both([score, 1 - score])
    kept = wins > 0
    return Wins(
        both([prompts, prompts])[kept],
        both([table.first, table.second])[kept],
        both([table.second, table.first])[kept],
        wins[kept],
        len(table.models),
        int(prompts.max()) + 1 if len(prompts) else 0,
    )


def fit(wins: Floats, *, prior: float = PRIOR, steps: int = 200) -> Floats:
    """Strengths (R, M) in log odds, centred on 0.

    Args:
        wins: (R, M, M) wins of row over column.
        prior: ties of each model against one of strength 0. At 0 every model must have won and lost.
        steps: Newton's, at most.
    """
    games = wins + wins.transpose(0, 2, 1)
    # Without the prior a shift of all strengths changes nothing; this fixes it and moves nothing else.
    anchor = np.full(wins.shape[1:], 1 / wins.shape[1]) if prior == 0 else np.zeros(wins.shape[1:])
    eye = np.eye(wins.shape[1])
    found = np.zeros(wins.shape[:2])
    active = np.arange(len(wins))  # those that have not arrived
    for _ in range(steps):
        at = found[active]
        chance = _logistic(at[:, :, None] - at[:, None, :])
        own = _logistic(at)
        slope = (wins[active] - games[active] * chance).sum(2) + prior * (0.5 - own)
        weight = games[active] * chance * (1 - chance)
        diagonal = weight.sum(2) + prior * own * (1 - own)
        curve = eye * diagonal[:, :, None] - weight * (1 - eye) + anchor
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        # Far from the top the parabola is too flat; a step of one unit of log odds is safe there.
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
        found[active] = at + step
        active = active[np.abs(step).max(axis=1) > 1e-9]
        if not len(active):
            break
    return found


def rank(table: Table, *, seed: int = 0, resamples: int = RESAMPLES) -> list[Strength]:
    """All models, the strongest first within each group, the group with most votes first; unmet models are left out."""
    wins = wins_of(table)
    if not len(wins.wins):
        return []
    matrix = wins.matrix()
    games = matrix + matrix.T
    groups = _groups(games > 0)
    met = games.sum(1) > 0
    strengths = _centred(fit(matrix[None]), groups)[0]
    enough = max(_FEWEST, min(resamples, _HELD // wins.models**2, _HELD // max(1, wins.prompts)))
    drawn = _centred(fit(wins.resampled(enough, np.random.default_rng(seed))), groups)
    drawn = _stretched(drawn, strengths, wins.prompts)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    weights = {group: games[groups == group].sum() for group in set(groups.tolist())}
    order = sorted(np.flatnonzero(met), key=lambda one: (-weights[groups[one]], groups[one], -strengths[one], one))
    numbered = {group: at for at, group in enumerate(dict.fromkeys(int(groups[one]) for one in order))}
    made: list[Strength] = []
    for one in order:
        peers = np.flatnonzero((groups == groups[one]) & met)
        place = int(1 + (strengths[peers] > strengths[one]).sum())
        ranks = np.sort(1 + (drawn[:, peers] > drawn[:, [one]]).sum(1))
        tail = math.floor(0.025 * len(ranks))
        made.append(
            Strength(
                model=table.models[one],
                rank=place,
                rank_low=min(place, int(ranks[tail])),
                rank_high=max(place, int(ranks[-1 - tail])),
                points=Number(
                    value=POINTS * float(strengths[one]),
                    low=POINTS * float(min(low[one], strengths[one])) if matrix[one].any() else None,
                    high=POINTS * float(max(high[one], strengths[one])) if matrix[:, one].any() else None,
                    n=round(games[one].sum()),
                ),
                wins=float(matrix[one].sum()),
                group=numbered[int(groups[one])],
            )
        )
    return made


def _stretched(drawn: Floats, strengths: Floats, prompts: int) -> Floats:
    """The resamples, spread as much further as few prompts make them spread too little."""
    freedom = max(1, prompts - 1)
    point = Student(freedom).quantile(0.975) if freedom < 200 else Z_95
    return strengths + point / Z_95 * math.sqrt(prompts / freedom) * (drawn - strengths)


def _groups(met: Flags) -> Ints:
    """(M,) a number for each connected part of the graph of models that met: the least model in it."""
    labels = np.arange(len(met))
    reach = met | np.eye(len(met), dtype=bool)
    while True:
        least = np.where(reach, labels[None, :], len(met)).min(1)
        if (least == labels).all():
            return labels
        labels = least


def _centred(strengths: Floats, groups: Ints) -> Floats:
    """Each group's mean moved to 0."""
    made = strengths.copy()
    for group in set(groups.tolist()):
        inside = groups == group
        made[:, inside] -= made[:, inside].mean(1, keepdims=True)
    return made


def _logistic(logit: Floats) -> Floats:
    # By way of tanh, which never overflows.
    return 0.5 * (1 + np.tanh(logit / 2))
