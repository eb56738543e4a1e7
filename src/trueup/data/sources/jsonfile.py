"""Read JSON Lines files, and JSON lists one element at a time: memory holds one element of a list of any length.

A list may stand in an object, as in {"version": 1, "data": [{…}, …]}: the object's only list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, cast

from trueup.data.rendering.messages import Origin, row_error
from trueup.data.sources import decoding
from trueup.data.sources.decoding import Break, Entry, Tally
from trueup.data.sources.records import FIELDS
from trueup.errors import DataError
from trueup.system.text import as_json, excerpt, type_name

CHUNK = 2**16
"""Bytes of a JSON list that are read at a time."""
MARGIN = 16  # the longest literal that a piece's end can cut: -Infinity, or an escape such as \ud83d
SPACE = re.compile(r"[ \t\n\r]*")
_KEY = re.compile(r'[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*')
_LIST_OF_OBJECTS = re.compile(r"\[\s*(?=\{)")
_SPEAKER = ("role", "from")
LINES, LIST = "write one JSON object per line", "write a JSON list of objects"


class RepeatedKeyError(ValueError):
    """Error for a JSON object that has a key twice, of which only the last value would count."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return row


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def json_lines(name: str, handle: BinaryIO, tally: Tally) -> Iterator[Entry]:
    """Yield the JSON object of each line that is not blank, as a row's fields, or the error of that line."""
    for origin, text in decoding.plain_lines(name, handle, tally):
        yield origin, text if isinstance(text, DataError) else _parsed(origin, text.rstrip("\r\n"))


def _parsed(origin: Origin, line: str) -> dict[str, object] | DataError:
    try:
        value = DECODER.decode(line)
    except json.JSONDecodeError as error:
        mark = decoding.mark_inside(origin, line)
        fix = _line_fix(line, error.pos, error.msg)
        return mark or _broken(origin, line, error.pos, error.colno, error.msg, fix)
    except (ValueError, RecursionError) as error:
        return _unreadable(origin, error, LINES, line)
    return cast("dict[str, object]", value) if type(value) is dict else _not_object(origin, value)


def _not_object(origin: Origin, value: object) -> DataError:
    fix = 'write {"field": value, …}; a list of rows goes in a .json file'
    return row_error(origin, f"a row must be a JSON object, this is {type_name(value)}", fix, as_json(value))


def _unreadable(origin: Origin, error: Exception, fix: str, value: str | None = None) -> DataError:
    """Return the row error for a repeated key, an integer of over 4,300 digits, or brackets nested too deep."""
    if isinstance(error, RepeatedKeyError):
        problem = f"key {excerpt(str(error))} occurs twice in one object"
        return row_error(origin, problem, "keep one: only the last would count")
    reason = "brackets nested too deep" if isinstance(error, RecursionError) else "a number of more than 4,300 digits"
    return row_error(origin, f"JSON that cannot be read: {reason}", fix, value)


def _broken(origin: Origin, text: str, pos: int, column: int, message: str, fix: str) -> DataError:
    near = text[max(0, pos - 30) : pos + 30] or None
    return row_error(
        origin, f"broken JSON at column {column}: {message}", _fix_of_mistake(text, pos, message) or fix, near
    )


def _fix_of_mistake(text: str, pos: int, message: str) -> str | None:
    """Return the advice for a common mistake in JSON, such as single quotes or a trailing comma; else None."""
    char, line = text[pos : pos + 1], text.strip()
    if line.startswith(("#", "//", "/*")) or char in ("#", "/"):
        return "remove the comment: JSON has none"
    if char == "'":
        return "write double quotes: json.dumps does, Python's str and repr do not"
    if re.match(r"(True|False|None|undefined)\b", text[pos:]):
        return "write true, false or null"
    if "trailing comma" in message or (char in ("}", "]") and text[:pos].rstrip().endswith(",")):
        return "remove the comma before the bracket that closes"
    if "control character" in message:
        return r"write line breaks and tabs within strings as \n and \t"
    if message.startswith(r"Invalid \escape"):
        return "double the backslash"
    return None


def _line_fix(line: str, pos: int, message: str) -> str:
    """Return the advice for a line that is not one whole JSON object, e.g. because the object spans several lines."""
    text = line.strip()
    if text == "{" or text.startswith("["):
        return f"{LINES}; a list of rows goes in a .json file"
    if message == "Extra data":
        cr = "end lines with LF or CRLF, not with CR alone"
        return cr if "\r" in text else f"{LINES}: this one goes on after its end"
    return f"{LINES}: this one ends early" if _ends_early(line, pos, message) else LINES


def _ends_early(text: str, pos: int, message: str) -> bool:
    return pos >= len(text) or message.startswith("Unterminated string")


class _Window:
    """The part of a JSON file that is in memory, with its line and column numbers for error messages.

    `text` is the part in memory; the characters before the index `position` were parsed already.
    """

    def __init__(self, name: str, handle: BinaryIO, size: int) -> None:
        self.name, self.size = name, size
        self.text, self.position, self.ended = "", 0, False
        self._line, self._column = 1, 0  # of text[0]: its line, characters of that line before it
        self._chunks = decoding.text_chunks(name, handle, size)

    def grow(self) -> bool:
        """Drop the text before `position`, and read on until the rest has at least doubled.

        Return False at the end of the file.
        """
        gone = self.text[: self.position]
        self._column = len(gone) - gone.rfind("\n") - 1 + (0 if "\n" in gone else self._column)
        self._line += gone.count("\n")
        rest = [self.text[self.position :]]
        have, want = len(rest[0]), max(2 * len(rest[0]), 1)
        while have < want and not self.ended:
            more = next(self._chunks, None)
            self.ended = more is None
            rest.append(more or "")
            have += len(more or "")
        grown = have > len(rest[0])
        self.text, self.position = "".join(rest), 0
        return grown

    def skip_space(self) -> str:
        """Move to the next character that is not a space and return it, or "" at the end of the file."""
        while True:
            self.position = cast("re.Match[str]", SPACE.match(self.text, self.position)).end()
            if self.position < len(self.text) or not self.grow():
                return self.text[self.position : self.position + 1]

    def skip(self, char: str) -> None:
        """Move behind the next character that is not a space.

        Raises:
            Break: it is not `char`.
        """
        if self.skip_space() != char:
            raise self.broken(self.position, f"Expecting '{char}'")
        self.position += 1

    def broken(self, pos: int, message: str) -> Break:
        """Return the Break (end of reading) for broken JSON at `text[pos]`, with its line and column."""
        start = self.text.rfind("\n", 0, pos) + 1
        column = pos - start + 1 + (0 if start else self._column)
        origin = Origin(self.name, self._line + self.text.count("\n", 0, pos))
        near = max(0, pos - 200)
        fix = "check that the file was written to the end" if _ends_early(self.text, pos, message) else LIST
        return Break(origin, _broken(origin, self.text[near : pos + 200], pos - near, column, message, fix))

    def key(self) -> object:
        """Return a key of an object, and move behind its colon."""
        self.skip_space()
        key = self.value(1)
        self.skip(":")
        return key

    def second_list(self) -> Break:
        """Return the Break (end of reading) for a further list behind the list of rows."""
        origin = Origin(self.name, self._line + self.text.count("\n", 0, self.position))
        fix = 'write one list alone, [{…}, …], or under a key, {"data": [{…}, …]}'
        near = self.text[self.position : self.position + 60]
        return Break(origin, row_error(origin, "another list follows the list of rows", fix, near))

    def value(self, number: int) -> object:
        """Return the JSON value at `position`, and move behind it; `number` is its place in the list, for errors.

        Raises:
            Break: the JSON is broken, or the value is longer than LINE_LIMIT.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    raise self.broken(error.pos, error.msg) from None
            except (ValueError, RecursionError) as error:
                origin = Origin(self.name, number)
                raise Break(origin, _unreadable(origin, error, LIST)) from None
            else:
                # A number may continue after the window, also with e-5: the text after it must be in memory.
                if end + MARGIN < len(self.text) or self.ended:
                    self.position = end
                    return value
            if len(self.text) - self.position > decoding.LINE_LIMIT:
                start = self.text[self.position : self.position + 60]
                raise decoding.too_long(Origin(self.name, number), "row", start)
            self.grow()

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        near_end = _ends_early(self.text, error.pos + MARGIN, error.msg)
        return near_end and not self.ended


def key_of_rows(handle: BinaryIO) -> str | None:
    """Return the key under which a JSON object holds the list of a file's rows, e.g. "data"; None: it is not one.

    Before the list there may be other values, such as a version, but no field of a row, and no other list.
    A row of JSON Lines may begin in the same way: its key is a field of rows, its list holds messages, or other rows
    follow on further lines. The handle is left at the beginning.
    """
    key: str | None = None
    with suppress(*decoding.UNREADABLE, ValueError, RecursionError):  # the error is told when the rows are read
        text = handle.read(CHUNK).decode("utf-8", "ignore").removeprefix("\ufeff")
        key, start = _list_in(text)
        if key is not None and (key in FIELDS or _of_one_row(text, start) or _further_row(handle)):
            key = None
    handle.seek(0)
    return key


def _list_in(text: str) -> tuple[str | None, int]:
    """Return the key of the first list of objects in a JSON object, and the place of the list's first object.

    The key is None if there is no such list, or what stands before it is a row's.
    """
    position = cast("re.Match[str]", SPACE.match(text)).end()
    while match := _KEY.match(text, position):
        key = json.loads(match[1], strict=False)
        if found := _LIST_OF_OBJECTS.match(text, match.end()):
            return key, found.end()
        value, end = json.JSONDecoder(strict=False).raw_decode(text, match.end())
        if isinstance(value, list) or key in FIELDS:
            break
        position = cast("re.Match[str]", SPACE.match(text, end)).end()
    return None, 0


def _of_one_row(text: str, start: int) -> bool:
    """Return True if the list whose first object is at `start` is the field of a row, and not a list of rows."""
    names = re.match(r'\{\s*"(\w+)"', text[start:])
    return names is not None and names[1] in (*_SPEAKER, "content", "value")


def _further_row(handle: BinaryIO) -> bool:
    """Return True if the first line is a whole JSON object and others follow."""
    handle.seek(0)
    line = handle.readline(decoding.LINE_LIMIT)
    following = next((text for text in iter(lambda: handle.readline(CHUNK), b"") if text.strip()), b"")
    return line.endswith(b"\n") and line.rstrip().endswith(b"}") and following.lstrip().startswith(b"{")


def json_list(name: str, handle: BinaryIO, size: int = CHUNK, *, inside: bool = False) -> Iterator[Entry]:
    """Yield the objects of a JSON list as the fields of rows; a row's `line` is its number in the list, from 1.

    With `inside` the list is the only list in an object.

    An element that is not an object gives an error in its place; broken JSON raises Break, with its line.
    """
    for origin, value in list_values(name, handle, size, inside=inside):
        yield origin, cast("dict[str, object]", value) if type(value) is dict else _not_object(origin, value)


def list_values(
    name: str, handle: BinaryIO, size: int = CHUNK, *, inside: bool = False
) -> Iterator[tuple[Origin, object]]:
    """Yield (place, value) for each element of the JSON list in `handle`; `size` bytes are read at a time.

    With `inside` the list is the only list in an object.
    """
    window = _Window(name, handle, size)
    if inside:
        window.skip("{")
        while window.key() is not None and window.skip_space() != "[":
            window.value(1)
            window.skip(",")
    window.skip("[")
    number = 0
    follows = window.skip_space()
    while follows != "]":
        number += 1
        yield Origin(name, number), window.value(number)
        follows = window.skip_space()
        if follows not in (",", "]"):
            raise window.broken(window.position, "Expecting ',' delimiter")
        if follows == ",":
            window.position += 1
            window.skip_space()
    window.position += 1
    if inside:
        while window.skip_space() == ",":
            window.position += 1
            if window.key() is not None and window.skip_space() == "[":
                raise window.second_list()
            window.value(1)
        window.skip("}")
    if window.skip_space():
        raise window.broken(window.position, "Extra data")
