"""Whether raters say the same of the same pair, beyond what chance makes them say.

Categories are the first answer, neither (a tie, or both bad) and the second, of the store's sides: which of them was
shown as A is random and says nothing. Skips are left out.

* Cohen's kappa (1960) for two raters, and with linear weights (Cohen 1968): a tie beside a preference is half a
  disagreement.
* Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability") for all raters, also where not everybody saw
  every pair; nominal, and ordinal with neither between first and second.

Intervals are the bootstrap's over pairs; where raters never differed, which resamples cannot get away from, the lower
end is what would be found if the largest share of disagreement that n agreements allow (Wilson's) were there. Both are
undefined where everybody always says the same one thing: then nothing shows that raters can tell answers apart.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from trueup.ranking.results.schema import Absent, Agreement, Kappa, Measured, Number
from trueup.stats.intervals import rate

if TYPE_CHECKING:
    from trueup.ranking.results.table import Floats, Ints, Table

CATEGORIES = 3
LEAST = 5
"""Shared pairs below which neither is given: a few pairs can be anything."""
MOST_COUPLES = 100
RESAMPLES = 1000
_APART = np.array([1.0, 0.0, 1.0])  # a unit of two raters who could not differ more
_DIFFERENT = np.array([0, 0, 0.5, 0, 0, 0, 0.5, 0, 0])  # the same in a confusion matrix, either way round
Level = Literal["nominal", "ordinal", "interval"]


def kappa(confusion: Floats, *, weighted: bool = False) -> Floats:
    """Cohen's kappa, 1 - observed over expected disagreement; NaN where none is expected.

    Args:
        confusion: (..., C, C) how often one rater said the row and the other the column.
        weighted: disagreement grows with the distance of the categories instead of being 0 or 1.
    """
    count = np.arange(confusion.shape[-1])
    apart = np.abs(count[:, None] - count) if weighted else count[:, None] != count
    total = confusion.sum((-1, -2))
    chance = confusion.sum(-1)[..., :, None] * confusion.sum(-2)[..., None, :]
    return _one_minus((confusion * apart).sum((-1, -2)) * total, (chance * apart).sum((-1, -2)))


def coincidences(units: Floats) -> Floats:
    """(U, C, C) what each unit adds to Krippendorff's matrix of coincidences.

    Args:
        units: (U, C) how many raters gave a unit each category; those with fewer than two raters add nothing.
    """
    raters = units.sum(1)
    pairs = units[:, :, None] * units[:, None, :] - units[:, :, None] * np.eye(units.shape[1])
    return pairs / np.maximum(raters - 1, 1)[:, None, None]


def alpha(matrix: Floats, level: Level = "nominal", values: Floats | None = None) -> Floats:
    """Krippendorff's alpha, 1 - observed over expected disagreement; NaN where none is expected.

    Args:
        matrix: (..., C, C) coincidences, added up over units.
        level: how far apart two categories are.
        values: (C,) of the categories, for "interval"; by default 0, 1, ...
    """
    margins = matrix.sum(-1)
    apart = _distance(margins, level, values)
    total = margins.sum(-1)
    # Of two different values drawn without putting back; the diagonal's distance is 0, so its correction is not needed.
    expected = (margins[..., :, None] * margins[..., None, :] * apart).sum((-1, -2))
    return _one_minus((matrix * apart).sum((-1, -2)) * (total - 1), expected)


def _distance(margins: Floats, level: Level, values: Floats | None) -> Floats:
    """(..., C, C) squared distances."""
    count = np.arange(margins.shape[-1])
    if level == "nominal":
        return (count[:, None] != count).astype(np.float64)
    if level == "interval":
        numbers = count if values is None else values
        return (numbers[:, None] - numbers).astype(np.float64) ** 2
    # Ordinal: how many values lie from one category to the other, half of the two ends.
    middle = margins.cumsum(-1) - margins / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def _one_minus(observed: Floats, expected: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def agreement(table: Table, *, seed: int = 0) -> Agreement:
    """What is said of the raters of a table without gold pairs."""
    table = table.where(table.category >= 0)
    generator = np.random.default_rng(seed)
    units = np.zeros((int(table.pair.max(initial=-1)) + 1, CATEGORIES))
    np.add.at(units, (table.pair, table.category), 1)
    units = units[units.sum(1) >= 2]
    # Units of the same votes are alike: few kinds of them stand for thousands.
    kinds, counts = np.unique(np.concatenate([units, [_APART]]), axis=0, return_counts=True)
    worst = (kinds == _APART).all(1).astype(np.float64)
    counts = counts - worst.astype(np.int64)
    added = coincidences(kinds).reshape(len(kinds), -1)

    def measured(level: Level) -> Measured:
        def of(drawn: Floats) -> Floats:
            return alpha((drawn @ added).reshape(-1, CATEGORIES, CATEGORIES), level)

        return _bootstrapped(of, counts, worst, "alpha", generator)

    return Agreement(
        pairs=len(units), nominal=measured("nominal"), ordinal=measured("ordinal"), raters=_kappas(table, generator)
    )


def _kappas(table: Table, generator: np.random.Generator) -> list[Kappa]:
    """Two raters that share pairs, those that share most first, `MOST_COUPLES` at most."""
    said = [
        dict(zip(table.pair[mine].tolist(), table.category[mine].tolist(), strict=True))
        for mine in (table.rater == rater for rater in range(len(table.raters)))
    ]
    couples = combinations(range(len(said)), 2)
    shared = [(one, other, said[one].keys() & said[other].keys()) for one, other in couples]
    made: list[Kappa] = []
    for one, other, common in sorted(shared, key=lambda couple: -len(couple[2]))[:MOST_COUPLES]:
        if not common:
            break
        confusion = np.zeros((CATEGORIES, CATEGORIES), dtype=np.int64)
        for pair in common:
            confusion[said[one][pair], said[other][pair]] += 1
        made.append(_two(table.raters[one], table.raters[other], confusion.ravel(), generator))
    return made


def _two(rater: str, other: str, cells: Ints, generator: np.random.Generator) -> Kappa:
    n = int(cells.sum())
    same = int(cells.reshape(CATEGORIES, CATEGORIES).trace())
    agreed = rate(same, n)

    def measured(weighted: bool) -> Measured:
        def of(drawn: Floats) -> Floats:
            return kappa(drawn.reshape(-1, CATEGORIES, CATEGORIES), weighted=weighted)

        return _bootstrapped(of, cells, _DIFFERENT, "kappa", generator)

    return Kappa(
        rater=rater,
        other=other,
        n=n,
        agreed=Number(value=agreed.value, low=agreed.low, high=agreed.high, n=n),
        kappa=measured(False),
        weighted=measured(True),
    )


def _bootstrapped(
    of: Callable[[Floats], Floats], counts: Ints, worst: Floats, name: str, generator: np.random.Generator
) -> Measured:
    """A coefficient of counted kinds of pairs, with the percentile interval over pairs; `worst` is one pair apart."""
    n = int(counts.sum())
    if n < LEAST:
        shared = "no pair has" if n == 0 else "only one pair has" if n == 1 else f"only {n} pairs have"
        return Absent(why=f"{shared} the votes of two raters; {LEAST} are needed")
    value = float(of(counts[None].astype(np.float64))[0])
    if np.isnan(value):
        return Absent(why=f"everybody said the same of all {n} pairs: {name} is undefined where answers never differ")
    drawn = of(generator.multinomial(n, counts / n, size=RESAMPLES).astype(np.float64))
    # A resample in which all say the same has no coefficient; it is drawn where agreement is high, so it counts as 1.
    low, high = np.quantile(np.where(np.isnan(drawn), 1.0, drawn), (0.025, 0.975))
    if value > 1 - 1e-9:
        share = rate(0, n).high
        low = of((counts * (1 - share) + worst * n * share)[None])[0]
    return Number(value=value, low=min(float(low), value), high=max(float(high), value), n=n)
