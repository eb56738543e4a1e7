"""The SQLite file of a vote store: its connections, transactions and error messages."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import QueuePool

from trueup.data.votes import tables
from trueup.data.votes.header import (
    APPLICATION_ID,
    FILE_LOCK,
    OPEN_STORES,
    VERSION,
    StoreError,
    file_identity,
    file_kind,
)
from trueup.errors import DataError
from trueup.system.files import free_space_text, fsync_path
from trueup.system.text import clean

_BUSY = 5.0  # seconds that one process waits for another's transaction: they take milliseconds, but a long import
_PERMISSIONS = "check the permissions of the file and of its folder"
_PRAGMAS = ("foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY")


class Database:
    """An open SQLite file of a vote store, and its transactions.

    Any thread may start a transaction, and any number of processes may have the file open.
    """

    def __init__(self, path: Path, *, create: bool, read_only: bool) -> None:
        """Open the file.

        Args:
            path: the SQLite file.
            create: make the file if it is missing.
            read_only: refuse transactions that write; the file and its folder need not be writable then.

        Raises:
            DataError: the file is missing, is not a vote store, or was made by a newer version.
            StoreError: the file cannot be read or written.
        """
        self.path = path
        self._file = path.absolute()  # wherever the process goes later
        self._name = clean(str(path), one_line=True)
        self._turn = threading.Lock()  # threads wait for it here: SQLite would sleep and try again
        self._closed, self._read_only = False, read_only
        self._log: tuple[int, int] | None = None  # the write-ahead log, once something was written
        self._check(create)
        self._identity = self._register(create)
        self._reader = _engine(self._file, sealed=read_only and not _writable(self._file))
        self._writer = self._reader.execution_options(begin="BEGIN IMMEDIATE")
        try:
            self._prepare(create)
            if not read_only:
                self._into_wal()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read transaction, which sees the store as it was when the transaction began."""
        with self._explained(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open an exclusive write transaction, whose changes are on disk when the `with` block ends.

        Raises:
            StoreError: the store is read-only, the disk failed, or the file was replaced; nothing was written.
        """
        if self._read_only:
            raise StoreError(f"{self._name}: opened for reading only")
        with self._turn, self._explained(), self._writer.begin() as connection:
            log = file_identity(self._log_file)  # connections that we keep open keep it, whoever else closes the file
            for name, was, now in (("", self._identity, file_identity(self._file)), ("-wal", self._log or log, log)):
                if now != was:
                    raise StoreError(
                        f"{self._name}{name}: the file was moved, replaced or removed while open, so nothing more is "
                        "written\n  fix: put it back, and start again"
                    )
            self._log = log
            yield connection

    @property
    def _log_file(self) -> Path:
        return self._file.with_name(self._file.name + "-wal")

    def close(self) -> None:
        """Wait for the current write, then close the file. May be called twice."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            with FILE_LOCK:
                if (
                    self._log
                    and self._log == file_identity(self._log_file)
                    and self._identity == file_identity(self._file)
                ):
                    self._empty_log()
                self._reader.dispose()
                OPEN_STORES.subtract([self._identity])

    def _empty_log(self) -> None:
        """Move the content of the write-ahead log into the database file.

        Nothing is moved while another process is writing, which will do so itself.
        """
        with suppress(DBAPIError, sqlite3.Error), closing(self._reader.raw_connection()) as raw:
            cursor = raw.cursor()
            cursor.execute("PRAGMA busy_timeout = 0")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _check(self, create: bool) -> None:
        try:
            str(self._file).encode()
        except UnicodeEncodeError:
            raise DataError(f"{self._name}: the path is not text in UTF-8\n  fix: rename the file or folder") from None
        kind = file_kind(self._file)
        if create and kind == "nothing" and not self._file.parent.exists():
            parent = clean(str(self.path.parent), one_line=True)
            raise StoreError(
                f"{self._name}: there is no folder {parent}\n  fix: make the folder, or choose another path"
            )
        if kind == "store" or (create and kind in ("nothing", "empty")):
            if kind != "nothing" and not self._read_only and not _writable(self._file):
                raise StoreError(f"{self._name}: the file or its folder cannot be written\n  fix: {_PERMISSIONS}")
            return
        problems = {
            "nothing": ("nothing is there", "check the path, or give prompts or pairs to make a store"),
            "empty": ("the file is empty, not a store of rankings", "check the path, or remove it"),
            "sqlite": ("a SQLite file of another program, not a store of rankings", "choose another path"),
            "other": ("not a store of rankings", "choose another path"),
            "folder": ("a folder, not a store of rankings", "give the file"),
            "unreadable": ("cannot be read", _PERMISSIONS),
        }
        problem, fix = problems[kind]
        raise DataError(f"{self._name}: {problem}\n  fix: {fix}")

    def _register(self, create: bool) -> tuple[int, int]:
        """Record that this process has the file open, before SQLite locks it; return the file's device and inode."""
        try:
            with FILE_LOCK:
                if create and not self._file.exists():
                    self._file.touch()
                    fsync_path(self._file.parent)
                opened = file_identity(self._file)
                if opened is None:
                    raise FileNotFoundError(str(self._file))
                OPEN_STORES[opened] += 1
                return opened
        except OSError as error:
            raise StoreError(
                f"{self._name}: {error.strerror or 'it is gone'}\n  fix: check the path; {_PERMISSIONS}"
            ) from error

    def _prepare(self, create: bool) -> None:
        """Create the tables in a new file; check that an existing file is a store of a known version."""
        engine = self._reader if self._read_only else self._writer
        with self._explained(), engine.begin() as connection:
            ours = _pragma(connection, "application_id")
            if create and not ours and not _pragma(connection, "schema_version"):
                tables.create(connection)
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
            elif ours != APPLICATION_ID:
                raise DataError(f"{self._name}: not a store of rankings\n  fix: choose another path")
            elif (version := _pragma(connection, "user_version")) > VERSION:
                raise DataError(
                    f"{self._name}: its version is {version}, this trueup knows {VERSION}\n"
                    "  fix: use the trueup that wrote it, or a newer one"
                )
            elif not self._read_only:
                tables.complete(connection)

    def _into_wal(self) -> None:
        """Switch the file to write-ahead logging, so that readers never wait for a writer.

        The switch needs exclusive access for a moment, so it is tried again for up to 5 seconds while the file is
        locked.
        """
        with self._explained(), closing(self._reader.raw_connection()) as raw:
            until = time.monotonic() + _BUSY
            while True:
                try:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > until:
                        raise
                    time.sleep(0.05)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self._name}: the store was closed")
        try:
            yield
        except IntegrityError as error:
            raise DataError(f"{self._name}: {error.orig}\n  fix: give raters and pairs of this store") from error
        except (DBAPIError, sqlite3.Error) as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> StoreError:
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        fixes = {
            "full": f"free some space ({free_space_text(self._file.parent)})",
            "readonly": _PERMISSIONS,
            "unable to open": _PERMISSIONS,
            "locked": "end the other program that writes to it",
            "malformed": "go back to a copy of it",
            "not a database": "go back to a copy of it",
        }
        fix = next((fix for word, fix in fixes.items() if word in reason), "check the disk")
        return StoreError(f"{self._name}: {reason}\n  fix: {fix}")


def now_utc() -> str:
    """Return the current time as an ISO 8601 text in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _engine(path: Path, *, sealed: bool) -> Engine:
    """Return the SQLAlchemy engine of a SQLite file.

    `sealed` says that neither the file nor its folder can be written.
    """
    url = URL.create("sqlite", database=str(path))
    if sealed:
        wal = path.with_name(path.name + "-wal")
        query = {"uri": "true", "mode": "ro"}
        # Without a log nobody writes there, and SQLite need not make the log's index, which it could not.
        query |= {} if wal.exists() and wal.stat().st_size else {"immutable": "1"}
        url = URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=-1,
        connect_args={"timeout": _BUSY, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def configured(connection: Any, _: Any) -> None:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine
