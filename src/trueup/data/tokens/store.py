"""Tokenized rows on disk: written once, read a row at a time, so that memory does not grow with their number.

A folder of plain arrays: tokens.u32 (ids, the top bit set where trained), records.bin (`record.RECORD`, one per row),
signatures.u32 (32 per row), texts.json (each row's messages), and meta.json, written last, with the size and sha256 of
each file and a hash of itself. A folder without meta.json, or with other files than it describes, is made again.
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
    """Writer of a new folder of tokenized rows, to whose files chunks are appended."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and open its files."""
        folder.mkdir(parents=True)
        self.folder = folder
        self._handles: list[IO[bytes]] = [(folder / name).open("wb") for name in FILES]
        self._tokens = self._bytes = 0
        self._names: dict[str, int] = {}
        self._scalars = hashlib.sha256()

    def add(self, chunk: Packed) -> None:
        """Append the rows of a tokenized chunk to the files."""
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
        """Finish the folder by writing meta.json: `meta`, the source files' names, and each file's size and sha256."""
        for handle in self._handles:
            handle.close()
        paths = [self.folder / name for name in FILES]
        stored = {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in paths}
        files = {"names": list(self._names), "stored": stored, "scalars": self._scalars.hexdigest()}
        write_sealed(self.folder / "meta.json", {**meta, **files})

    def abandon(self) -> None:
        """Close the files without writing meta.json, so that the folder counts as unfinished."""
        for handle in self._handles:
            with suppress(OSError):  # on a full disk, flushing fails once more
                handle.close()


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write a mapping to a JSON file, with a hash of its content that `read_sealed` checks."""
    atomic_write_text(path, json.dumps({"seal": _seal(values), **values}, indent=1))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the mapping that `write_sealed` wrote to a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the content does not match its hash, because the file was changed.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        values = None
    if not isinstance(values, dict) or values.pop("seal", None) != _seal(values):
        raise ValueError(f"{path} is not as it was written")
    return values


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Tokenized:
    """The tokenized rows of one data section, read from a folder that a `Writer` closed.

    The files are opened at once, because another process may remove them (Linux keeps open files). Picklable: the copy
    opens them when it reads.
    """

    def __init__(self, folder: Path) -> None:
        """Open the files of the folder and check them against meta.json.

        Raises:
            OSError: a file is missing.
            ValueError: a file was changed, or is incomplete.
        """
        self.folder = folder
        self.event: int | None = None  # the event as of which a vote store was read
        # Descriptors, because file objects that are collected in a cycle warn before `__del__` can close them.
        self._opened: dict[str, int] = {}
        self._stamps: dict[str, tuple[int, int]] = {}  # size and time of each file when it was hashed
        self.meta: dict[str, Any] = read_sealed(folder / "meta.json")
        if not _is_meta(self.meta):
            raise ValueError(f"{folder / 'meta.json'} is not of this version")
        for name, stored in self.meta["stored"].items():
            descriptor = self._open(name)
            self._stamps[name] = _stamp(descriptor)
            if (folder / name).stat().st_size != stored["size"] or _sha256(descriptor) != stored["sha256"]:
                raise ValueError(f"{folder / name} is not as it was written")
        self._size = self.meta["stored"]["records.bin"]["size"] // RECORD.itemsize

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._size

    def __del__(self) -> None:
        """Close the files."""
        for descriptor in getattr(self, "_opened", {}).values():
            os.close(descriptor)

    @property
    def fingerprint(self) -> str:
        """A hash of tokens, texts, labels and margins: it changes when a row or the tokenizer does."""
        hashes = [self.meta["stored"][name]["sha256"] for name in ("tokens.u32", "texts.json")]
        return "-".join(digest[:16] for digest in (*hashes, self.meta["scalars"]))

    def record(self, row: int) -> Any:
        """Return the record of a row (`record.RECORD`: lengths, flags and offsets)."""
        raw = self._read("records.bin", row * RECORD.itemsize, RECORD.itemsize)
        return np.frombuffer(raw, RECORD)[0]

    def records(self) -> Iterator[tuple[int, Records]]:
        """Yield the records of all rows in order, as (number of the first row, a few thousand records)."""
        for start in range(0, len(self), _SCAN):
            count = min(_SCAN, len(self) - start)
            raw = self._read("records.bin", start * RECORD.itemsize, count * RECORD.itemsize)
            yield start, np.frombuffer(raw, RECORD)

    def signatures(self, start: int, count: int) -> NDArray[np.uint32]:
        """Return the MinHash signatures (count, 32) of `count` rows from `start` on."""
        width = 4 * PLACES
        raw = self._read("signatures.u32", start * width, count * width)
        return np.frombuffer(raw, np.uint32).reshape(-1, PLACES)

    def example(self, row: int) -> Example:
        """Return a row as token ids and masks: its prompt and its answers."""
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
        """Return the file and line of a row."""
        return self.origin_of(self.record(row))

    def origin_of(self, record: Any) -> Origin:
        """Return the file and line of the row that a record belongs to."""
        try:
            return Origin(self.meta["names"][int(record["file"])], int(record["line"]))
        except IndexError:
            raise self._changed("records.bin") from None

    def parts(self, row: int) -> list[list[list[Any]]]:
        """Return the messages of a row as they are stored (`Message.stored`): first the prompt, then each answer."""
        record = self.record(row)
        return self._decoded(self._read("texts.json", int(record["text_at"]), int(record["text_size"])))

    def all_parts(self, selected: NDArray[np.int64]) -> Iterator[tuple[int, list[list[list[Any]]]]]:
        """Yield (row, its `parts`) for the selected rows, ascending; a megabyte is read at once."""
        for start, records in self.records():
            first, last = np.searchsorted(selected, [start, start + len(records)])
            rows = selected[first:last]
            at = records["text_at"][rows - start].astype(np.int64)
            ends = at + records["text_size"][rows - start].astype(np.int64)
            index = 0
            while index < len(rows):
                stop = max(index + 1, int(np.searchsorted(ends, at[index] + (1 << 20), side="right")))
                raw = self._read("texts.json", int(at[index]), int(ends[stop - 1] - at[index]))
                for number in range(index, stop):
                    yield int(rows[number]), self._decoded(raw[at[number] - at[index] : ends[number] - at[index]])
                index = stop

    def _decoded(self, raw: bytes) -> list[list[list[Any]]]:
        try:
            return json.loads(raw.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            raise self._changed("texts.json") from None

    def prompt(self, row: int) -> tuple[Message, ...]:
        """Return the messages of a row's prompt; a plain text has none."""
        return tuple(Message.restored(values) for values in self.parts(row)[0] if values[0] != "text")

    def _open(self, name: str) -> int:
        if name not in self._opened:
            self._opened[name] = os.open(self.folder / name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self._opened[name]

    def _read(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of a file, from `start` on.

        A memory map is not used: its pages would count as this process's memory, and grow with the rows read.

        Raises:
            DataError: the file was changed since it was opened, so that other rows would be trained.
        """
        descriptor = self._open(name)
        if not 0 <= start <= start + size <= self.meta["stored"][name]["size"]:
            raise self._changed(name)
        os.lseek(descriptor, start, os.SEEK_SET)
        data = os.read(descriptor, size)
        while 0 < len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        if len(data) != size or not self._is_unchanged(name, descriptor):
            raise self._changed(name)
        return data

    def _changed(self, name: str) -> DataError:
        """Return the error for a file that was changed since it was opened, or that holds impossible values."""
        fix = "run again: it is made again. If that does not help, remove the folder"
        return DataError(f"{self.folder / name}: it was changed while it is in use\n  fix: {fix}")

    def _is_unchanged(self, name: str, descriptor: int) -> bool:
        """Return True if an open file has the content that it had when opened.

        The content is hashed only if the file's time or size changed.
        """
        stamp = _stamp(descriptor)
        if stamp != self._stamps[name]:
            if _sha256(descriptor) != self.meta["stored"][name]["sha256"]:
                return False
            self._stamps[name] = stamp  # touched, or copied
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling, without the open files."""
        return {**self.__dict__, "_opened": {}}


def _is_meta(meta: dict[str, Any]) -> bool:
    """Return True if the content of a meta.json is of this version: it names exactly the files in FILES."""
    names, stored = meta.get("names"), meta.get("stored")
    has_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not has_names or not isinstance(stored, dict) or set(stored) != set(FILES):
        return False
    return all(
        isinstance(file, dict) and isinstance(file.get("size"), int) and "sha256" in file for file in stored.values()
    )


def _stamp(descriptor: int) -> tuple[int, int]:
    """Return size and modification time (ns) of an open file, which change when it is written to."""
    stat = os.fstat(descriptor)
    return stat.st_size, stat.st_mtime_ns


def _sha256(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
