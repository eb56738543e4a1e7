"""Ranking of models: their Bradley-Terry strengths from the votes in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.results_schema import ResultsNumber, Strength
from trueup.stats import bradley_terry
from trueup.stats.bradley_terry import RESAMPLES, Wins

if TYPE_CHECKING:
    from trueup.ranking.results.table import Table


def wins_of(table: Table) -> Wins:
    """Return the deciding votes (preferences and ties) between two named models as wins; a tie is half for each."""
    table = table.where(table.deciding & table.paired)
    prompts = np.unique(table.prompt, return_inverse=True)[1]
    wins = np.concatenate([table.score, 1 - table.score])
    kept = wins > 0
    return Wins(
        prompt=np.concatenate([prompts, prompts])[kept],
        winner=np.concatenate([table.first, table.second])[kept],
        loser=np.concatenate([table.second, table.first])[kept],
        wins=wins[kept],
        models=len(table.models),
        prompts=int(prompts.max()) + 1 if len(prompts) else 0,
    )


def rank(table: Table, *, seed: int = 0, resamples: int = RESAMPLES) -> list[Strength]:
    """Return rank and strength of each model that was compared with another.

    Models that no chain of votes links are in different groups. The group with most votes comes first, and the
    strongest first within each group.
    """
    return [
        Strength(
            model=table.models[standing.model],
            rank=standing.rank,
            rank_low=standing.rank_low,
            rank_high=standing.rank_high,
            points=ResultsNumber(value=standing.value, low=standing.low, high=standing.high, n=standing.games),
            wins=standing.wins,
            group=standing.group,
        )
        for standing in bradley_terry.rank(wins_of(table), seed=seed, resamples=resamples)
    ]
