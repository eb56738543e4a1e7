"""Files to records: JSON Lines, JSON, CSV, text and Parquet, each record with its line.

JSON and CSV are read by the standard library and not by `datasets`, because a message has to name the line. A bad line
becomes a DataError in its place, so that `load` can count them all; what spoils a whole file is raised.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from trueup.chat import Origin, excerpt, row_error
from trueup.errors import DataError, MissingExtraError

Entry = tuple[Origin, "dict[str, object] | DataError"]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")


def read_file(path: Path) -> tuple[list[Entry], int]:
    """-> what each row of the file holds, or is wrong with it; the number of blank lines passed over.

    Raises:
        DataError: the file as a whole cannot be read.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    kind = kind_of(path)
    if kind not in SUFFIXES:
        fix = f"name it one of {' '.join(SUFFIXES)}, or .gz of it"
        raise DataError(f"{path}: {excerpt(path.suffix)} is no data format\n  fix: {fix}")
    try:
        if kind == ".parquet":
            return list(numbered(str(path), _parquet_rows(path))), 0
        with path.open("rb") as file:
            handle = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
            head = handle.read(4096)
            _refuse_foreign(path, head, kind)
            handle.seek(0)
            if kind in (".csv", ".tsv"):
                return list(_csv_rows(path, handle.read(), "," if kind == ".csv" else "\t")), 0
            if kind == ".json" and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                return list(_json_array(path, handle.read())), 0
            return _read_lines(path, handle, is_json=kind != ".txt")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}\n  fix: check the file and its permissions") from error


def kind_of(path: Path) -> str:
    """Suffix that says how to read `path`, a final .gz left out."""
    return (path.suffixes[-2:-1] or [""])[0].lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _refuse_foreign(path: Path, head: bytes, kind: str) -> None:
    """Raise where the first bytes show that the file is not what its name says."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    problem = fix = ""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        problem, fix = "encoded as UTF-16", "save it as UTF-8"
    elif start[:4] in (b"PAR1", b"PK\x03\x04"):
        problem, fix = "a Parquet or zip file", "name it .parquet, or unpack it"
    elif start.startswith(b"version https://git-lfs"):
        problem, fix = "a Git LFS pointer, not the data", "run git lfs pull"
    elif kind != ".txt" and re.match(rb"<(!doctype|html|\?xml|head|body)", start, re.IGNORECASE):
        problem, fix = "an HTML page, not data", "download the file itself (its raw link)"
    if problem:
        raise row_error(Origin(str(path), 1), problem, fix, start[:60].decode("utf-8", "replace") or None)


def _decode(origin: Origin, raw: bytes) -> str | DataError:
    try:
        text = raw.decode("utf-8-sig" if origin.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        near = raw[max(0, error.start - 20) : error.start + 20].decode("latin-1")
        return row_error(origin, f"byte {error.start + 1} of the line is not UTF-8", "save the file as UTF-8", near)
    if "\0" in text:
        return row_error(
            origin, "the line holds NUL bytes", "the file is damaged or UTF-16: write it again as UTF-8", text
        )
    return text


def _read_lines(path: Path, handle: Iterable[bytes], *, is_json: bool) -> tuple[list[Entry], int]:
    entries: list[Entry] = []
    blank = 0
    for number, raw in enumerate(handle, 1):
        origin = Origin(str(path), number)
        text = _decode(origin, raw)
        if isinstance(text, DataError):
            entries.append((origin, text))
        elif not text.strip():
            blank += 1
        else:
            line = text.rstrip("\r\n")
            entries.append((origin, _parse_line(origin, line) if is_json else {"text": line}))
    return entries, blank


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return row


def _parse_line(origin: Origin, line: str) -> dict[str, object] | DataError:
    try:
        return _as_object(origin, json.loads(line, object_pairs_hook=_unique))
    except _RepeatedKeyError as error:
        return _repeated(origin, error)
    except json.JSONDecodeError as error:
        near = line[max(0, error.pos - 30) : error.pos + 30]
        hint = (
            ""
            if not line.lstrip().startswith(("{\n", "[")) and line.strip() != "{"
            else "; a list of rows goes in a .json file"
        )
        return row_error(
            origin, f"broken JSON at column {error.colno}: {error.msg}", f"write one JSON object per line{hint}", near
        )
    except (ValueError, RecursionError) as error:  # an integer of over 4,300 digits, or brackets without end
        return row_error(origin, f"JSON that cannot be read: {error}", "write one JSON object per line", line)


def _repeated(origin: Origin, error: _RepeatedKeyError) -> DataError:
    return row_error(
        origin, f"key {excerpt(str(error))} occurs twice in one object", "keep one: only the last would count"
    )


def _as_object(origin: Origin, value: object) -> dict[str, object] | DataError:
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    return row_error(
        origin,
        f"a row must be a JSON object, this is {type_name(value)}",
        'write {"field": value, …}; a list of rows goes in a .json file',
        as_json(value),
    )


def as_json(value: object) -> str:
    """JSON text of `value`, as the user's file would show it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def type_name(value: object) -> str:
    """JSON's name of the type of `value`, with its article."""
    names = {
        str: "a string",
        list: "a list",
        dict: "an object",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def _json_array(path: Path, raw: bytes) -> Iterator[Entry]:
    """Rows of a JSON list; `line` is the row's number, but for broken JSON the line of the break."""
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        decoded = _decode(Origin(str(path), number), line)
        if isinstance(decoded, DataError):
            raise decoded
    text = raw.decode("utf-8-sig")
    try:
        values = json.loads(text, object_pairs_hook=_unique)
    except _RepeatedKeyError as error:
        raise _repeated(Origin(str(path), 1), error) from None
    except json.JSONDecodeError as error:
        raise row_error(
            Origin(str(path), error.lineno),
            f"broken JSON at column {error.colno}: {error.msg}",
            "write a JSON list of objects",
            text[max(0, error.pos - 30) : error.pos + 30],
        ) from None
    except (ValueError, RecursionError) as error:
        raise row_error(
            Origin(str(path), 1), f"JSON that cannot be read: {error}", "write a JSON list of objects"
        ) from None
    for number, value in enumerate(values, 1):
        origin = Origin(str(path), number)
        yield origin, _as_object(origin, value)


def _csv_rows(path: Path, raw: bytes, delimiter: str) -> Iterator[Entry]:
    """Rows of a CSV file with a header; `line` is the line its row starts on."""
    for number, line in enumerate(raw.split(b"\n"), 1):
        decoded = _decode(Origin(str(path), number), line)
        if isinstance(decoded, DataError):
            raise decoded
    limit = csv.field_size_limit(len(raw) + 1)  # the default refuses cells over 131,072 characters
    reader = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = next(reader, [])
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise row_error(Origin(str(path), 1), f"column {excerpt(twice)} occurs twice", "name each column once")
        start = reader.line_num + 1
        for cells in reader:
            origin = Origin(str(path), start)
            if cells and len(cells) != len(header):
                yield (
                    origin,
                    row_error(
                        origin,
                        f"the row has {len(cells)} cells, the header {len(header)}",
                        "quote cells that hold the delimiter or a line break",
                        ", ".join(cells),
                    ),
                )
            elif cells:
                yield origin, dict(zip(header, cells, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise row_error(
            Origin(str(path), start), f"broken CSV: {error}", "close every quote; double those inside"
        ) from None
    finally:
        csv.field_size_limit(limit)


def numbered(name: str, rows: Iterable[Mapping[str, object]]) -> Iterator[Entry]:
    """`rows` with their 1-based numbers as lines."""
    for number, row in enumerate(rows, 1):
        yield Origin(name, number), dict(row)


def _parquet_rows(path: Path) -> Iterator[dict[str, object]]:
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(f"{path}: Parquet files need pyarrow\n  fix: pip install 'trueup[data]'") from error
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file: {excerpt(str(error))}\n  fix: write it again") from error
