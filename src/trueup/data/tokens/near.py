"""Find near-duplicates among tokenized rows, and rows of one section that occur in another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trueup.data.tokens.duplicates import NEAR, PLACES, Buckets, Groups, alike, band_keys
from trueup.data.tokens.pack import near_text
from trueup.data.tokens.store import Tokenized

_SCAN = 8_192
_LIKELY = 20  # of 32 places that must agree before texts are compared; 1% of pairs at similarity 0.8 have fewer
_HEADS = 32  # the first rows of a bucket, with which its other rows are compared
_COMPARED = 200_000  # pairs of texts that are compared (20 s); the signatures decide about further pairs
_MOST_CANDIDATES = 4096  # of one bucket


def near_groups(rows: Tokenized) -> Groups:
    """Return groups of rows that are equal or near-duplicates (`duplicates.alike`).

    Candidates are found by their MinHash signatures; then their texts are compared.
    """
    groups = Groups(len(rows))
    with Buckets() as same:
        for start, records in rows.records():
            same.add(records["content"].astype(np.uint64), np.arange(start, start + len(records)))
        for group in same.groups():
            for row in group[1:].tolist():
                groups.join(int(group[0]), row)
    alone = groups.parent == np.arange(len(rows))  # the first of equal rows represents them
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
    """Helper that compares the rows of a bucket (rows with an equal band key) and joins near-duplicates into groups."""

    def __init__(self, groups: Groups, rows: Tokenized) -> None:
        self._groups, self._rows = groups, rows
        self._left = _COMPARED

    def join(self, bucket: NDArray[np.int64]) -> None:
        """Compare the rows of a bucket, and join the groups of near-duplicates.

        Each row is compared with at most the first 32 before it. Rows are taken in the order of their signatures, so
        that the groups do not depend on the order of the rows.
        """
        signature = np.concatenate([self._rows.signatures(int(row), 1) for row in bucket])
        order = np.lexsort(signature.T)
        bucket, signature = bucket[order], signature[order]
        heads, texts = [0], dict[int, str]()
        for index in range(1, len(bucket)):
            agree = (signature[heads] == signature[index]).sum(axis=1)
            same = [
                head
                for head, places in zip(list(heads), agree.tolist(), strict=True)
                if places >= _LIKELY and self._alike(int(bucket[head]), int(bucket[index]), places, texts)
            ]
            for head in same:
                self._groups.join(int(bucket[head]), int(bucket[index]))
            if len(heads) < _HEADS:
                heads.append(index)
            else:  # only the texts of the first rows are needed again: a bucket may hold most of the rows
                texts.pop(int(bucket[index]), None)

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
    """Rows of one section that occur in another: the number found word for word (`exact`) and nearly (`near`).

    `shown` has the first of them, as (row, row of the other section).
    """

    exact: int = 0
    near: int = 0
    shown: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of two sections that are compared: its tokenized rows, and the numbers of the selected ones, ascending."""

    rows: Tokenized
    chosen: NDArray[np.int64]


def overlap(
    rows: Tokenized, among: NDArray[np.int64], other: Tokenized, others: NDArray[np.int64], *, shown: int = 10
) -> Overlap:
    """Return the overlap of `rows[among]` with `other[others]`: rows that occur in both, exactly or nearly.

    Candidates for near-duplicates (`duplicates.alike`) are found by their MinHash signatures; then their texts are
    compared. At most `shown` pairs of rows are listed.
    """
    equal = _equal(_Side(rows, among), _Side(other, others))
    rest = among[~np.isin(among, np.array(list(equal), np.int64))]
    near = _nearly(_Side(rows, rest), _Side(other, others))
    return Overlap(len(equal), len(near), sorted((equal | near).items())[:shown])


def _equal(mine: _Side, theirs: _Side) -> dict[int, int]:
    """Return {row: the first row of the other section with the same text} for the rows that have one."""
    matches: dict[int, int] = {}
    offset = len(mine.rows)
    with Buckets() as buckets:
        for side, shift in ((mine, 0), (theirs, offset)):
            for start, records in side.rows.records():
                kept = _within(side.chosen, start, len(records))
                buckets.add(records["content"][kept - start].astype(np.uint64), kept + shift)
        for group in buckets.groups():
            if group[-1] >= offset:
                first = int(group[group >= offset][0]) - offset
                matches.update(dict.fromkeys(group[group < offset].tolist(), first))
    return matches


def _nearly(mine: _Side, theirs: _Side) -> dict[int, int]:
    """Return {row: a near-duplicate of it in the other section} for the rows that have one."""
    matches: dict[int, int] = {}
    offset = len(mine.rows)
    with Buckets() as buckets:
        for side, shift in ((mine, 0), (theirs, offset)):
            for start, signature in _signatures(side.rows):
                kept = _within(side.chosen, start, len(signature))
                keys = band_keys(signature[kept - start])
                buckets.add(keys.ravel(), np.repeat(kept + shift, keys.shape[1]))
        for group in buckets.groups():
            candidates = np.unique(group[group >= offset])[:_MOST_CANDIDATES] - offset
            unmatched = [row for row in np.unique(group[group < offset]).tolist() if row not in matches]
            if unmatched and len(candidates):
                _compare(matches, unmatched, mine.rows, candidates, theirs.rows)
    return matches


def _compare(
    matches: dict[int, int], unmatched: list[int], rows: Tokenized, candidates: NDArray[np.int64], other: Tokenized
) -> None:
    """Enter into `matches` {row: its near-duplicate} for the unmatched rows that have one among the candidates.

    Of the candidates, only those with the most similar signatures are compared with a row.
    """
    signatures = np.concatenate([other.signatures(int(candidate), 1) for candidate in candidates])
    for row in unmatched:
        agree = (signatures == rows.signatures(row, 1)).sum(axis=1)
        likeliest = [index for index in np.argsort(-agree, kind="stable")[:_HEADS] if agree[index] >= PLACES / 2]
        text = near_text(rows.parts(row)) if likeliest else ""
        for match in candidates[likeliest].tolist():
            if alike(text, near_text(other.parts(match))):
                matches[row] = match
                break


def _within(chosen: NDArray[np.int64], start: int, count: int) -> NDArray[np.int64]:
    """Return the numbers in `chosen` (ascending) that lie among the `count` rows from `start` on."""
    first, last = np.searchsorted(chosen, [start, start + count])
    return chosen[first:last]
