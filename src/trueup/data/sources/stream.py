"""The typed rows of one data section of the configuration, one after another, with a count of every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from trueup.config import DataConfig
from trueup.data.rendering.messages import Row
from trueup.data.sources.account import Account, Drop
from trueup.data.sources.meaning import check_meaning, other_split
from trueup.data.sources.parser import Parser, RowKind
from trueup.data.sources.reader import open_reader
from trueup.data.sources.records import Record, rename_fields, without_ignored
from trueup.errors import DataError
from trueup.system.text import excerpt

T = TypeVar("T")
_CHECK_CLOCK_EVERY = 256  # entries


class RowStream:
    """The typed rows of a data section, in the order of the source; none is kept, so memory does not grow.

    Iterating yields the usable rows that the section selects; every other row is parsed and counted too. After the last
    row, one DataError names the unusable rows, if any. Iterate again for another pass.

    Attributes:
        reader: gives the entries of the source (a row's fields, or the error of reading it).
        parser: makes typed rows of entries; knows the format once the first readable row was seen.
        account: counts of the latest pass; complete once it has ended.
    """

    def __init__(self, section: DataConfig, want: RowKind, *, allow_empty: bool = False) -> None:
        """Open the source of a data section, to make rows of the kind `want`.

        Raises:
            DataError: the source as a whole cannot be read.
            ConfigError: a key of the section is impossible for rows of the kind `want`.
            MissingExtraError: the source needs a package that is not installed.
        """
        self.parser = Parser.of(section, want, allow_empty=allow_empty)
        self.reader = open_reader(section.path, section.split)
        self.account = Account(section)

    def __iter__(self) -> Iterator[Any]:
        """Yield the usable rows that the section selects.

        Raises:
            DataError: after the last row, if a row is unusable, pairs have identical answers, or no row is selected.
        """
        return (row for row in self._pass() if row is not None)

    def check_beginning(self, seconds: float) -> None:
        """Parse rows from the start of the source, for at most `seconds`, to find faults early.

        Raises:
            DataError: a row is unusable; once all rows were parsed, also for the reasons for which iterating raises.
        """
        end = time.monotonic() + seconds
        for index, _ in enumerate(self._pass()):
            if index % _CHECK_CLOCK_EVERY == 0 and time.monotonic() > end:
                self.account.check_so_far()
                return

    def _pass(self) -> Iterator[Row | None]:
        """Yield the typed row of each entry, or None where the row is not used."""
        account, parser = Account(self.account.section), self.parser
        self.account = account
        for index, (origin, fields) in enumerate(self.reader.entries()):
            if not parser.started and not isinstance(fields, DataError):
                try:
                    parser.start(origin, fields)
                except DataError as error:
                    account.read += 1
                    account.refuse(origin, error)
                    break  # the format is not known: no other row can be parsed
            yield from account.parse(parser, index, (origin, fields)) or (None,)
        account.check()


def read_records(
    section: DataConfig, make: Callable[[Record], T], *, any_field: bool = False
) -> tuple[list[T], Account]:
    """Return what `make` makes of the selected rows of a section, for code that reads its own fields, and the counts.

    The keys `rows`, `columns`, `split`, `ignore`, `skip`, `merge_turns` act as in a stage; the others have no effect.
    `any_field` accepts rows with fields that would mean something in a stage, such as a label or a picture.

    Raises:
        DataError: a row cannot be read, holds pictures or sound, or `make` refuses it; or no row is selected.
    """
    account = Account(section)
    results: list[T] = []
    for index, (origin, fields) in enumerate(open_reader(section.path, section.split).entries()):
        account.read += 1
        selected = account.selects(index)
        try:
            if isinstance(fields, DataError):
                raise fields
            row = without_ignored(rename_fields(fields, section.columns or {}, origin), section.ignore or ())
            if not selected:
                continue
            if (split := other_split(row, section.split)) is not None:
                account.dropped.append(Drop(origin, f"of split {excerpt(split)}"))
                continue
            record = Record(row, origin, merge_turns=bool(section.merge_turns))
            if not any_field:
                check_meaning(record, "prompt", judged=False, imitated=False)
            results.append(make(record))
        except DataError as error:
            if not account.skips(error):
                account.refuse(origin, error)
            elif selected:
                account.leave_out(origin, error)
    account.used = len(results)
    account.check()
    return results, account
