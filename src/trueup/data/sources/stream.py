"""Typed rows one after another, nothing retained, and every row of the source accounted for."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from trueup.data.rendering.messages import Origin, Row
from trueup.data.sources.parser import Parser, Want, same_answers
from trueup.data.sources.reader import Reader, open_reader
from trueup.data.sources.rows import Counts, Drop, shown
from trueup.errors import ConfigError, DataError
from trueup.system.text import excerpt

R = TypeVar("R", bound=Row)
LISTED = 10
"""Lines that a message lists; the others are counted."""
SAME = "chosen and rejected are the same"
_LOOK = 256  # entries between two looks at the clock


class DataSection(Protocol):
    """What a configuration says about data; the arguments of `load`."""

    @property
    def path(self) -> str:
        """File, folder or hub id."""
        ...

    @property
    def use(self) -> str:
        """What is made of the rows."""
        ...

    @property
    def rows(self) -> str | None:
        """start:stop of the source's rows."""
        ...

    @property
    def columns(self) -> dict[str, str] | None:
        """{field: the file's name for it}."""
        ...

    @property
    def split(self) -> str:
        """Which split."""
        ...

    @property
    def identical_pairs(self) -> Literal["error", "drop"]:
        """What to do about pairs whose two answers are the same."""
        ...


def stream(section: DataSection, want: Want, *, allow_empty: bool = False) -> Stream[Any]:
    """The rows of a configuration's data section, one after another.

    Raises:
        DataError: the source as a whole cannot be read; its rows are judged while they are iterated.
        ConfigError: a key cannot be meant.
        MissingExtraError: the source needs a package that is not installed.
    """
    parser = Parser(want, section.use, section.columns or {}, allow_empty)
    span = span_of(section.rows)
    return Stream(open_reader(section.path, section.split), parser, span, drop=section.identical_pairs == "drop")


def span_of(rows: str | None) -> slice:
    """What `rows` selects, written start:stop.

    Raises:
        ConfigError: it is none.
    """
    if rows is None:
        return slice(None)
    if not re.fullmatch(r"(-?\d+)?:(-?\d+)?", rows, re.ASCII):
        raise ConfigError(f"rows: {excerpt(rows)} is no slice\n  fix: write start:stop, as in 0:1000, 500: or :-100")
    start, _, stop = rows.partition(":")
    return slice(int(start) if start else None, int(stop) if stop else None)


def spelled(span: slice) -> str:
    """The slice as it is written in a configuration."""
    return f"{'' if span.start is None else span.start}:{'' if span.stop is None else span.stop}"


@dataclass(slots=True)
class Found:
    """Places of one kind of problem: the first ones, and how many there are."""

    origins: list[Origin] = field(default_factory=list)
    total: int = 0

    def add(self, origin: Origin) -> None:
        """Count one more."""
        self.total += 1
        if len(self.origins) < LISTED:
            self.origins.append(origin)


class Stream(Generic[R]):
    """Rows of a source, in order. Memory does not grow with them, only with what is dropped or noted.

    Iterating yields the usable rows within `span`; every other row is judged as well. When all entries were seen, one
    DataError says which were unusable, if any. Iterate again for another pass.

    Attributes:
        reader: the entries.
        parser: makes rows of them; started once the first good row was seen.
        span: the rows of the source that are selected, 0-based; nothing negative.
    """

    def __init__(self, reader: Reader, parser: Parser, span: slice = slice(None), *, drop: bool = False) -> None:
        self.reader, self.parser, self.span, self._drop = reader, parser, span, drop
        self._clear()

    def _clear(self) -> None:
        self._read = self._used = self._selected = 0
        self._first: DataError | None = None
        self._others, self._same = Found(), Found()
        self._dropped: list[Drop] = []
        self._notes: list[tuple[Origin, str]] = []

    @property
    def counts(self) -> Counts:
        """What became of the rows so far; complete once the iteration has ended."""
        return Counts(
            read=self._read + len(self.reader.left_out),
            used=self._used,
            dropped=(*self.reader.left_out, *self._dropped),
            unselected=self._read - self._selected,
            blank=self.reader.blank,
            notes=tuple(self._notes),
            unused=self.parser.unused,
        )

    @property
    def format(self) -> str:
        """Name of the rows' format, "" until the first was seen."""
        return self.parser.format

    @property
    def files(self) -> tuple[str, ...]:
        """The files read, in order."""
        return self.reader.files

    @property
    def done(self) -> float:
        """Share of the source read so far, 0 to 1."""
        return self.reader.done

    def __iter__(self) -> Iterator[R]:
        """Raises DataError, at the end, if a row is unusable, a pair is no pair, or nothing is selected."""
        yield from (row for row in self._pass() if row is not None)

    def look(self, seconds: float) -> None:
        """Judge the rows from the first on, for so long.

        Raises:
            DataError: one of them is unusable; or, where all were seen, as iterating does.
        """
        until = time.monotonic() + seconds
        for number, _ in enumerate(self._pass()):
            if number % _LOOK == 0 and time.monotonic() > until:
                self._judge_so_far()
                return

    def _pass(self) -> Iterator[R | None]:
        """Every entry's row, None where it is not used."""
        self._clear()
        parser, notes = self.parser, self._notes
        start, stop = self.span.start or 0, self.span.stop
        for at, (origin, found) in enumerate(self.reader.entries()):
            self._read += 1
            noted = len(notes)
            try:
                if not parser.started and not isinstance(found, DataError):
                    parser.start(origin, found)
                row = parser.parse(origin, found, notes)
            except DataError as error:
                self._refuse(origin, error)
                if not parser.started and not isinstance(found, DataError):
                    break  # the format is not known: no other row can be judged
                yield None
                continue
            if start <= at and (stop is None or at < stop) and self._keeps(row):
                yield cast("R", row)
            else:
                del notes[noted:]  # notes are of rows that are used
                yield None
        self._judge()

    def _refuse(self, origin: Origin, error: DataError) -> None:
        if self._first is None:
            self._first = error
        else:
            self._others.add(origin)

    def _keeps(self, row: Row) -> bool:
        """Count a selected row. -> whether it is used."""
        self._selected += 1
        if not same_answers(row):
            self._used += 1
            return True
        assert row.origin is not None
        self._same.add(row.origin)
        if self._drop:
            self._dropped.append(Drop(row.origin, SAME))
        return False

    def _judge_so_far(self) -> None:
        if self._first is not None:
            raise unusable(self._first, self._others.origins, self._others.total, self._read)

    def _judge(self) -> None:
        """Raise what has to be said now that every entry was seen."""
        name = shown(self.reader.spec)
        self._judge_so_far()
        if not self._read:
            raise DataError(f"{name}: there are no rows in it\n  fix: check that the file was written to the end")
        if not self._selected:
            raise selects_nothing(name, self.span, self._read)
        if self._same.total and not self._drop:
            raise DataError(
                f"{name}: {self._same.total} of {self._selected} pairs have the same chosen and rejected: "
                f"{lines(self._same.origins, self._same.total)}\n"
                "  fix: remove them, or set identical_pairs: drop"
            )
        if not self._used:
            problem = f"all {self._selected} pairs have the same chosen and rejected"
            raise DataError(f"{name}: {problem}\n  fix: check how it was made")


def selects_nothing(name: str, span: slice, read: int) -> DataError:
    """The error of a slice without a row."""
    return DataError(f"{name}: rows: {spelled(span)} selects nothing of {read} rows\n  fix: stay within 0:{read}")


def unusable(first: DataError, others: Sequence[Origin], n_others: int, read: int) -> DataError:
    """What is wrong with the first unusable row, and where the others are.

    Args:
        first: the first row's error.
        others: where the next ones are; ten are shown.
        n_others: how many there are.
        read: rows read.
    """
    if not n_others:
        return DataError(str(first))
    return DataError(f"{first}\n  also unusable: {lines(others, n_others, str(first))}, of {read} rows read")


def lines(origins: Sequence[Origin], total: int | None = None, beside: str = "") -> str:
    """Line numbers for a message: ten, and how many more there are in all.

    With the names of their files, unless it is one file, and that of the message `beside`.
    """
    total = len(origins) if total is None else total
    files = {origin.file for origin in origins}
    one_file = len(files) == 1 and (not beside or beside.startswith(f"{next(iter(files))}:"))
    listed = ", ".join(str(o.line) if one_file else str(o) for o in origins[:LISTED])
    more = f" and {total - LISTED} more" if total > LISTED else ""
    return f"{'line' if total == 1 else 'lines'} {listed}{more}" if one_file else f"{listed}{more}"
