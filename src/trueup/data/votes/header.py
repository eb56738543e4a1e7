"""Recognition of a vote store by its file header, and the list of stores that this process has open; no SQLAlchemy.

A process must not read a store's file while its SQLite has it open: POSIX drops a process's locks on a file when the
process closes any descriptor of it, and another process that ends would then remove the write-ahead log in use, with
the votes in it (https://www.sqlite.org/howtocorrupt.html, 2.2). So `is_store` reads `OPEN_STORES` first.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from trueup.errors import DataError

APPLICATION_ID = 0x74727570  # "trup": marks a SQLite file as ours, at byte 68 of its header
VERSION = 1
"""Version of the tables, kept in PRAGMA user_version."""

FILE_LOCK = threading.Lock()
"""Held while this process opens, reads or closes a store's file other than through SQLite."""
OPEN_STORES: Counter[tuple[int, int] | None] = Counter()
"""Number of times that this process has each store open, by device and inode."""

_MAGIC = b"SQLite format 3\0"
_BYTES = 100


class StoreError(DataError):
    """Error of the store's file (disk, permissions, another process's lock, file removed), not of the request."""


def is_store(path: str | Path) -> bool:
    """Return True if the file's header marks it as a vote store. Never raises: an unreadable file gives False."""
    return file_kind(Path(path)) == "store"


def file_kind(path: Path) -> str:
    """Return the kind of thing at a path, as one word.

    It is "nothing", "empty", "folder", "store", "sqlite" (a database of another program), "other" or "unreadable".
    """
    try:
        with FILE_LOCK:
            if OPEN_STORES[file_identity(path)]:
                return "store"
            if not path.is_file():
                return "folder" if path.is_dir() else "other" if path.exists() else "nothing"
            with path.open("rb") as handle:
                return _kind(handle.read(_BYTES))
    except (OSError, ValueError):  # ValueError: a name with a NUL in it
        return "unreadable"


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file; None if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    if not head.startswith(_MAGIC):
        return "other"
    return "store" if int.from_bytes(head[68:72], "big") == APPLICATION_ID else "sqlite"
