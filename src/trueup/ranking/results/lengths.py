"""Lengths of winning and losing answers, and win rates adjusted for length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trueup.evaluation.winrate import length_controlled
from trueup.ranking.results.results_schema import Absent, Lengths, Measured, ResultsNumber
from trueup.ranking.results.table import FIRST
from trueup.stats.clustered import ClusteredRate, clustered_mean, clustered_rate

if TYPE_CHECKING:
    from trueup.ranking.results.table import Table
    from trueup.stats.arrays import Floats, Ints

_RESAMPLED_PROMPTS = 1_000_000  # in all resamples together
_MIN_RESAMPLES, _MAX_RESAMPLES = 200, 2000


def longer_won(table: Table) -> tuple[Table, ClusteredRate | None]:
    """Return the preferences between answers of unequal length in characters, and the share for the longer one."""
    kept = table.where(table.preferred & (table.characters[:, 0] != table.characters[:, 1]))
    scores = (_winner_minus_loser(kept, kept.characters) > 0).astype(np.float64)
    return kept, clustered_rate(scores, kept.prompt) if len(kept) else None


def lengths(table: Table) -> Lengths:
    """Return how much longer winners are than losers, and how often the longer answer wins, over all preferences."""
    preferred = table.where(table.preferred)

    def measured(values: Floats) -> Measured:
        try:
            return ResultsNumber.of(clustered_mean(_winner_minus_loser(preferred, values), preferred.prompt))
        except ValueError:
            prompts = len(np.unique(preferred.prompt))
            return Absent(why=f"preferences on {prompts} {'prompt' if prompts == 1 else 'prompts'}; 2 are needed")

    longer = longer_won(table)[1]
    return Lengths(
        characters=measured(preferred.characters),
        words=measured(preferred.words),
        longer=Absent(why="no preference between answers of unequal length")
        if longer is None
        else ResultsNumber.of(longer.estimate),
    )


def controlled(table: Table, model: int, scores: Floats, *, share: float = 1.0, seed: int = 0) -> Measured:
    """Return the length-adjusted win rate of a lone pair of models (`evaluation.winrate`), one outcome for each prompt.

    Votes on one prompt are dependent, so they are averaged.

    Args:
        table: deciding votes between `model` and one other.
        model: the model whose rate is returned.
        scores: (N,) score of `model` in each vote.
        share: share of the resampling budget to use.
        seed: seed of the bootstrap.
    """
    swap = table.first != model
    lengths = np.where(swap[:, None], table.characters[:, ::-1], table.characters)
    prompts = np.unique(table.prompt, return_inverse=True)[1]
    counts = np.bincount(prompts)

    def averaged(values: Floats) -> Floats:
        return np.bincount(prompts, weights=values) / counts

    resamples = int(min(_MAX_RESAMPLES, max(_MIN_RESAMPLES, share * _RESAMPLED_PROMPTS / len(counts))))
    won = np.clip(averaged(scores), 0, 1)
    result = length_controlled(
        won.tolist(),
        averaged(lengths[:, 0]).tolist(),
        averaged(lengths[:, 1]).tolist(),
        resamples=resamples,
        seed=seed,
    )
    if result.rate is None:
        why = result.withheld or ""
        words = {"judged pairs": "prompts", "answer of ours": "answer of the first model", "theirs": "the second's"}
        for word, instead in words.items():
            why = why.replace(word, instead)
        return Absent(why=why)
    return ResultsNumber.of(result.rate)


def _winner_minus_loser(table: Table, values: Floats) -> Floats:
    """Return (N,) the winner's value minus the loser's; `values` is (N, 2), for the first and the second answer."""
    signs: Ints = np.where(table.choice == FIRST, 1, -1)
    return signs * (values[:, 0] - values[:, 1])
