"""Save the rows of a chat to a JSONL file that `trueup.data.sources` reads.

A file holds either conversations or rankings. A row that is already in the file is not written again; a
conversation that went on, or a choice that was reversed, replaces its earlier row.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from trueup.chat.dialogue import ChatRow
from trueup.data.rendering.messages import Conversation, Origin, Preference
from trueup.data.sources.formats import recognise
from trueup.data.sources.records import Record
from trueup.errors import DataError
from trueup.system.files import atomic_write_bytes
from trueup.system.text import home_path

SavedKind = Literal["conversation", "ranking"]
_ESCAPED = frozenset({"Cc", "Cf", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class SaveCounts:
    """Counts after saving to a file: rows added, rows updated, and rows now in the file."""

    added: int
    updated: int
    total: int


class ChatFile:
    """Writes a chat's rows to JSONL files.

    It remembers the rows that this chat wrote to each file, since only those may be replaced by a newer version.
    """

    def __init__(self) -> None:
        """Begin with no rows written."""
        self._own: dict[Path, list[ChatRow]] = {}

    def save(self, path: Path, rows: Sequence[ChatRow], kind: SavedKind) -> SaveCounts:
        """Add `rows` to the JSONL file, which is created if missing; an earlier version of a row is replaced.

        Raises:
            DataError: the name does not end in .jsonl, the file cannot be written, it holds rows of another kind, or a
                new row could not be read together with the file's.
        """
        path = home_path(path).resolve()  # a link stays a link
        if path.suffix != ".jsonl":
            raise DataError(f"{path.name}: rows are saved as JSON lines\n  fix: end the name in .jsonl")
        try:
            return self._save(path, rows, kind)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataError(f"{path}: cannot be saved to: {reason}\n  fix: name another file") from error

    def _save(self, path: Path, rows: Sequence[ChatRow], kind: SavedKind) -> SaveCounts:
        content = path.read_bytes() if path.exists() else b""
        lines = [line for line in content.split(b"\n") if line.strip()]
        _check(path, content, rows, kind)
        session_rows = self._own.setdefault(path, [])
        added = updated = 0
        for row in rows:
            line = as_line(row)
            if line in lines:
                continue
            old = next((past for past in session_rows if as_line(past) in lines and _supersedes(row, past)), None)
            if old is None:
                lines.append(line)
                added += 1
            else:
                lines[lines.index(as_line(old))] = line
                updated += 1
            session_rows.append(row)
        if added or updated:
            _write(path, content, lines[-added:] if not updated else lines, anew=updated > 0)
        return SaveCounts(added, updated, len(lines))


def as_line(row: ChatRow) -> bytes:
    """Return a row as one line of JSON in UTF-8; control and format characters are escaped, letters are not."""
    text = json.dumps(row, ensure_ascii=False)
    # Such characters stand inside strings only: json.dumps itself writes none.
    escaped = (json.dumps(char)[1:-1] if unicodedata.category(char) in _ESCAPED else char for char in text)
    return "".join(escaped).encode()


def _supersedes(new: ChatRow, old: ChatRow) -> bool:
    """Return True if `new` is a later version of row `old`: a conversation that went on, or a reversed choice."""
    if "messages" in new:
        length = len(old["messages"])
        return length < len(new["messages"]) and new["messages"][:length] == old["messages"]
    sides = new["chosen"], new["rejected"]
    return new["prompt"] == old["prompt"] and sides == (old["rejected"], old["chosen"])


def _write(path: Path, content: bytes, lines: Sequence[bytes], *, anew: bool) -> None:
    data = b"".join(line + b"\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    if anew:
        mode = path.stat().st_mode
        atomic_write_bytes(path, data)
        path.chmod(mode)
    else:
        with path.open("ab") as handle:
            handle.write((b"" if not content or content.endswith(b"\n") else b"\n") + data)


def _check(path: Path, content: bytes, rows: Sequence[ChatRow], kind: SavedKind) -> None:
    """Check that the file's first and last line and the new rows can be read as one format, that of `kind`.

    Raises:
        DataError: a row has another format, or the file holds rows of another kind.
    """
    numbered = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    ends = [numbered[0], *numbered[1:][-1:]] if numbered else []
    existing = [(Origin(path.name, number), _parsed(path, number, line)) for number, line in ends]
    after = numbered[-1][0] if numbered else 0
    new = [(Origin(path.name, after + number), row) for number, row in enumerate(rows, 1)]
    form = recognise(existing[0][1] if existing else new[0][1], (kind,))
    for origin, row in [*existing, *new]:
        try:
            parsed = form.parse(Record(row, origin)) if form else None
        except DataError as error:
            problem = str(error).partition("\n")[0]
            raise DataError(f"{problem}\n  fix: /save the {kind}s to another file") from error
        if not isinstance(parsed, Conversation if kind == "conversation" else Preference):
            raise DataError(
                f"{origin}: the file holds no {kind}s, and a file's rows are of one kind\n"
                f"  fix: /save the {kind}s to another file"
            )


def _parsed(path: Path, line: int, content: bytes) -> ChatRow:
    try:
        row = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path.name}:{line}: not JSON: {error}\n  fix: mend the line, or name another file") from error
    if not isinstance(row, dict):
        raise DataError(f"{path.name}:{line}: is no row of named fields\n  fix: name another file")
    return cast("ChatRow", row)
