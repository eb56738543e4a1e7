"""Files that are not stores are refused and left as they are; a store that cannot be written can still be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from data.votes.store_examples import connect, make_store, vote_on
from trueup.data.votes.header import is_store
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Ballot
from trueup.errors import DataError
from trueup.system.commandline import install_command


def other_database(path: Path) -> None:
    connection = connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text('{"prompt": "a"}\n'), "not a store of rankings"),
        (lambda path: path.write_bytes(os.urandom(5000)), "not a store of rankings"),
        (lambda path: path.write_bytes(b"SQLite format 3\0"), "another program"),
        (other_database, "a SQLite file of another program"),
        (lambda path: path.mkdir(), "a folder"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path, make, words, create):
    path = tmp_path / "votes.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    assert not is_store(path)
    with pytest.raises(DataError, match=words):
        Store.open(path, create=create)
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert [one.name for one in tmp_path.iterdir()] == ["votes.db"]


def test_what_is_not_there_is_made_only_when_asked(tmp_path):
    path = tmp_path / "votes.db"
    with pytest.raises(DataError, match="nothing is there"):
        Store.open(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(DataError, match="the file is empty"):
        Store.open(path)
    Store.open(path, create=True).close()
    assert is_store(path)
    Store.open(str(path)).close()
    with pytest.raises(DataError, match=r"(?s)there is no folder .*fix: make the folder"):
        Store.open(tmp_path / "nowhere" / "votes.db", create=True)
    Store.open(tmp_path / ":memory: ?mode=ro#.db", create=True).close()
    assert is_store(tmp_path / ":memory: ?mode=ro#.db")


def test_is_store_never_raises(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it would wait for ever
    for path in (tmp_path, fifo, tmp_path / "missing", "a\0b", "x" * 5000, "/dev/null"):
        assert is_store(path) is False


def test_a_newer_version_is_refused(tmp_path):
    make_store(tmp_path).close()
    connection = connect(tmp_path / "votes.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(DataError, match="its version is 2, this trueup knows 1"):
        Store.open(tmp_path / "votes.db")


def test_a_file_cut_in_half_is_named(tmp_path):
    make_store(tmp_path, 200).close()
    path = tmp_path / "votes.db"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match="malformed\n  fix: go back to a copy"), Store.open(path) as opened:
        opened.pairs()


def test_processes_and_threads_that_make_one_store_at_once_make_one(tmp_path):
    path, broken = tmp_path / "votes.db", []

    def work(name: str) -> None:
        try:
            with Store.open(path, create=True) as opened:
                opened.rater(name)
        except Exception as error:  # noqa: BLE001 -- shown by the test, not lost with the thread
            broken.append(error)

    code = (
        "import sys; from trueup.data.votes.store import Store; Store.open(sys.argv[1], create=True).rater(sys.argv[2])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), f"p{number}"], stderr=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 3
    assert broken == []
    with Store.open(path) as opened:
        assert {rater.name for rater in opened.raters()} == {f"p{n}" for n in range(3)} | {f"t{n}" for n in range(6)}


def test_the_file_keeps_its_mode_of_writing(tmp_path):
    with make_store(tmp_path) as opened:
        with opened._database.reading() as connection:
            told = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        assert told == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL
    connection = connect(opened.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


READ = """
import os, sys
from trueup.errors import DataError
from trueup.data.votes.vote_types import Ballot
from trueup.data.votes.store import Store
from trueup.data.votes import store  # imports all that is needed while it may be read
if os.getuid() == 0:
    os.setuid(65534)
try:
    Store.open(sys.argv[1])
except DataError as error:
    print(error)
with Store.open(sys.argv[1], read_only=True) as opened:
    print(len(opened.votes()), len(opened.pairs()))
    try:
        opened.vote(opened.raters()[0], Ballot("r", 2, "first"))
    except DataError as error:
        print(error)
"""


@pytest.fixture
def sealed():
    """A folder that anybody may read and nobody but root may write."""
    folder = Path(tempfile.mkdtemp(prefix="trueup-sealed-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("log", [False, True], ids=["at rest", "beside a log"])
def test_a_store_that_cannot_be_written_can_be_read(sealed, log):
    opened = make_store(sealed)
    vote_on(opened, opened.rater("A"), 1)
    if not log:
        opened.close()
    before = sorted(one.name for one in sealed.iterdir())
    for one in sealed.iterdir():
        one.chmod(0o444)
    sealed.chmod(0o555)
    path = sealed / "votes.db"
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{path}: the file or its folder cannot be written",
        "  fix: check the permissions of the file and of its folder",
        "1 6",
        f"{path}: opened for reading only",
    ]
    assert sorted(one.name for one in sealed.iterdir()) == before
    opened.close()


def test_reading_only_needs_no_turn_and_writes_nothing(tmp_path):
    with make_store(tmp_path) as opened:
        writer = sqlite3.connect(opened.path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")  # somebody writes all the while
        with Store.open(opened.path, read_only=True) as reader:
            assert len(reader.pairs()) == 6
            with pytest.raises(DataError, match="for reading only"):
                reader.rater("new")
        writer.rollback()
        writer.close()


def test_a_relative_path_is_the_same_file_after_the_process_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("votes.db", create=True) as opened:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        assert opened.rater("A") == opened.rater("A")
        assert str(opened.path) == "votes.db"
        with pytest.raises(DataError, match="not in this store"):
            opened.vote(opened.rater("A"), Ballot("r", 1, "first"))
    assert is_store(tmp_path / "votes.db")


LAZY = """
import sys
import trueup.data.votes.rows
from trueup.data.votes.header import is_store
from trueup.data.votes.vote_types import Ballot
assert is_store(sys.argv[1])
assert not [name for name in ("sqlalchemy", "torch", "fastapi") if name in sys.modules]
sys.modules["sqlalchemy"] = None
from trueup.data.sources.reader import open_reader
try:
    open_reader(sys.argv[1], "train")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_what_is_a_store_is_known_without_sqlalchemy(tmp_path):
    make_store(tmp_path).close()
    asked = [sys.executable, "-c", LAZY, str(tmp_path / "votes.db")]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    message = f"a store of rankings needs the extra rank: {install_command('rank')}"
    assert done.stdout == f"MissingExtraError {tmp_path / 'votes.db'}: {message}\n"


@pytest.mark.parametrize("name", [b"\xff.db", b"\xff/votes.db"])
def test_a_path_that_is_not_text_is_named(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=r"\\udcff.*: the path is not text in UTF-8\n  fix: rename"):
        Store.open(path, create=True)
    assert not path.exists()
