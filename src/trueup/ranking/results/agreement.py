"""Agreement of the raters: Krippendorff's alpha over all of them, Cohen's kappa for each two.

Categories are the first answer, neither (a tie, or both bad) and the second, by the store's sides and not by the sides
shown, which are random. Skips are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.results_schema import Absent, Agreement, Kappa, Measured, ResultsNumber
from trueup.stats.agreement import Level, alpha, bootstrapped, coincidences, kappa
from trueup.stats.intervals import rate

if TYPE_CHECKING:
    from trueup.ranking.results.table import Table
    from trueup.stats.arrays import Floats, Ints

CATEGORIES = 3
MIN_PAIRS = 5
"""Shared pairs below which no coefficient is computed."""
MOST_COUPLES = 100
_APART = np.array([1.0, 0.0, 1.0])  # a pair on which two raters disagree as much as possible
_DIFFERENT = np.array([0, 0, 0.5, 0, 0, 0, 0.5, 0, 0])  # such a pair in a confusion matrix, in both directions


def agreement(table: Table, *, seed: int = 0) -> Agreement:
    """Return Krippendorff's alpha over all raters and Cohen's kappa for each two of them, with bootstrap intervals.

    `table` holds the votes without those on gold pairs, whose better answer is known.
    """
    table = table.where(table.category >= 0)
    generator = np.random.default_rng(seed)
    units = np.zeros((int(table.pair.max(initial=-1)) + 1, CATEGORIES))
    np.add.at(units, (table.pair, table.category), 1)
    units = units[units.sum(1) >= 2]
    # Units with the same votes are interchangeable: a few kinds with counts replace thousands of units.
    kinds, counts = np.unique(np.concatenate([units, [_APART]]), axis=0, return_counts=True)
    worst = (kinds == _APART).all(1).astype(np.float64)
    counts = counts - worst.astype(np.int64)
    kind_coincidences = coincidences(kinds).reshape(len(kinds), -1)

    def measured(level: Level) -> Measured:
        def of_counts(drawn: Floats) -> Floats:
            return alpha((drawn @ kind_coincidences).reshape(-1, CATEGORIES, CATEGORIES), level)

        return _measured(of_counts, counts, worst, "alpha", generator)

    return Agreement(
        pairs=len(units), nominal=measured("nominal"), ordinal=measured("ordinal"), raters=_kappas(table, generator)
    )


def _kappas(table: Table, generator: np.random.Generator) -> list[Kappa]:
    """Return Cohen's kappa for each two raters that share pairs, most shared pairs first, at most `MOST_COUPLES`."""
    categories = [
        dict(zip(table.pair[of_rater].tolist(), table.category[of_rater].tolist(), strict=True))
        for of_rater in (table.rater == rater for rater in range(len(table.raters)))
    ]
    couples = combinations(range(len(categories)), 2)
    shared = [(rater, other, categories[rater].keys() & categories[other].keys()) for rater, other in couples]
    kappas: list[Kappa] = []
    for rater, other, common in sorted(shared, key=lambda couple: -len(couple[2]))[:MOST_COUPLES]:
        if not common:
            break
        confusion = np.zeros((CATEGORIES, CATEGORIES), dtype=np.int64)
        for pair in common:
            confusion[categories[rater][pair], categories[other][pair]] += 1
        kappas.append(_kappa(table.raters[rater], table.raters[other], confusion.ravel(), generator))
    return kappas


def _kappa(rater: str, other: str, cells: Ints, generator: np.random.Generator) -> Kappa:
    n = int(cells.sum())
    agreed = int(cells.reshape(CATEGORIES, CATEGORIES).trace())

    def measured(weighted: bool) -> Measured:
        def of_counts(drawn: Floats) -> Floats:
            return kappa(drawn.reshape(-1, CATEGORIES, CATEGORIES), weighted=weighted)

        return _measured(of_counts, cells, _DIFFERENT, "kappa", generator)

    return Kappa(
        rater=rater,
        other=other,
        n=n,
        agreed=ResultsNumber.of(rate(agreed, n)),
        kappa=measured(False),
        weighted=measured(True),
    )


def _measured(
    coefficient: Callable[[Floats], Floats], counts: Ints, worst: Floats, name: str, generator: np.random.Generator
) -> Measured:
    n = int(counts.sum())
    if n < MIN_PAIRS:
        shared = "no pair has" if n == 0 else "only one pair has" if n == 1 else f"only {n} pairs have"
        return Absent(why=f"{shared} the votes of two raters; {MIN_PAIRS} are needed")
    estimate = bootstrapped(coefficient, counts, worst, generator)
    if estimate is None:
        return Absent(why=f"all votes on all {n} pairs are in one category: {name} is undefined without any difference")
    return ResultsNumber.of(estimate)
