"""Tokenized rows on disk: written once, read a row at a time, so that memory does not grow with their number.

A folder of plain arrays: tokens.u32 (ids, the top bit set where trained), records.bin (`record.RECORD`, one a row),
signatures.u32 (32 a row), texts.json (each row's messages) and meta.json, which is last and holds the others' sizes and
sha256, and its own: a folder without it, or whose files are not as it says, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trueup.data.example import Branch, Example
from trueup.data.rendering.messages import Message, Origin
from trueup.data.tokens.duplicates import PLACES
from trueup.data.tokens.pack import Packed
from trueup.data.tokens.record import RECORD, TRAINED, Records
from trueup.errors import DataError
from trueup.system.files import atomic_write_text, file_sha256

FILES = ("tokens.u32", "records.bin", "signatures.u32", "texts.json")
_SCAN = 8_192  # records read at once


class Writer:
    """Appends chunks to the files of a folder that is not there yet."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir(parents=True)
        self.folder = folder
        self._handles: list[IO[bytes]] = [(folder / name).open("wb") for name in FILES]
        self._tokens = self._bytes = 0
        self._names: dict[str, int] = {}
        self._scalars = hashlib.sha256()

    def add(self, chunk: Packed) -> None:
        """Append a chunk's rows."""
        records = chunk.records
        records["at"] += self._tokens
        records["text_at"] += self._bytes
        records["file"] = [self._names.setdefault(name, len(self._names)) for name in chunk.files]
        self._tokens += len(chunk.tokens)
        self._bytes += len(chunk.texts)
        self._scalars.update(records["scalar"].tobytes())
        parts = (chunk.tokens.tobytes(), records.tobytes(), chunk.signatures.tobytes(), chunk.texts)
        for handle, part in zip(self._handles, parts, strict=True):
            handle.write(part)

    def close(self, meta: dict[str, Any]) -> None:
        """Write meta.json: `meta` with the rows' files, and size and sha256 of each file written."""
        for handle in self._handles:
            handle.close()
        paths = [self.folder / name for name in FILES]
        stored = {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in paths}
        told = {"names": list(self._names), "stored": stored, "scalars": self._scalars.hexdigest()}
        write_sealed(self.folder / "meta.json", {**meta, **told})

    def abandon(self) -> None:
        """Close the files of a folder that will not be finished."""
        for handle in self._handles:
            with suppress(OSError):  # of a full disk: what is still unwritten fails once more
                handle.close()


def write_sealed(path: Path, told: dict[str, Any]) -> None:
    """Write a mapping as JSON, with a hash of itself."""
    atomic_write_text(path, json.dumps({"seal": _seal(told), **told}, indent=1))


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not as it was written.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        told = None
    if not isinstance(told, dict) or told.pop("seal", None) != _seal(told):
        raise ValueError(f"{path} is not as it was written")
    return told


def _seal(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Tokenized:
    """The rows of one data section as tokens, read from a folder that a `Writer` closed.

    Its files are open from the beginning: another process may tidy them away (Linux keeps what is open). Picklable:
    the copy opens them when it reads.
    """

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            OSError: a file is not there.
            ValueError: it is not whole.
        """
        self.folder = folder
        self.event: int | None = None  # of a store of rankings, at which it was read
        # Descriptors, not file objects: collected in a cycle, those warn before `__del__` can close them.
        self._opened: dict[str, int] = {}
        self._stamps: dict[str, tuple[int, int]] = {}  # of what the hash was taken of
        self.meta: dict[str, Any] = read_sealed(folder / "meta.json")
        if not _is_meta(self.meta):
            raise ValueError(f"{folder / 'meta.json'} is not of this version")
        for name, stored in self.meta["stored"].items():
            opened = self._open(name)
            self._stamps[name] = _stamp(opened)
            if (folder / name).stat().st_size != stored["size"] or _sha256(opened) != stored["sha256"]:
                raise ValueError(f"{folder / name} is not as it was written")
        self._size = self.meta["stored"]["records.bin"]["size"] // RECORD.itemsize

    def __len__(self) -> int:
        """How many rows there are."""
        return self._size

    def __del__(self) -> None:
        """Close what was opened."""
        for opened in getattr(self, "_opened", {}).values():
            os.close(opened)

    @property
    def fingerprint(self) -> str:
        """What tokens, texts, labels and margins are, whatever made them: changes when a row or the tokenizer does."""
        hashes = [self.meta["stored"][name]["sha256"] for name in ("tokens.u32", "texts.json")]
        return "-".join(one[:16] for one in (*hashes, self.meta["scalars"]))

    def record(self, row: int) -> Any:
        """One row's record."""
        raw = self._read("records.bin", row * RECORD.itemsize, RECORD.itemsize)
        return np.frombuffer(raw, RECORD)[0]

    def records(self) -> Iterator[tuple[int, Records]]:
        """All records in order, (first row, some records) at a time."""
        for start in range(0, len(self), _SCAN):
            count = min(_SCAN, len(self) - start)
            raw = self._read("records.bin", start * RECORD.itemsize, count * RECORD.itemsize)
            yield start, np.frombuffer(raw, RECORD)

    def signatures(self, start: int, count: int) -> NDArray[np.uint32]:
        """(count, 32) signatures from a row on."""
        width = 4 * PLACES
        raw = self._read("signatures.u32", start * width, count * width)
        return np.frombuffer(raw, np.uint32).reshape(-1, PLACES)

    def example(self, row: int) -> Example:
        """One row's tokens."""
        record = self.record(row)
        trunk, sizes = int(record["trunk"]), [int(record["first"])]
        if record["second"] >= 0:
            sizes.append(int(record["second"]))
        total = trunk + sum(sizes)
        marked = np.frombuffer(self._read("tokens.u32", int(record["at"]) * 4, total * 4), np.uint32)
        ids, mask = (marked & ~TRAINED).tolist(), (marked & TRAINED).astype(bool).tolist()
        branches, start = [], trunk
        for size in sizes:
            branches.append(Branch(ids[start : start + size], mask[start : start + size]))
            start += size
        return Example(ids[:trunk], tuple(branches), row=row)

    def origin(self, row: int) -> Origin:
        """Where a row came from."""
        return self.origin_of(self.record(row))

    def origin_of(self, record: Any) -> Origin:
        """Where a record's row came from."""
        try:
            return Origin(self.meta["names"][int(record["file"])], int(record["line"]))
        except IndexError:
            raise self._odd("records.bin") from None

    def parts(self, row: int) -> list[list[list[str]]]:
        """A row's messages: its prompt, then what answers it, each as [role, content]."""
        record = self.record(row)
        raw = self._read("texts.json", int(record["text_at"]), int(record["text_size"]))
        try:
            return json.loads(raw.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            raise self._odd("texts.json") from None

    def prompt(self, row: int) -> tuple[Message, ...]:
        """The messages of a row's prompt; a document has none."""
        return tuple(Message(role, content) for role, content in self.parts(row)[0] if role != "text")

    def _open(self, name: str) -> int:
        if name not in self._opened:
            self._opened[name] = os.open(self.folder / name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self._opened[name]

    def _read(self, name: str, at: int, size: int) -> bytes:
        """Read without a mapping: mapped pages would count as this process's memory, and grow with the rows seen.

        Raises:
            DataError: the file is no longer the one that was found whole: other rows would be trained, unsaid.
        """
        opened = self._open(name)
        if not 0 <= at <= at + size <= self.meta["stored"][name]["size"]:
            raise self._odd(name)
        os.lseek(opened, at, os.SEEK_SET)
        found = os.read(opened, size)
        while 0 < len(found) < size and (more := os.read(opened, size - len(found))):
            found += more
        if len(found) != size or not self._as_it_was(name, opened):
            raise self._odd(name)
        return found

    def _odd(self, name: str) -> DataError:
        """Whole when it was opened, another now, or sealed by somebody else."""
        fix = "run again; it is made anew. If that does not help, remove the folder"
        return DataError(f"{self.folder / name}: it was changed while it is in use\n  fix: {fix}")

    def _as_it_was(self, name: str, opened: int) -> bool:
        """Whether a file still holds what was found whole; it is only read again where its time or size changed."""
        stamp = _stamp(opened)
        if stamp != self._stamps[name]:
            if _sha256(opened) != self.meta["stored"][name]["sha256"]:
                return False
            self._stamps[name] = stamp  # touched, or copied
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Without open files."""
        return {**self.__dict__, "_opened": {}}


def _is_meta(meta: dict[str, Any]) -> bool:
    """Whether a sealed meta.json is one of ours: it may name these files and no other."""
    names, stored = meta.get("names"), meta.get("stored")
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not whole or not isinstance(stored, dict) or set(stored) != set(FILES):
        return False
    return all(
        isinstance(one, dict) and isinstance(one.get("size"), int) and "sha256" in one for one in stored.values()
    )


def _stamp(opened: int) -> tuple[int, int]:
    """Size and time of an open file: another one once it was written to."""
    stat = os.fstat(opened)
    return stat.st_size, stat.st_mtime_ns


def _sha256(opened: int) -> str:
    os.lseek(opened, 0, os.SEEK_SET)
    with open(opened, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
