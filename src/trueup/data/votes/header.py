"""What a file's first bytes say, and which stores this process has open. Nothing here needs SQLAlchemy.

A process must not read a store's file beside SQLite while it has the store open: POSIX drops a process's locks on a
file when it closes any descriptor of it, and then another process that ends would remove the write-ahead log under
this one, with the votes in it (https://www.sqlite.org/howtocorrupt.html, 2.2). So `is_store` reads `OPEN_STORES` first.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from trueup.errors import DataError

APPLICATION_ID = 0x74727570  # "trup": names SQLite files as ours; the header keeps it at byte 68
VERSION = 1
"""Of the tables. PRAGMA user_version holds it."""

FILE_LOCK = threading.Lock()
"""Held while a store's file is opened, read or closed by anything but SQLite."""
OPEN_STORES: Counter[tuple[int, int] | None] = Counter()
"""Stores that this process has open, by device and inode."""

_MAGIC = b"SQLite format 3\0"
_BYTES = 100


class StoreError(DataError):
    """The file fails: the disk, its permissions, another's lock, or it is not there any more. No fault of a request."""


def is_store(path: str | Path) -> bool:
    """Whether a file is a store of rankings, by its header. Never raises."""
    return file_kind(Path(path)) == "store"


def file_kind(path: Path) -> str:
    """What is at `path`: nothing, empty, folder, store, sqlite (another program's), other, or unreadable."""
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
    """Device and inode of a file; None: there is none."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_dev, told.st_ino


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    if not head.startswith(_MAGIC):
        return "other"
    return "store" if int.from_bytes(head[68:72], "big") == APPLICATION_ID else "sqlite"
