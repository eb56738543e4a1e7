"""Read files as lines of text: gzip is unpacked, bytes are decoded, and at most one line is in memory.

A file that cannot be read to its end (a broken gzip, an endless line) raises `Break`, which carries the line's number.
"""

from __future__ import annotations

import codecs
import functools
import gzip
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from trueup.data.rendering.messages import Origin, row_error
from trueup.errors import DataError
from trueup.system.text import printable

Entry = tuple[Origin, "dict[str, object] | DataError"]
LINE_LIMIT = 64 * 2**20
"""Bytes that a line, a cell of CSV or an element of a JSON list may have: some 16 million tokens."""
GZIP = b"\x1f\x8b"
UNREADABLE = (OSError, EOFError, zlib.error)
KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))


class Break(Exception):  # noqa: N818 - not an error for users: it carries one to the code that makes entries
    """Exception that ends the reading of a file; it carries the unreadable place and the error for the user."""

    def __init__(self, origin: Origin, error: DataError) -> None:
        super().__init__(str(error))
        self.origin, self.error = origin, error


@dataclass(slots=True)
class Tally:
    """Progress of reading the files of a source.

    It holds the number of blank lines skipped, the bytes of finished files, and the position in the present file.
    """

    blank: int = 0
    finished: int = 0
    position: Callable[[], int] = int

    @property
    def bytes(self) -> int:
        """The number of bytes read so far; for gzip files, compressed bytes."""
        return self.finished + self.position()


@contextmanager
def opened(path: Path, tally: Tally) -> Iterator[BinaryIO]:
    """Open a regular file for reading bytes, unpack it if it is gzip, and report the position to `tally`.

    Raises:
        DataError: `path` is not a regular file. A pipe could block for ever, and can be read only once.
        OSError: the file cannot be opened.
    """
    refuse_special(path)
    with path.open("rb") as file:
        tally.position = file.tell
        try:
            packed = file.peek(2)[:2] == GZIP
            yield cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
        finally:
            tally.position = int


def refuse_special(path: Path) -> None:
    """Raise DataError if `path` is not a regular file, e.g. a folder or a pipe."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS if is_kind(mode)), "a device")
        raise DataError(f"{printable(path)}: this is {kind}, not a file\n  fix: write its content to a file first")


def cannot_read(error: BaseException) -> str:
    """Return the text of an OSError or gzip error for a message, without the path that such an error may repeat."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error).strip()


def raw_lines(name: str, handle: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of an open file as bytes, with their line ends; `name` is the file's name for errors.

    Raises:
        Break: a line is longer than LINE_LIMIT, or the file cannot be read on.
    """
    number = 0
    try:
        for raw in iter(functools.partial(handle.readline, LINE_LIMIT + 1), b""):
            number += 1
            if len(raw) > LINE_LIMIT:
                raise too_long(Origin(name, number), "line", raw[:60].decode("utf-8", "replace"))
            yield raw
    except UNREADABLE as error:
        raise unreadable(Origin(name, number + 1), error) from error


def too_long(origin: Origin, noun: str, value: str | None = None) -> Break:
    """Return the Break (end of reading) for a line, cell or row (`noun`) of more than LINE_LIMIT bytes."""
    problem = f"a {noun} of more than {LINE_LIMIT:,} bytes"
    return Break(origin, row_error(origin, problem, "write one row per line, and check that each ends", value))


def unreadable(origin: Origin, error: BaseException) -> Break:
    """Return the Break (end of reading) for a place where the disk or gzip fails."""
    fix = "check the file and its permissions, or get it again"
    return Break(origin, row_error(origin, f"cannot be read from here: {cannot_read(error)}", fix))


def decoded(origin: Origin, raw: bytes) -> str | DataError:
    """Return a line as text, or the error if it is not UTF-8 or holds a NUL byte.

    The line end is kept; a byte order mark at the start of the file is removed.
    """
    try:
        text = raw.decode("utf-8-sig" if origin.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(origin, raw, error)
    if "\0" in text:
        return _holds_nul(origin, text)
    return text


def _not_utf8(origin: Origin, raw: bytes, error: UnicodeDecodeError, before: int = 0) -> DataError:
    near = raw[max(0, error.start - 20) : error.start + 20].decode("latin-1")
    problem = f"byte {before + error.start + 1} of the line is not UTF-8"
    return row_error(origin, problem, "save the file as UTF-8", near)


def _holds_nul(origin: Origin, text: str) -> DataError:
    fix = "the file is damaged or UTF-16: write it again as UTF-8"
    return row_error(origin, "the line holds NUL bytes", fix, text)


def mark_inside(origin: Origin, text: str) -> DataError | None:
    """Return an error if a line begins with a byte order mark (only the first line of a file may), else None."""
    if not text.startswith("\ufeff"):
        return None
    fix = "remove it: files were joined, each with its mark"
    return row_error(origin, "a byte order mark inside of the file", fix, text.strip())


def plain_lines(name: str, handle: BinaryIO, tally: Tally) -> Iterator[tuple[Origin, str | DataError]]:
    """Yield each line that is not blank, as its place (file and line) and its text, or the error of decoding it.

    The blank lines are counted in `tally`.
    """
    for number, raw in enumerate(raw_lines(name, handle), 1):
        origin = Origin(name, number)
        text = decoded(origin, raw)
        if isinstance(text, str) and not text.strip():
            tally.blank += 1
        else:
            yield origin, text


def text_lines(name: str, handle: BinaryIO, tally: Tally) -> Iterator[Entry]:
    """Yield a row {"text": line} for every line of a .txt file that is not blank, or the error of that line."""
    for origin, text in plain_lines(name, handle, tally):
        if isinstance(text, DataError):
            yield origin, text
            continue
        line = text.rstrip("\r\n")
        if "\r" in line:
            fix = "end lines with LF or CRLF: it is unclear whether CR alone ends one"
            yield origin, row_error(origin, "a CR within the line", fix, line)
        else:
            yield origin, mark_inside(origin, line) or {"text": line}


def text_chunks(name: str, handle: BinaryIO, size: int) -> Iterator[str]:
    """Yield the text of a file in pieces of about `size` bytes; `name` is the file's name for errors.

    Raises:
        Break: a line cannot be read, is not UTF-8, or holds a NUL byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, before, pending = 1, 0, b""  # of the piece's first byte: its line, bytes of that line before it; undecoded
    first = True
    while True:
        origin = Origin(name, line)
        try:
            raw = handle.read(size)
            text = decoder.decode(raw, final=not raw)
        except UNREADABLE as error:
            raise unreadable(origin, error) from error
        except UnicodeDecodeError as error:
            raise _bad_piece(name, pending + raw, error, line, before) from None
        nul = text.find("\0")
        if nul >= 0:
            origin = Origin(name, line + text.count("\n", 0, nul))
            raise Break(origin, _holds_nul(origin, text[max(0, nul - 20) : nul + 20]))
        pending = decoder.getstate()[0]
        line += text.count("\n")
        before = len(text[text.rfind("\n") + 1 :].encode()) if "\n" in text else before + len(text.encode())
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text
        if not raw:
            return


def _bad_piece(name: str, piece: bytes, error: UnicodeDecodeError, line: int, before: int) -> Break:
    """Return the Break (end of reading) for a byte that is not UTF-8, with its line and its position in that line.

    `piece` begins in line number `line`, after `before` bytes of that line; `error.start` counts from the piece's
    start.
    """
    start = piece.rfind(b"\n", 0, error.start) + 1
    origin = Origin(name, line + piece.count(b"\n", 0, error.start))
    within = UnicodeDecodeError("utf-8", piece[start:], error.start - start, error.end - start, error.reason)
    return Break(origin, _not_utf8(origin, piece[start:], within, 0 if start else before))


FOREIGN: tuple[tuple[str, str, str], ...] = (
    (r"\xff\xfe\x00\x00|\x00\x00\xfe\xff", "encoded as UTF-32", "save it as UTF-8"),
    (r"\xff\xfe|\xfe\xff", "encoded as UTF-16", "save it as UTF-8"),
    (r"\s*PAR1", "a Parquet file", "name it .parquet"),
    (r"PK(\x03\x04|\x05\x06)", "a zip file", "unpack it"),
    (r"\xfd7zXZ\x00", "an xz file", "unpack it, or pack it with gzip"),
    (r"\x28\xb5\x2f\xfd", "a zstd file", "unpack it, or pack it with gzip"),
    (r"BZh[1-9](1AY&SY|\x17rE8P\x90)", "a bzip2 file", "unpack it, or pack it with gzip"),
    (r"\x04\x22\x4d\x18", "an lz4 file", "unpack it, or pack it with gzip"),
    (r"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (r"\x1f\x8b", "packed by gzip once too often", "unpack it"),
    (r"(?s).{257}ustar", "a tar archive", "unpack it"),
    (r"ARROW1\x00", "an Arrow file", "write it as Parquet"),
    (r"SQLite format 3\x00", "an SQLite database", "export its rows"),
    (r"%PDF-", "a PDF", "extract its text"),
    (r"\s*version https://git-lfs", "a Git LFS pointer, not the data", "run git lfs pull"),
)
MARKUP = r"\s*<(!doctype|html|\?xml|head|body|error)\b"


def refuse_foreign(name: str, head: bytes, kind: str) -> None:
    """Raise DataError if a file is of another kind than its suffix (`kind`) says, e.g. a zip archive named .jsonl.

    The kind is recognised from the file's first bytes, `head`.
    """
    start = head.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    rules = [rule for rule in FOREIGN if kind != ".parquet" or rule[1] != "a Parquet file"]
    if kind != ".txt":
        rules.append((f"(?i){MARKUP}", "an HTML or XML page, not data", "download the file itself (its raw link)"))
    for pattern, problem, fix in rules:
        if re.match(pattern, start):
            text = head[:60].decode("utf-8", "replace").strip()
            is_text = "\ufffd" not in text and all(c.isprintable() or c.isspace() for c in text)
            raise row_error(Origin(name, 1), problem, fix, text if is_text else None)
