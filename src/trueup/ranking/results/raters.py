"""Statistics of the raters: their habits, and their agreement with the majority and with gold pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.agreement import CATEGORIES
from trueup.ranking.results.lengths import longer_won
from trueup.ranking.results.results_schema import Absent, Measured, RaterRow, ResultsNumber
from trueup.ranking.results.table import BOTH_BAD, FIRST, IMPORTED, SKIP, TIE
from trueup.stats.clustered import ClusteredRate, clustered_rate
from trueup.stats.paired import holm

if TYPE_CHECKING:
    from trueup.ranking.results.table import Table
    from trueup.stats.arrays import Flags, Floats, Ints

SAME_KEY = 0.95
"""Share of one key from which a rater is flagged for it."""
MIN_VOTES = 10
"""Votes below which no rater is flagged for a key."""
_KEYS = ("A", "B", "tie", "both bad", "skip")


def raters(table: Table) -> list[RaterRow]:
    """Return the statistics of each rater, those with most votes first; `table` includes the votes on gold pairs."""
    majority = others_majority(table)
    masks = [table.rater == rater for rater in range(len(table.raters))]
    sides = [_left(table.where(mask)) for mask in masks]
    adjusted = holm({str(rater): side.p for rater, side in enumerate(sides) if side is not None})
    rows = [
        _row(table.raters[rater], table.where(mask), majority[mask], sides[rater], adjusted.get(str(rater)))
        for rater, mask in enumerate(masks)
    ]
    return sorted(rows, key=lambda row: -row.votes)


def left_share(table: Table) -> tuple[Measured, float | None]:
    """Return the share of preferences for the answer shown as A, and the two-sided p-value of its being one half."""
    side = _left(table)
    return _number(side, "no preference was given on a page that draws the sides"), side.p if side else None


def others_majority(table: Table) -> Ints:
    """Return (N,) for each vote the most frequent category among the other raters' votes on the same pair.

    Categories are 0 first, 1 neither, 2 second; -1 if nobody else voted, the others are at a draw, or the vote is a
    skip.
    """
    voted = table.category >= 0
    counts = np.zeros((int(table.pair.max(initial=-1)) + 1, CATEGORIES), dtype=np.int64)
    np.add.at(counts, (table.pair[voted], table.category[voted]), 1)
    others = counts[table.pair]
    others[np.flatnonzero(voted), table.category[voted]] -= 1
    ordered = np.sort(others, axis=1)
    clear = voted & (ordered[:, -1] > ordered[:, -2])
    return np.where(clear, others.argmax(axis=1), -1)


def keys(table: Table) -> Ints:
    """Return (N,) the key that was pressed for each vote: 0 A, 1 B, 2 tie, 3 both bad, 4 skip."""
    preferred = np.where((table.choice == FIRST) == table.left, 0, 1)
    rest = np.select([table.choice == TIE, table.choice == BOTH_BAD], [2, 3], 4)
    return np.where(table.preferred, preferred, rest)


def _row(name: str, table: Table, majority: Ints, side: ClusteredRate | None, p: float | None) -> RaterRow:
    """Return one rater's statistics.

    Args:
        name: the rater.
        table: the rater's N votes.
        majority: (N,) category of the other raters' majority on each vote's pair, -1 for none.
        side: share of preferences for the answer shown as A.
        p: p-value of that share being one half, adjusted over all raters.
    """
    voted = table.choice != SKIP
    seconds = table.seconds[~np.isnan(table.seconds)]

    def share(hits: Flags, among: Flags, why: str) -> Measured:
        return _number(_rate(hits[among].astype(np.float64), table.prompt[among]), why)

    return RaterRow(
        rater=name,
        votes=int(voted.sum()),
        skips=int((~voted).sum()),
        seconds=float(np.median(seconds)) if len(seconds) else None,
        ties=share(table.choice == TIE, voted, "no votes but skips"),
        both_bad=share(table.choice == BOTH_BAD, voted, "no votes but skips"),
        left=_number(side, "no preference was given on a page that draws the sides"),
        left_p=p,
        majority=share(table.category == majority, majority >= 0, "no pair with a majority of others"),
        gold=share(table.choice == table.gold, voted & (table.gold >= 0), "no gold pair was answered"),
        longer=_number(longer_won(table)[1], "no preference between answers of unequal length"),
        flags=_flags(table, side, p),
    )


def _flags(table: Table, side: ClusteredRate | None, p: float | None) -> list[str]:
    """Return warnings about a rater, such as pressing always the same key, or preferring one side of the screen."""
    shown = table.where(table.policy != IMPORTED)
    counts = np.bincount(keys(shown), minlength=len(_KEYS))
    total = int(counts.sum())
    most = int(counts.argmax())
    if total >= MIN_VOTES and counts[most] >= SAME_KEY * total:
        always = "always" if counts[most] == total else "nearly always"
        return [f"{always} presses the same key: {_KEYS[most]} {counts[most]} of {total} times"]
    if side is not None and p is not None and p < 0.05:
        return [f"prefers side {'A' if side.value > 0.5 else 'B'}, whatever it shows"]
    return []


def _left(table: Table) -> ClusteredRate | None:
    """Return the share of preferences for the answer shown as A.

    Imported votes are left out: the sides of their answers were not drawn at random.
    """
    kept = table.where(table.preferred & (table.policy != IMPORTED))
    return _rate(((kept.choice == FIRST) == kept.left).astype(np.float64), kept.prompt)


def _rate(scores: Floats, prompts: Ints) -> ClusteredRate | None:
    return clustered_rate(scores, prompts) if len(scores) else None


def _number(rate: ClusteredRate | None, why: str) -> Measured:
    return Absent(why=why) if rate is None else ResultsNumber.of(rate.estimate)
