"""The counts of a source's rows: how many were read, used, dropped, not selected or unusable, and on which lines."""

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
_LISTED_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that was left out: its file and line, and the reason in words."""

    origin: Origin
    reason: str


@dataclass(slots=True)
class Places:
    """The places (file and line) of rows with one kind of problem: the first few, and the number of all of them."""

    origins: list[Origin] = field(default_factory=list)
    total: int = 0

    def add(self, origins: Sequence[Origin], total: int | None = None) -> None:
        """Count `total` more places, of which `origins` are the first; by default `origins` are all of them.

        Of `origins`, only as many are kept as a message can list.
        """
        self.total += len(origins) if total is None else total
        self.origins += origins[: LISTED + 1 - len(self.origins)]


@dataclass(slots=True)
class Account:
    """Counts of a source's rows: `read == used + len(dropped) + unselected` if `check` raises nothing.

    Memory grows with the dropped rows only: of the notes the first thousand are kept, of the problems the first places.
    Accounts of consecutive chunks of a source add up to the account of the whole (`add`).

    Attributes:
        section: the data section of the configuration: the source, the slice `rows` and the rule for identical pairs.
        read: rows seen.
        used: rows given to the caller.
        unselected: rows outside the slice `rows`.
        dropped: rows left out because the configuration says so.
        notes: (place, oddity) of rows that are used all the same, e.g. an empty response; the first thousand.
        note_counts: {oddity: number of times}.
        first: the error of the first unusable row.
        unusable: the places of unusable rows.
        identical: the places of pairs whose two answers are identical, where those are not dropped.
        unread: {field: number of the `holders` that hold something in it, and nothing reads it}.
        holders: entries that were parsed and selected.
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
    unread: Counter[str] = field(default_factory=Counter)
    holders: int = 0

    def parse(self, parser: Parser, index: int, entry: Entry) -> list[Row]:
        """Count one entry and return its rows, several where it ranks more than two answers; none if it is not used.

        Args:
            parser: the parser of the source, whose `start` was called, so that it knows the format.
            index: the entry's number in the source, from 0.
            entry: the row's file and line, and its fields or the error of reading it.
        """
        origin, fields = entry
        notes: list[tuple[Origin, str]] = []
        self.read += 1
        try:
            parsed = parser.parse(origin, fields, notes)
        except DataError as error:
            if self.skips(error):
                if self.selects(index):
                    self.leave_out(origin, error)
            else:
                self.refuse(origin, error)
            return []
        if not self.selects(index):
            return []
        self.read += len(parsed.rows) + len(parsed.left_out) - 1
        self.dropped += [Drop(origin, reason) for reason in parsed.left_out]
        self.unread.update(parsed.unread)
        self.holders += 1
        rows = [row for row in parsed.rows if not self._same_answers(row)]
        self.used += len(rows)
        if notes and rows:
            self._note(notes, Counter(note for _, note in notes))
        return rows

    def skips(self, error: DataError) -> bool:
        """Return True if the section's `skip` names the kind of row that an error is about."""
        return bool(error.kind) and error.kind in (self.section.skip or ())

    def leave_out(self, origin: Origin, error: DataError) -> None:
        """Count a row as left out by `skip`, with its kind and the problem."""
        problem = str(error).splitlines()[0].removeprefix(f"{origin}: ")
        self.dropped.append(Drop(origin, f"{error.kind}: {problem}"))

    def _same_answers(self, row: Row) -> bool:
        """Return True if the row is a pair with identical answers; count it as dropped or as a fault."""
        if not same_answers(row):
            return False
        assert row.origin is not None
        if self.section.identical_pairs == "drop":
            self.dropped.append(Drop(row.origin, "chosen and rejected are the same"))
        else:
            self.identical.add([row.origin])
        return True

    def selects(self, index: int) -> bool:
        """Return True if the section's slice `rows` selects row number `index` (from 0).

        Count the row if it does not.
        """
        start, stop = self.section.span
        selected = start <= index and (stop is None or index < stop)
        self.unselected += not selected
        return selected

    def refuse(self, origin: Origin, error: DataError) -> None:
        """Count a row as unusable, because of `error`."""
        self.first = self.first or error
        self.unusable.add([origin])

    def add(self, chunk: Account) -> None:
        """Add the account of the next chunk of rows of the same source."""
        self.read += chunk.read
        self.used += chunk.used
        self.unselected += chunk.unselected
        self.dropped += chunk.dropped
        self._note(chunk.notes, chunk.note_counts)
        self.first = self.first or chunk.first
        self.unusable.add(chunk.unusable.origins, chunk.unusable.total)
        self.identical.add(chunk.identical.origins, chunk.identical.total)
        self.unread.update(chunk.unread)
        self.holders += chunk.holders

    def _note(self, notes: Sequence[tuple[Origin, str]], counts: Counter[str]) -> None:
        self.note_counts.update(counts)
        self.notes += notes[: max(0, _LISTED_NOTES - len(self.notes))]

    def check_so_far(self) -> None:
        """Raise DataError if a row was unusable: the error of the first one, and the lines of the others."""
        if self.first is None:
            return
        others, count = self.unusable.origins[1:], self.unusable.total - 1
        also = f"\n  also unusable: {lines(others, count, str(self.first))}, of {self.read} rows read" if count else ""
        raise DataError(f"{self.first}{also}")

    def check(self) -> None:
        """Raise DataError if the source, read to its end, cannot be used.

        Raises:
            DataError: rows are unusable, pairs have identical answers (and are not dropped), or no row is left to use.
        """
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
            raise DataError(f"{name}: {self._none_used(selected)}")

    def _none_used(self, selected: int) -> str:
        """Return the message that all rows were left out, with the reasons."""
        reasons = Counter(drop.reason.partition(":")[0] for drop in self.dropped)
        if list(reasons) == ["chosen and rejected are the same"]:
            return f"all {selected} pairs have the same chosen and rejected\n  fix: check how it was made"
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(10))
        splits = [reason for reason in reasons if reason.startswith("of split")]
        fix = "set split to the one to read" if splits else "check how it was made, or skip less"
        return f"all {selected} rows are left out: {counted}\n  fix: {fix}"

    def counts(self, left_out: Sequence[Drop], blank: int) -> dict[str, Any]:
        """Return the counts as a dict for JSON: read, used, dropped, unselected, blank, notes, note_counts, unread.

        Args:
            left_out: what the source holds besides its rows, e.g. undecided pairs; counted as read and dropped.
            blank: the number of blank lines in the source, which are not rows.
        """
        return {
            "read": self.read + len(left_out),
            "used": self.used,
            "dropped": [{"at": str(drop.origin), "reason": drop.reason} for drop in (*left_out, *self.dropped)],
            "unselected": self.unselected,
            "blank": blank,
            "notes": [{"at": str(origin), "note": note} for origin, note in self.notes],
            "note_counts": dict(self.note_counts),
            "unread": dict(self.unread.most_common(_LISTED_FIELDS)),
            "holders": self.holders,
        }


def no_rows(name: str) -> DataError:
    """Return the error for a source, named `name`, that has no row."""
    return DataError(f"{name}: there are no rows in it\n  fix: check that the file was written to the end")


def lines(origins: Sequence[Origin], total: int | None = None, message: str = "") -> str:
    """Return the line numbers of `origins` as text for a message: the first ten, and the number of further ones.

    File names are written too, unless all lines are of one file and `message` (if any) begins with its name.
    """
    total = len(origins) if total is None else total
    files = {origin.file for origin in origins}
    one_file = len(files) == 1 and (not message or message.startswith(f"{next(iter(files))}:"))
    listed = ", ".join(str(origin.line) if one_file else str(origin) for origin in origins[:LISTED])
    more = f" and {total - LISTED} more" if total > LISTED else ""
    return f"{'line' if total == 1 else 'lines'} {listed}{more}" if one_file else f"{listed}{more}"
