"""The raters: their habits, and whether they say what others say and what is known to be right."""

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
"""Share of one key from which on a rater is said to press it always."""
LEAST_KEYS = 10
"""Votes below which nobody is: a few of one kind in a row are no habit."""
_KEYS = ("A", "B", "tie", "both bad", "skip")


def raters(table: Table) -> list[RaterRow]:
    """A row a rater, those with most votes first; `table` has the gold pairs too."""
    majority = others_majority(table)
    parts = [table.rater == rater for rater in range(len(table.raters))]
    sides = [_left(table.where(mine)) for mine in parts]
    adjusted = holm({str(at): one.p for at, one in enumerate(sides) if one is not None})
    rows = [_row(table, at, mine, majority[mine], sides[at], adjusted.get(str(at))) for at, mine in enumerate(parts)]
    return sorted(rows, key=lambda row: -row.votes)


def left_share(table: Table) -> tuple[Measured, float | None]:
    """How often the answer shown as A was preferred, and the two-sided p of one half."""
    found = _left(table)
    return _number(found, "no preference was given on a page that draws the sides"), found.p if found else None


def others_majority(table: Table) -> Ints:
    """(N,) the commonest category of the others' votes on each vote's pair; -1 where there is none, or several."""
    said = table.category >= 0
    counts = np.zeros((int(table.pair.max(initial=-1)) + 1, CATEGORIES), dtype=np.int64)
    np.add.at(counts, (table.pair[said], table.category[said]), 1)
    others = counts[table.pair]
    others[np.flatnonzero(said), table.category[said]] -= 1
    ordered = np.sort(others, axis=1)
    clear = said & (ordered[:, -1] > ordered[:, -2])
    return np.where(clear, others.argmax(axis=1), -1)


def keys(table: Table) -> Ints:
    """(N,) which key each vote was: 0 A, 1 B, 2 tie, 3 both bad, 4 skip."""
    preferred = np.where((table.choice == FIRST) == table.left, 0, 1)
    rest = np.select([table.choice == TIE, table.choice == BOTH_BAD], [2, 3], 4)
    return np.where(table.preferred, preferred, rest)


def _row(table: Table, at: int, mine: Flags, majority: Ints, side: ClusteredRate | None, p: float | None) -> RaterRow:
    own = table.where(mine)
    said, known = own.choice != SKIP, own.gold >= 0
    seconds = own.seconds[~np.isnan(own.seconds)]
    compared = majority >= 0

    def share(found: Flags, among: Flags, why: str) -> Measured:
        return _number(_rate(found[among].astype(np.float64), own.prompt[among]), why)

    gold_said = said & known
    return RaterRow(
        rater=table.raters[at],
        votes=int(said.sum()),
        skips=int((~said).sum()),
        seconds=float(np.median(seconds)) if len(seconds) else None,
        ties=share(own.choice == TIE, said, "no votes but skips"),
        both_bad=share(own.choice == BOTH_BAD, said, "no votes but skips"),
        left=_number(side, "no preference was given on a page that draws the sides"),
        left_p=p,
        majority=share(own.category == majority, compared, "no pair with a majority of others"),
        gold=share(own.choice == own.gold, gold_said, "no gold pair was answered"),
        longer=_number(longer_won(own)[1], "no preference between answers of unequal length"),
        flags=_flags(own, side, p),
    )


def _flags(own: Table, side: ClusteredRate | None, p: float | None) -> list[str]:
    """What should be looked at."""
    shown = own.where(own.policy != IMPORTED)
    counts = np.bincount(keys(shown), minlength=len(_KEYS))
    total = int(counts.sum())
    most = int(counts.argmax())
    if total >= LEAST_KEYS and counts[most] >= SAME_KEY * total:
        always = "always" if counts[most] == total else "nearly always"
        return [f"{always} presses the same key: {_KEYS[most]} {counts[most]} of {total} times"]
    if side is not None and p is not None and p < 0.05:
        return [f"prefers side {'A' if side.value > 0.5 else 'B'}, whatever is on it"]
    return []


def _left(table: Table) -> ClusteredRate | None:
    """The sides of imported votes were drawn by nobody here, so they say nothing of a bias."""
    kept = table.where(table.preferred & (table.policy != IMPORTED))
    return _rate(((kept.choice == FIRST) == kept.left).astype(np.float64), kept.prompt)


def _rate(scores: Floats, prompts: Ints) -> ClusteredRate | None:
    return clustered_rate(scores, prompts) if len(scores) else None


def _number(found: ClusteredRate | None, why: str) -> Measured:
    return Absent(why=why) if found is None else ResultsNumber.of(found.estimate)
