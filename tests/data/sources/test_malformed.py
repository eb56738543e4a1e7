"""Files as people really have them: each broken one ends in one clear message, each sound one is read to the last row.

A case is a file name, what is in it, and what the message has to say. Of all of them is checked: the error is of
trueup's family, begins with the file's name (and line, where there is one), has a fix, has six lines at most, has no
character that a terminal obeys, is there within two seconds, and is the same from `load` as from a `Stream`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_files import FILES
from broken_rows import ROWS
from casekit import Case, Fine, Maker, load, refused, section
from sound_files import FINE

from trueup.data.sources import decoding
from trueup.data.sources.stream import RowStream
from trueup.errors import TrueupError

CASES = ROWS + FILES

# The checks.


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A pipe that nobody writes to would keep the whole run waiting."""

    def late(*_: object) -> None:
        raise TimeoutError("still reading after ten seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def place(folder: Path, name: str, content: bytes | Maker) -> str:
    path = folder / name
    if not callable(content):
        path.write_bytes(content)
        return str(path)
    return content(path) or str(path)


def shown(path: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_refused(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.limit:
        monkeypatch.setattr(decoding, "LINE_LIMIT", case.limit)
    path = place(tmp_path, case.name, case.content)
    start = time.process_time()
    with pytest.raises(TrueupError) as caught:
        load(path, case.want, **case.more)
    assert time.process_time() - start < 2
    assert type(caught.value) is case.kind
    message = refused(caught.value)
    assert message.startswith(f"{shown(path)}:{case.line}: " if case.line else shown(path))
    for text in case.says:
        assert text in message


@pytest.mark.parametrize("case", FINE, ids=[case.title for case in FINE])
def test_read_to_the_last_row(case: Fine, tmp_path: Path) -> None:
    path = place(tmp_path, case.name, case.content)
    found = RowStream(section(path, **case.more), case.want)  # type: ignore[arg-type]
    made = list(found)
    numbers = case.lines or list(range(1, len(case.expected) + 1))
    assert [row.origin.line for row in made] == numbers
    assert {row.origin.file for row in made} == {shown(path)}
    bare = [
        type(row)(**{key: getattr(row, key) for key in row.__dataclass_fields__ if key != "origin"}) for row in made
    ]
    assert bare == case.expected
    assert found.account.read == found.account.used == len(case.expected)
    assert found.reader.done == 1.0


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    ids = [case.title for case in CASES] + [f"fine: {case.title}" for case in FINE]
    assert len(ids) == len(set(ids))
    assert len(CASES) >= 400
    assert {Path(case.name).suffix for case in CASES} >= {".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".gz"}
