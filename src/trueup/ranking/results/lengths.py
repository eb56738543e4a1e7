"""Whether longer answers win: winners against losers, and win rates at equal lengths."""

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

_DRAWN = 1_000_000  # resampled prompts in all
_FEWEST, _MOST = 200, 2000


def longer_won(table: Table) -> tuple[Table, ClusteredRate | None]:
    """The preferences between answers of unequal length in characters, and the share for the longer."""
    kept = table.where(table.preferred & (table.characters[:, 0] != table.characters[:, 1]))
    scores = (_gain(kept, kept.characters) > 0).astype(np.float64)
    return kept, clustered_rate(scores, kept.prompt) if len(kept) else None


def lengths(table: Table) -> Lengths:
    """Of all preferences of a table."""
    preferred = table.where(table.preferred)

    def gained(values: Floats) -> Measured:
        try:
            return ResultsNumber.of(clustered_mean(_gain(preferred, values), preferred.prompt))
        except ValueError:
            prompts = len(np.unique(preferred.prompt))
            return Absent(why=f"preferences on {prompts} {'prompt' if prompts == 1 else 'prompts'}; 2 are needed")

    longer = longer_won(table)[1]
    return Lengths(
        characters=gained(preferred.characters),
        words=gained(preferred.words),
        longer=Absent(why="no preference between answers of unequal length")
        if longer is None
        else ResultsNumber.of(longer.estimate),
    )


def controlled(table: Table, model: int, scores: Floats, *, share: float = 1.0, seed: int = 0) -> Measured:
    """The win rate at equal lengths, a prompt at a time: votes on one are averaged, for they are not independent.

    Args:
        table: deciding votes between `model` and one other.
        model: whose rate.
        scores: (N,) what `model` got in each.
        share: of the resampling that this may cost.
        seed: of the bootstrap.
    """
    swap = table.first != model
    lengths = np.where(swap[:, None], table.characters[:, ::-1], table.characters)
    prompts = np.unique(table.prompt, return_inverse=True)[1]
    counts = np.bincount(prompts)

    def averaged(values: Floats) -> Floats:
        return np.bincount(prompts, weights=values) / counts

    resamples = int(min(_MOST, max(_FEWEST, share * _DRAWN / len(counts))))
    won = np.clip(averaged(scores), 0, 1)
    result = length_controlled(
        won.tolist(),
        averaged(lengths[:, 0]).tolist(),
        averaged(lengths[:, 1]).tolist(),
        resamples=resamples,
        seed=seed,
    )
    if result.rate is None:
        return Absent(why=_in_prompts(result.withheld or ""))
    return ResultsNumber.of(result.rate)


def _in_prompts(why: str) -> str:
    return why.replace("judged pairs", "prompts").replace("answer of ours", "answer of the first model")


def _gain(table: Table, values: Floats) -> Floats:
    """(N,) the winner's less the loser's."""
    signs: Ints = np.where(table.choice == FIRST, 1, -1)
    return signs * (values[:, 0] - values[:, 1])
