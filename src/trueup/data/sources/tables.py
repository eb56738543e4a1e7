"""Read the rows of CSV and Parquet files, and number the rows of data sets."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trueup.data.rendering.messages import Origin, row_error
from trueup.data.sources import decoding
from trueup.data.sources.decoding import Break, Entry, Tally
from trueup.errors import DataError, MissingExtraError
from trueup.system.commandline import install_command
from trueup.system.text import excerpt, printable

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]

BATCH = 256
"""Rows of a Parquet file that are in memory at a time."""


def csv_rows(name: str, handle: BinaryIO, tally: Tally, delimiter: str) -> Iterator[Entry]:
    """Yield the rows of a CSV file with a header, as their place and {column: cell}, or the error of the row.

    The place has the line that a row starts on. A row that breaks the CSV syntax raises Break, which ends the reading.
    """
    size = _RowSize()
    reader = csv.reader(_csv_lines(name, handle, size), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        start = size.line = reader.line_num + 1
        size.bytes = 0
        cells = _next_cells(reader, Origin(name, start))
        if cells is None:
            return
        if not cells:
            tally.blank += 1
        elif not header:
            header = _checked_header(cells, Origin(name, start))
        else:
            origin = Origin(name, start)
            fits = len(cells) == len(header)
            yield origin, dict(zip(header, cells, strict=True)) if fits else _ragged(origin, cells, header)


@dataclass(slots=True)
class _RowSize:
    """The first line of the CSV row being read, and its bytes so far: quoted cells may span any number of lines."""

    bytes: int = 0
    line: int = 1


def _csv_lines(name: str, handle: BinaryIO, size: _RowSize) -> Iterator[str]:
    for number, raw in enumerate(decoding.raw_lines(name, handle), 1):
        origin = Origin(name, number)
        if size.bytes > decoding.LINE_LIMIT + 64:  # one endless cell is refused by csv itself before this
            raise decoding.too_long(Origin(name, size.line), "row")
        size.bytes += len(raw)
        text = decoding.decoded(origin, raw)
        error = text if isinstance(text, DataError) else decoding.mark_inside(origin, text)
        if error is not None:
            raise Break(origin, error)
        yield str(text)


def _next_cells(reader: Iterator[list[str]], origin: Origin) -> list[str] | None:
    """Return the cells of the next CSV row; None at the end of the file.

    The csv module has one limit of cell size for all readers, so it is changed for this row only.
    """
    before = csv.field_size_limit(decoding.LINE_LIMIT)
    try:
        return next(reader, None)
    except csv.Error as error:
        fix = "close every quote; double those inside"
        if "new-line character" in str(error):
            fix = "end lines with LF or CRLF, not with CR alone"
        problem = f"broken CSV: {excerpt(str(error), 80)[1:-1]}"
        raise Break(origin, row_error(origin, problem, fix)) from None
    finally:
        csv.field_size_limit(before)


def _checked_header(cells: list[str], origin: Origin) -> list[str]:
    repeated = next((name for name in cells if cells.count(name) > 1), None) if len(set(cells)) < len(cells) else None
    if repeated is not None:
        raise Break(origin, row_error(origin, f"column {excerpt(repeated)} occurs twice", "name each column once"))
    return cells


def _ragged(origin: Origin, cells: list[str], header: list[str]) -> DataError:
    problem = f"the row has {len(cells)} cells, the header {len(header)}"
    return row_error(origin, problem, "quote cells that hold the delimiter or a line break", ", ".join(cells[:20]))


def numbered(name: str, rows: Iterable[Mapping[str, object]]) -> Iterator[Entry]:
    """Yield (place, fields) for each row of a data set; the place has the row's number, from 1, as its line.

    Raises:
        Break: the next row cannot be loaded.
    """
    number = 0
    try:
        for row in rows:
            fields = dict(row)
            number += 1
            yield Origin(name, number), fields
    except Exception as error:
        raise rows_end(Origin(name, number + 1), error) from error


def rows_end(origin: Origin, error: BaseException) -> Break:
    """Return the Break (end of reading) for a row that could not be loaded because of `error`."""
    reason = excerpt(f"{type(error).__name__}: {decoding.cannot_read(error)}", 200)[1:-1]
    return Break(
        origin, row_error(origin, f"cannot be read from here: {reason}", "check that it is whole, get it again")
    )


def open_parquet(path: Path) -> ParquetFile:
    """Open a Parquet file and read its footer, which lists the columns.

    Raises:
        DataError: the file is not Parquet, is damaged, or has a column twice.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        fix = install_command("data")
        raise MissingExtraError(f"{printable(path)}: Parquet files need pyarrow\n  fix: {fix}") from error
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**16)  # a row group may be the whole file
        columns = list(file.schema_arrow.names)
    except Exception as error:
        reason = excerpt(decoding.cannot_read(error), 120)
        raise DataError(f"{printable(path)}: not a readable Parquet file: {reason}\n  fix: write it again") from error
    repeated = next((name for name in columns if columns.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{printable(path)}: column {excerpt(repeated)} occurs twice\n  fix: name each column once")
    return file


def parquet_rows(path: Path, tally: Tally) -> Iterator[Entry]:
    """Yield the rows of a Parquet file, as their place and fields, or the error of the row.

    The place has the row's number, from 1, as its line.
    """
    name, size = printable(path), path.stat().st_size
    with open_parquet(path) as file:
        total, number = max(file.metadata.num_rows, 1), 0
        batches = _guarded(file.iter_batches(batch_size=BATCH, use_threads=False), lambda: Origin(name, number + 1))
        for batch in batches:
            for row in _batch_rows(batch):
                number += 1
                origin = Origin(name, number)
                yield origin, row if isinstance(row, dict) else rows_end(origin, row).error
            done = size * number // total
            tally.position = lambda done=done: done
        tally.position = int


def _guarded(batches: Iterator[Any], next_origin: Callable[[], Origin]) -> Iterator[Any]:
    """Yield the batches of a Parquet file; an error of reading the next one is raised as a Break at `next_origin()`."""
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            raise rows_end(next_origin(), error) from error
        if batch is None:
            return
        yield batch


def _batch_rows(batch: Any) -> list[dict[str, object] | Exception]:
    """Return the rows of a Parquet batch as dicts.

    In place of a row that cannot be converted (not UTF-8) stands its error.
    """
    try:
        if batch.nbytes > decoding.LINE_LIMIT and batch.num_rows == 1:
            raise ValueError(f"a row of more than {decoding.LINE_LIMIT:,} bytes")
        if batch.nbytes > decoding.LINE_LIMIT:  # one row at a time: one of them may be as large
            return [row for index in range(batch.num_rows) for row in _batch_rows(batch.slice(index, 1))]
        rows: list[dict[str, object] | Exception] = batch.to_pylist()
    except Exception as error:  # noqa: BLE001 - as in `open_parquet`
        if batch.num_rows == 1:
            return [error]
        rows = [row for index in range(batch.num_rows) for row in _batch_rows(batch.slice(index, 1))]
    return rows
