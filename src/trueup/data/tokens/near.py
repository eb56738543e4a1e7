"""Near-duplicates among tokenized rows, and rows of one section that are found in another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trueup.data.tokens.duplicates import NEAR, PLACES, Buckets, Groups, alike, band_keys
from trueup.data.tokens.pack import near_text
from trueup.data.tokens.store import Tokenized

_SCAN = 8_192
_LIKELY = 20  # places of 32 that must agree before texts are compared: of pairs at 0.8 one in a hundred has fewer
_HEADS = 32  # rows of one bucket that every further row of it is compared with
_COMPARED = 200_000  # pairs whose texts are compared (20 s); where there are more, the estimate decides about the rest
_LOOKED_AT = 4096  # candidates of one bucket


def near_groups(rows: Tokenized) -> Groups:
    """Rows that are equal or near-duplicates (`duplicates.alike`; candidates by their signatures)."""
    groups = Groups(len(rows))
    with Buckets() as same:
        for start, records in rows.records():
            same.add(records["content"].astype(np.uint64), np.arange(start, start + len(records)))
        for group in same.groups():
            for row in group[1:].tolist():
                groups.join(int(group[0]), row)
    alone = groups.parent == np.arange(len(rows))  # of equal rows the first stands for all
    joiner = _Joiner(groups, rows)
    with Buckets() as near:
        for start, signature in _signatures(rows):
            kept = np.flatnonzero(alone[start : start + len(signature)])
            keys = band_keys(signature[kept])
            near.add(keys.ravel(), np.repeat(kept + start, keys.shape[1]))
        for group in near.groups():
            joiner.join(np.unique(group))
    return groups


class _Joiner:
    """Joins the rows of a bucket that are alike."""

    def __init__(self, groups: Groups, rows: Tokenized) -> None:
        self._groups, self._rows = groups, rows
        self._left = _COMPARED

    def join(self, bucket: NDArray[np.int64]) -> None:
        """Compare each row of a bucket with the first of those before it.

        In the order of their signatures, so that what is joined does not depend on the order of the rows.
        """
        signature = np.concatenate([self._rows.signatures(int(row), 1) for row in bucket])
        order = np.lexsort(signature.T)
        bucket, signature = bucket[order], signature[order]
        heads, texts = [0], dict[int, str]()
        for at in range(1, len(bucket)):
            agree = (signature[heads] == signature[at]).sum(axis=1)
            same = [
                head
                for head, places in zip(list(heads), agree.tolist(), strict=True)
                if places >= _LIKELY and self._alike(int(bucket[head]), int(bucket[at]), places, texts)
            ]
            for head in same:
                self._groups.join(int(bucket[head]), int(bucket[at]))
            if len(heads) < _HEADS:
                heads.append(at)
            else:  # only the heads' texts are asked for again: a bucket may hold most of the rows
                texts.pop(int(bucket[at]), None)

    def _alike(self, a: int, b: int, places: int, texts: dict[int, str]) -> bool:
        if self._groups.first(a) == self._groups.first(b):
            return True
        if not self._left:
            return places >= NEAR * PLACES
        self._left -= 1
        for row in (a, b):
            if row not in texts:
                texts[row] = near_text(self._rows.parts(row))
        return alike(texts[a], texts[b])


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
    """Which of `rows[among]` are in `other[others]`, word for word or nearly (`duplicates.alike`).

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
        agree = (signatures == rows.signatures(row, 1)).sum(axis=1)
        likeliest = [at for at in np.argsort(-agree, kind="stable")[:_HEADS] if agree[at] >= PLACES / 2]
        text = near_text(rows.parts(row)) if likeliest else ""
        for match in candidates[likeliest].tolist():
            if alike(text, near_text(other.parts(match))):
                found[row] = match
                break


def _within(chosen: NDArray[np.int64], start: int, count: int) -> NDArray[np.int64]:
    """Those of the chosen rows that are among `count` rows from `start` on."""
    first, last = np.searchsorted(chosen, [start, start + count])
    return chosen[first:last]
