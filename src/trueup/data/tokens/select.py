"""Selection of tokenized rows (limit, held-out share), and views of the selected rows, which stay on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trueup.data.example import Branch, Example
from trueup.data.rendering.messages import Message, Origin
from trueup.data.tokens.duplicates import Groups
from trueup.data.tokens.near import near_groups
from trueup.data.tokens.store import Tokenized

Selected = NDArray[np.int64]


class Examples(Sequence[Example]):
    """Selected rows of one or more tokenized sections, one section after another; each row is read when it is indexed.

    Attributes:
        parts: the tokenized sections.
        rows: for each section its selected rows (n,), ascending.
        cut: the most tokens of a sequence, to which answers are cut; None does not cut.
    """

    def __init__(self, parts: Sequence[Tokenized], rows: Sequence[Selected], cut: int | None = None) -> None:
        """Make a view of the selected `rows` of each of `parts`; `cut` limits the tokens of a sequence."""
        self.parts, self.rows, self.cut = tuple(parts), tuple(rows), cut
        self.starts = np.cumsum([0, *map(len, rows)])

    def __len__(self) -> int:
        """Return the number of examples."""
        return int(self.starts[-1])

    def place(self, index: int) -> tuple[Tokenized, int]:
        """Return the section that holds the example at `index`, and the row's number in that section."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], int(self.rows[part][index - self.starts[part]])

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Return the example at an index, with `row` set to the index, or the list of examples for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = index + len(self) if index < 0 else index
        part, row = self.place(index)
        example = part.example(row)
        if self.cut is not None and example.longest > self.cut:
            room = self.cut - len(example.trunk)
            example = replace(example, branches=tuple(cut_branch(branch, room) for branch in example.branches))
        return replace(example, row=index)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest row, prompt included, after the cut."""
        most = [0]
        self.map_records(lambda records: most.append(int(lengths(records).max())))
        return min(max(most), self.cut or max(most))

    def origin(self, index: int) -> Origin:
        """Return the file and line of the example at `index`."""
        part, row = self.place(index)
        return part.origin(row)

    def prompt(self, index: int) -> tuple[Message, ...]:
        """Return the messages before the answer of the example at `index`."""
        part, row = self.place(index)
        return part.prompt(row)

    def scalar(self, index: int) -> float:
        """Return the margin of a ranking or the label (0 or 1) of a labelled completion; NaN if the row has neither."""
        part, row = self.place(index)
        return float(part.record(row)["scalar"])

    def map_records(self, visit: Callable[[NDArray[np.void]], None]) -> None:
        """Call `visit` with the records (`record.RECORD`) of all selected rows in order, a few thousand at a time."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            for start, records in part.records():
                first, last = np.searchsorted(rows, [start, start + len(records)])
                if last > first:
                    visit(records[rows[first:last] - start])


def cut_branch(branch: Branch, room: int) -> Branch:
    """Return an answer cut to `room` tokens, and further to its last trained token.

    If the cut lies inside an answer, the end token takes the place of the last token.
    """
    if len(branch.ids) <= room:
        return branch
    ids, mask = branch.ids[: max(0, room)], branch.mask[: max(0, room)]
    while mask and not mask[-1]:
        ids.pop()
        mask.pop()
    if ids and branch.mask[len(ids)]:  # cut inside an answer: end it there
        ids[-1] = branch.ids[-1]
    return Branch(ids, mask, branch.columns, branch.scalars)


def all_rows(rows: Tokenized) -> Selected:
    """Return the numbers of all rows of a section, (n,) int64, as a selection."""
    return np.arange(len(rows), dtype=np.int64)


def seeded(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the content hashes (n,) mixed with the seed by splitmix64, as pseudorandom numbers to draw rows by."""
    mixed = hashes + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def contents(rows: Tokenized) -> NDArray[np.uint64]:
    """Return the content hash of each row of a section, (n,)."""
    hashes = np.empty(len(rows), dtype=np.uint64)
    for start, records in rows.records():
        hashes[start : start + len(records)] = records["content"]
    return hashes


def limit_rows(rows: Tokenized, selected: Selected, limit: int | None, seed: int) -> Selected:
    """Return at most `limit` of the selected rows, ascending.

    They are drawn by seed and content: rows added to the file later change few of them.
    """
    if limit is None or len(selected) <= limit:
        return selected
    drawn = seeded(contents(rows)[selected], seed)
    return np.sort(selected[np.argsort(drawn, kind="stable")[:limit]])


@dataclass(frozen=True, slots=True)
class Sides:
    """The rows of a section to train on, and the rows that are held out for evaluation."""

    train: Selected
    held_out: Selected


def split(rows: Tokenized, selected: Selected, share: float, seed: int) -> Sides:
    """Divide the selected rows into those to train on and about `share` held out.

    Near-duplicates stay together, and so do the rows of one line (the pairs of n ranked answers).

    The side of a row depends only on the seed and the smallest content hash of its near-duplicates, not on its place:
    it stays the same when rows are added, unless a new one joins its near-duplicates.
    """
    if not share:
        return Sides(selected, selected[:0])
    hashes = contents(rows)
    groups = near_groups(rows)
    _join_lines(groups, rows)
    first = groups.firsts()
    smallest = np.full(len(rows), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, first, hashes)
    held = seeded(smallest[first], seed) < np.uint64(share * 2.0**64)
    return Sides(selected[~held[selected]], selected[held[selected]])


def _join_lines(groups: Groups, rows: Tokenized) -> None:
    """Join the groups of rows that were made of one line of a file: they lie next to each other."""
    before: tuple[int, int] | None = None
    for start, records in rows.records():
        places = zip(records["file"].tolist(), records["line"].tolist(), strict=True)
        for row, place in enumerate(places, start):
            if place == before:
                groups.join(row - 1, row)
            before = place


def lengths(records: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the number of tokens of each row's longest sequence, prompt included, (n,)."""
    return records["trunk"].astype(np.int64) + np.maximum(records["first"], records["second"])
