"""Near-duplicates among tokenized rows, and rows of one section that are found in another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trueup.dataset.duplicates import NEAR, PLACES, Buckets, Groups, band_keys, normalised, similarity
from trueup.dataset.pack import compared
from trueup.dataset.store import Tokenized

_SCAN = 16_384
_TOGETHER = 0.7  # estimated: a margin below NEAR, so that few true near-duplicates are put on two sides
_ALL_PAIRS = 16
_LOOKED_AT = 4096  # candidates of one bucket


def near_groups(rows: Tokenized, threshold: float = _TOGETHER) -> Groups:
    """Rows that are equal, or whose signatures agree in at least `threshold` of their places."""
    groups = Groups(len(rows))
    with Buckets() as same:
        for start, records in rows.records():
            same.add(records["content"].astype(np.uint64), np.arange(start, start + len(records)))
        for group in same.groups():
            for row in group[1:].tolist():
                groups.join(int(group[0]), row)
    alone = groups.parent == np.arange(len(rows))  # of equal rows the first stands for all
    with Buckets() as near:
        for start, signature in _signatures(rows):
            kept = np.flatnonzero(alone[start : start + len(signature)])
            keys = band_keys(signature[kept])
            near.add(keys.ravel(), np.repeat(kept + start, keys.shape[1]))
        for group in near.groups():
            _join(groups, rows, np.unique(group), threshold)
    return groups


def _join(groups: Groups, rows: Tokenized, group: NDArray[np.int64], threshold: float) -> None:
    """Join those of a bucket that are alike: each with each, in large buckets each with the first and the one before.

    They are put in the order of their signatures, so that what is joined does not depend on the order of the rows.
    """
    signature = np.concatenate([rows.signatures(int(row), 1) for row in group])
    order = np.lexsort(signature.T)
    group, signature = group[order], signature[order]
    for at in range(1, len(group)):
        others = range(at) if len(group) <= _ALL_PAIRS else (0, at - 1)
        for other in others:
            if (signature[at] == signature[other]).sum() >= threshold * PLACES:
                groups.join(int(group[at]), int(group[other]))


def _signatures(rows: Tokenized) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    for start in range(0, len(rows), _SCAN):
        yield start, rows.signatures(start, min(_SCAN, len(rows) - start))


@dataclass(slots=True)
class Overlap:
    """Rows of one section that another holds too: (row, row of the other) of the first few, and how many there are."""

    exact: int = 0
    near: int = 0
    shown: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Side:
    """Some rows of a section, in rising order."""

    rows: Tokenized
    chosen: NDArray[np.int64]


def overlap(
    rows: Tokenized, among: NDArray[np.int64], other: Tokenized, others: NDArray[np.int64], *, shown: int = 10
) -> Overlap:
    """Which of `rows[among]` are in `other[others]`, word for word or nearly (Jaccard similarity of at least NEAR).

    Candidates come from the signatures; each is then compared by its text.
    """
    equal = _equal(_Side(rows, among), _Side(other, others))
    rest = among[~np.isin(among, np.array(list(equal), np.int64))]
    near = _nearly(_Side(rows, rest), _Side(other, others))
    return Overlap(len(equal), len(near), sorted((equal | near).items())[:shown])


def _equal(mine: _Side, theirs: _Side) -> dict[int, int]:
    """Row -> the first row of the other that has the same text."""
    found: dict[int, int] = {}
    offset = len(mine.rows)
    with Buckets() as buckets:
        for side, shift in ((mine, 0), (theirs, offset)):
            for start, records in side.rows.records():
                kept = _within(side.chosen, start, len(records))
                buckets.add(records["content"][kept - start].astype(np.uint64), kept + shift)
        for group in buckets.groups():
            if group[-1] >= offset:
                first = int(group[group >= offset][0]) - offset
                found.update(dict.fromkeys(group[group < offset].tolist(), first))
    return found


def _nearly(mine: _Side, theirs: _Side) -> dict[int, int]:
    """Row -> a row of the other that is nearly the same."""
    found: dict[int, int] = {}
    offset = len(mine.rows)
    with Buckets() as buckets:
        for side, shift in ((mine, 0), (theirs, offset)):
            for start, signature in _signatures(side.rows):
                kept = _within(side.chosen, start, len(signature))
                keys = band_keys(signature[kept - start])
                buckets.add(keys.ravel(), np.repeat(kept + shift, keys.shape[1]))
        for group in buckets.groups():
            some = np.unique(group[group >= offset])[:_LOOKED_AT] - offset
            asked = [row for row in np.unique(group[group < offset]).tolist() if row not in found] if len(some) else []
            if asked:
                _compare(found, asked, mine.rows, some, theirs.rows)
    return found


def _compare(
    found: dict[int, int], asked: list[int], rows: Tokenized, candidates: NDArray[np.int64], other: Tokenized
) -> None:
    """Enter those that are near one of the candidates; their texts are compared with the likeliest ones'."""
    signatures = np.concatenate([other.signatures(int(one), 1) for one in candidates])
    for row in asked:
        alike = (signatures == rows.signatures(row, 1)).sum(axis=1)
        likeliest = [at for at in np.argsort(-alike, kind="stable")[:_ALL_PAIRS] if alike[at] >= PLACES / 2]
        text = normalised(compared(rows.parts(row))) if likeliest else ""
        for match in candidates[likeliest].tolist():
            if similarity(text, normalised(compared(other.parts(match)))) >= NEAR:
                found[row] = match
                break


def _within(chosen: NDArray[np.int64], start: int, count: int) -> NDArray[np.int64]:
    """Those of the chosen rows that are among `count` rows from `start` on."""
    first, last = np.searchsorted(chosen, [start, start + count])
    return chosen[first:last]
