"""Read the entries of a file (JSON Lines, JSON, CSV, text or Parquet): each row's fields, or its error, with the line.

JSON and CSV are read by the standard library and not by `datasets`, because messages have to name the line. A bad line
becomes a DataError in place of its row, so that all of them can be counted; an error that makes the rest of the file
unreadable is its last entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trueup.data.rendering.messages import Origin
from trueup.data.sources.decoding import (
    UNREADABLE,
    Break,
    Entry,
    Tally,
    cannot_read,
    opened,
    refuse_foreign,
    refuse_special,
    text_lines,
)
from trueup.data.sources.jsonfile import json_lines, json_list, key_of_rows
from trueup.data.sources.tables import csv_rows, open_parquet, parquet_rows
from trueup.errors import DataError
from trueup.system.text import excerpt, printable

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")
HEAD = 4096


def kind_of(path: Path) -> str:
    """Return the suffix that decides how a file is read, without a final .gz: ".jsonl" for a.jsonl.gz."""
    return (path.suffixes[-2:-1] or [""])[0].lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def probe(path: Path) -> None:
    """Check that a file is of a known kind, and that its first bytes fit its name.

    Raises:
        DataError: the file cannot be read at all, or is not of the kind that its name says.
        MissingExtraError: the file is Parquet, and pyarrow is not installed.
    """
    kind = kind_of(path)
    try:
        refuse_special(path)
        if kind not in SUFFIXES:
            fix = f"name it one of {' '.join(SUFFIXES)}, or .gz of it"
            raise DataError(f"{printable(path)}: {excerpt(kind or path.suffix)} is not a data format\n  fix: {fix}")
        with path.open("rb") if kind == ".parquet" else opened(path, Tally()) as handle:
            refuse_foreign(printable(path), handle.read(HEAD), kind)
        if kind == ".parquet":
            open_parquet(path).close()
    except UNREADABLE as error:
        fix = "check the file and its permissions"
        raise DataError(f"{printable(path)}: cannot be read: {cannot_read(error)}\n  fix: {fix}") from error


def key_of_list(path: Path) -> str | None:
    """Return the key under which a .json file holds the list of its rows, e.g. "data"; None if it is no such file."""
    if kind_of(path) != ".json":
        return None
    with opened(path, Tally()) as handle:
        return key_of_rows(handle)


def read_file(path: Path, tally: Tally) -> Iterator[Entry]:
    """Yield the place of each row of a file, with its fields or the error of reading it; report progress to `tally`."""
    size = 0
    try:
        size = path.stat().st_size
        yield from _entries(path, tally)
    except Break as end:
        yield end.origin, end.error
    except DataError as error:  # the file has changed since `probe`
        yield Origin(printable(path), 1), error
    except UNREADABLE as error:
        fix = "check the file and its permissions"
        problem = DataError(f"{printable(path)}: cannot be read: {cannot_read(error)}\n  fix: {fix}")
        yield Origin(printable(path), 1), problem
    tally.finished += size


def _entries(path: Path, tally: Tally) -> Iterator[Entry]:
    kind, name = kind_of(path), printable(path)
    if kind == ".parquet":
        yield from parquet_rows(path, tally)
        return
    with opened(path, tally) as handle:
        if kind in (".csv", ".tsv"):
            yield from csv_rows(name, handle, tally, "," if kind == ".csv" else "\t")
        elif kind == ".txt":
            yield from text_lines(name, handle, tally)
        else:
            head = handle.read(HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
            handle.seek(0)
            inside = kind == ".json" and head[:1] == b"{" and key_of_rows(handle) is not None
            if inside or (kind == ".json" and head[:1] == b"["):
                yield from json_list(name, handle, inside=inside)
            else:
                yield from json_lines(name, handle, tally)
