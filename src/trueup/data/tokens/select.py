"""Which of the tokenized rows are used: a limit, a share held out; and views that leave the rows on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trueup.data.example import Branch, Example
from trueup.data.rendering.messages import Message, Origin
from trueup.data.tokens.near import near_groups
from trueup.data.tokens.store import Tokenized

Selected = NDArray[np.int64]


class Examples(Sequence[Example]):
    """Some rows of one tokenized section, or of several one after another; each example is read when it is asked for.

    Attributes:
        parts: the sections.
        rows: (n,) of each part the rows that are in, in rising order.
        cut: the longest sequence, to which answers are cut; None leaves them whole.
    """

    def __init__(self, parts: Sequence[Tokenized], rows: Sequence[Selected], cut: int | None = None) -> None:
        """See the class."""
        self.parts, self.rows, self.cut = tuple(parts), tuple(rows), cut
        self.starts = np.cumsum([0, *(len(one) for one in rows)])

    def __len__(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def place(self, at: int) -> tuple[Tokenized, int]:
        """The section and the row in it of the example `at`."""
        if not 0 <= at < len(self):
            raise IndexError(f"row {at} of {len(self)}")
        part = int(np.searchsorted(self.starts, at, side="right")) - 1
        return self.parts[part], int(self.rows[part][at - self.starts[part]])

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """One example, its `row` being `index`; or a list of them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        part, row = self.place(at)
        example = part.example(row)
        if self.cut is not None and example.longest > self.cut:
            room = self.cut - len(example.trunk)
            example = replace(example, branches=tuple(cut_branch(branch, room) for branch in example.branches))
        return replace(example, row=at)

    def origin(self, at: int) -> Origin:
        """Where an example came from."""
        part, row = self.place(at)
        return part.origin(row)

    def prompt(self, at: int) -> tuple[Message, ...]:
        """The messages before the answer."""
        part, row = self.place(at)
        return part.prompt(row)

    def scalar(self, at: int) -> float:
        """A ranking's margin, a verdict's label; NaN where there is none."""
        part, row = self.place(at)
        return float(part.record(row)["scalar"])

    def map_records(self, see: Callable[[NDArray[np.void]], None]) -> None:
        """Show `see` the records of all rows, some thousands at a time."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            for start, records in part.records():
                first, last = np.searchsorted(rows, [start, start + len(records)])
                if last > first:
                    see(records[rows[first:last] - start])


def cut_branch(branch: Branch, room: int) -> Branch:
    """The branch cut to `room` tokens and back to its last trained one, its end token kept in the last place."""
    if len(branch.ids) <= room:
        return branch
    ids, mask = branch.ids[: max(0, room)], branch.mask[: max(0, room)]
    while mask and not mask[-1]:
        ids.pop()
        mask.pop()
    if ids and branch.mask[len(ids)]:  # cut inside an answer: it ends there
        ids[-1] = branch.ids[-1]
    return Branch(ids, mask, branch.columns, branch.scalars)


def everything(rows: Tokenized) -> Selected:
    """All rows of a section. 4 bytes a row would do for most; 8 keep one type everywhere."""
    return np.arange(len(rows), dtype=np.int64)


def seeded(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Hashes of content -> well-mixed numbers that depend on the seed too (splitmix64)."""
    mixed = hashes + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def contents(rows: Tokenized) -> NDArray[np.uint64]:
    """(n,) each row's content hash."""
    found = np.empty(len(rows), dtype=np.uint64)
    for start, records in rows.records():
        found[start : start + len(records)] = records["content"]
    return found


def limited(rows: Tokenized, selected: Selected, limit: int | None, seed: int) -> Selected:
    """At most `limit` of the rows, drawn by seed and content: rows added to the file change few of them."""
    if limit is None or len(selected) <= limit:
        return selected
    drawn = seeded(contents(rows)[selected], seed)
    return np.sort(selected[np.argsort(drawn, kind="stable")[:limit]])


@dataclass(frozen=True, slots=True)
class Sides:
    """A section's rows to train on and those held out."""

    train: Selected
    held_out: Selected


def split(rows: Tokenized, selected: Selected, share: float, seed: int) -> Sides:
    """Hold out about `share` of the rows. Near-duplicates stand on one side.

    A row's side follows from the seed and the content of its near-duplicates alone (the smallest content hash among
    them), not from its place: it stays there when rows are added, unless a new one joins its near-duplicates.
    """
    if not share:
        return Sides(selected, selected[:0])
    hashes = contents(rows)
    first = near_groups(rows).firsts()
    smallest = np.full(len(rows), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, first, hashes)
    held = seeded(smallest[first], seed) < np.uint64(share * 2.0**64)
    return Sides(selected[~held[selected]], selected[held[selected]])


def lengths(records: NDArray[np.void]) -> NDArray[np.int64]:
    """(n,) tokens of each row's longest sequence, prompt included."""
    return records["trunk"].astype(np.int64) + np.maximum(records["first"], records["second"])
