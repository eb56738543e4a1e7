"""The account of a source's rows: how many were read, used, dropped, not selected or unusable, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trueup.config import DataConfig
from trueup.data.rendering.messages import Origin, Row
from trueup.data.sources.decoding import Entry
from trueup.data.sources.parser import Parser, same_answers
from trueup.errors import DataError
from trueup.system.text import printable

LISTED = 10
"""Lines that a message lists; the others are counted."""
_LISTED_NOTES = 1_000


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that was left out, and why."""

    origin: Origin
    reason: str


@dataclass(slots=True)
class Places:
    """The first places of one kind of problem, and how many there are in all."""

    origins: list[Origin] = field(default_factory=list)
    total: int = 0

    def add(self, origins: Sequence[Origin], total: int | None = None) -> None:
        """Count `total` more places (by default all of `origins`), of which `origins` are the first."""
        self.total += len(origins) if total is None else total
        self.origins += origins[: LISTED + 1 - len(self.origins)]


@dataclass(slots=True)
class Account:
    """Counts of a source's rows: `read == used + len(dropped) + unselected` if `check` raises nothing.

    Memory grows with the dropped rows only: of notes the first thousand are kept, of problems the first places.
    Accounts of consecutive chunks of a source add up to the account of the whole (`add`).

    Attributes:
        section: the source, which of its rows are selected, and what to do about identical pairs.
        read: rows seen.
        used: rows given to the caller.
        unselected: rows outside the slice `rows`.
        dropped: rows left out because the configuration says so.
        notes: oddities of rows that are used, the first thousand.
        note_counts: {note: how often}.
        first: the error of the first unusable row.
        unusable: the places of unusable rows.
        identical: the places of pairs with identical answers, where those are not dropped.
    """

    section: DataConfig
    read: int = 0
    used: int = 0
    unselected: int = 0
    dropped: list[Drop] = field(default_factory=list)
    notes: list[tuple[Origin, str]] = field(default_factory=list)
    note_counts: Counter[str] = field(default_factory=Counter)
    first: DataError | None = None
    unusable: Places = field(default_factory=Places)
    identical: Places = field(default_factory=Places)

    def parse(self, parser: Parser, index: int, entry: Entry) -> Row | None:
        """Count one entry and return its row, or None if the row is not used.

        Args:
            parser: started, so that it knows the format.
            index: the entry's number in the source, from 0.
            entry: the row's origin, and its fields or the error of reading it.
        """
        origin, fields = entry
        notes: list[tuple[Origin, str]] = []
        self.read += 1
        try:
            row = parser.parse(origin, fields, notes)
        except DataError as error:
            self.refuse(origin, error)
            return None
        if not self.selects(index):
            return None
        if same_answers(row):
            if self.section.identical_pairs == "drop":
                self.dropped.append(Drop(origin, "chosen and rejected are the same"))
            else:
                self.identical.add([origin])
            return None
        self.used += 1
        if notes:
            self._note(notes, Counter(note for _, note in notes))
        return row

    def selects(self, index: int) -> bool:
        """Return True if the slice `rows` selects the source's row `index` (from 0); count the row if it does not."""
        start, stop = self.section.span
        selected = start <= index and (stop is None or index < stop)
        self.unselected += not selected
        return selected

    def refuse(self, origin: Origin, error: DataError) -> None:
        """Count an unusable row."""
        self.first = self.first or error
        self.unusable.add([origin])

    def add(self, chunk: Account) -> None:
        """Add the account of the rows that follow."""
        self.read += chunk.read
        self.used += chunk.used
        self.unselected += chunk.unselected
        self.dropped += chunk.dropped
        self._note(chunk.notes, chunk.note_counts)
        self.first = self.first or chunk.first
        self.unusable.add(chunk.unusable.origins, chunk.unusable.total)
        self.identical.add(chunk.identical.origins, chunk.identical.total)

    def _note(self, notes: Sequence[tuple[Origin, str]], counts: Counter[str]) -> None:
        self.note_counts.update(counts)
        self.notes += notes[: max(0, _LISTED_NOTES - len(self.notes))]

    def check_so_far(self) -> None:
        """Raise DataError if a row was unusable: the first one's error, with the places of the others."""
        if self.first is None:
            return
        others, count = self.unusable.origins[1:], self.unusable.total - 1
        also = f"\n  also unusable: {lines(others, count, str(self.first))}, of {self.read} rows read" if count else ""
        raise DataError(f"{self.first}{also}")

    def check(self) -> None:
        """Raise DataError if the whole source cannot be used: unusable rows, identical pairs, or no row to use."""
        self.check_so_far()
        name, selected = printable(self.section.path), self.read - self.unselected
        if not self.read:
            raise no_rows(name)
        if not selected:
            problem = f"rows: {self.section.rows} selects nothing of {self.read} rows"
            raise DataError(f"{name}: {problem}\n  fix: stay within 0:{self.read}")
        if self.identical.total:
            places = lines(self.identical.origins, self.identical.total)
            raise DataError(
                f"{name}: {self.identical.total} of {selected} pairs have the same chosen and rejected: {places}\n"
                "  fix: remove them, or set identical_pairs: drop"
            )
        if not self.used:
            problem = f"all {selected} pairs have the same chosen and rejected"
            raise DataError(f"{name}: {problem}\n  fix: check how it was made")

    def counts(self, left_out: Sequence[Drop], blank: int) -> dict[str, Any]:
        """Return the account for JSON.

        Args:
            left_out: what the source holds besides its rows; counted as read and dropped.
            blank: blank lines of the source; they are not rows.
        """
        return {
            "read": self.read + len(left_out),
            "used": self.used,
            "dropped": [{"at": str(drop.origin), "reason": drop.reason} for drop in (*left_out, *self.dropped)],
            "unselected": self.unselected,
            "blank": blank,
            "notes": [{"at": str(origin), "note": note} for origin, note in self.notes],
            "note_counts": dict(self.note_counts),
        }


def no_rows(name: str) -> DataError:
    """Return the error of a source without a row."""
    return DataError(f"{name}: there are no rows in it\n  fix: check that the file was written to the end")


def lines(origins: Sequence[Origin], total: int | None = None, message: str = "") -> str:
    """Return line numbers for a message: the first ten, and how many more there are.

    The names of their files are given too, unless all are of one file, and `message` (if any) begins with its name.
    """
    total = len(origins) if total is None else total
    files = {origin.file for origin in origins}
    one_file = len(files) == 1 and (not message or message.startswith(f"{next(iter(files))}:"))
    listed = ", ".join(str(origin.line) if one_file else str(origin) for origin in origins[:LISTED])
    more = f" and {total - LISTED} more" if total > LISTED else ""
    return f"{'line' if total == 1 else 'lines'} {listed}{more}" if one_file else f"{listed}{more}"
