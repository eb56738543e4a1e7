"""Reading without holding: what a Reader, a Parser and a Stream promise, of every kind of source."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from casekit import PAIR, load, numbers, refusal, section, write
from casekit import rows as as_lines

from trueup.data.rendering.messages import Origin
from trueup.data.sources import decoding, jsonfile
from trueup.data.sources.account import Account
from trueup.data.sources.jsonfile import list_values
from trueup.data.sources.parser import Parser
from trueup.data.sources.reader import open_reader
from trueup.data.sources.stream import RowStream, read_records
from trueup.errors import DataError

GOOD, SAME = ({"prompt": "p", "chosen": "a", "rejected": said} for said in ("b", " a\n"))
SILENT = {"prompt": "p", "chosen": "", "rejected": "b"}


# Lazy, and counted.


def test_rows_come_before_the_error_and_the_error_names_all(tmp_path: Path) -> None:
    found = RowStream(
        section(write(tmp_path / "x.jsonl", *[PAIR] * 36, "{oops\n", *[PAIR] * 20, {}, PAIR)), "conversation"
    )
    seen: list[int] = []
    message = refusal(seen.append(row.origin.line) for row in found)
    assert seen == [*range(1, 37), *range(38, 58), 59]
    assert "x.jsonl:37: broken JSON" in message
    assert "also unusable: line 58, of 59 rows read" in message
    assert (found.account.read, found.account.used) == (59, 57)


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = Parser.parse

    def counting(self: Parser, origin: Origin, *more: Any) -> Any:
        parsed.append(origin.line)
        return parse(self, origin, *more)

    monkeypatch.setattr(Parser, "parse", counting)
    rows = iter(RowStream(section(write(tmp_path / "x.jsonl", *[PAIR] * 100)), "conversation"))
    assert [next(rows).origin.line for _ in range(3)] == [1, 2, 3]
    assert parsed == [1, 2, 3]


def test_a_second_pass_is_as_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", GOOD, "\n", SAME, {**GOOD, "note": 1})
    found = RowStream(section(path, identical_pairs="drop"), "preference")
    first, counts = list(found), found.account
    next(iter(found))  # begun and left
    assert (list(found), found.account) == (first, counts)
    assert (numbers(first), counts.read, counts.used, found.reader.blank) == ([1, 4], 3, 2, 1)
    assert [str(drop.origin) for drop in counts.dropped] == [f"{path}:3"]


def test_two_passes_beside_each_other(tmp_path: Path) -> None:
    reader = open_reader(write(tmp_path / "x.jsonl", PAIR, PAIR, PAIR), "train")
    one, two = reader.entries(), reader.entries()
    next(one)
    assert [origin.line for origin, _ in two] == [1, 2, 3]
    assert [origin.line for origin, _ in one] == [2, 3]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.csv", "x.txt", "x.parquet"])
def test_done_rises_from_nothing_to_one(tmp_path: Path, name: str) -> None:
    reader = open_reader(many(tmp_path / name, 6000), "train")
    assert reader.done == 0.0
    shares = [reader.done for _ in reader.entries()]
    assert shares == sorted(shares)
    assert len(set(shares)) > 3
    assert shares[0] < 0.5 < shares[-1] <= 1.0 == reader.done


def many(path: Path, count: int) -> str:
    """A file of `count` rows of a hundred bytes that gzip cannot make much smaller."""
    made = [{"text": f"{number:06d} {'abcdefghijklmnopqrstuvwxyz'[number % 26] * 60}"} for number in range(count)]
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(made), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(as_lines(*made), 0))
    elif path.suffix == ".json":
        path.write_text(json.dumps(made))
    elif path.suffix == ".csv":
        path.write_text("text\n" + "".join(f'"{row["text"]}"\n' for row in made))
    elif path.suffix == ".txt":
        path.write_text("".join(row["text"] + "\n" for row in made))
    else:
        path.write_bytes(as_lines(*made))
    return str(path)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["x.json", *(pytest.param(name, marks=SLOW) for name in ("x.jsonl", "x.jsonl.gz", "x.csv", "x.txt"))]
)
def test_memory_does_not_grow_with_rows(tmp_path: Path, name: str) -> None:
    """20,000 rows held are 14 MB; read one after another they are what a chunk and a buffer take."""
    found = RowStream(section(many(tmp_path / name, 20_000)), "text")
    tracemalloc.start()
    try:
        assert sum(1 for _ in found) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_a_bomb_takes_no_more_than_a_line_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LINE_LIMIT", 2**20)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "' + b"a" * 50_000_000, 1))
    tracemalloc.start()
    try:
        message = refusal(RowStream(section(str(path)), "text"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.startswith(f"{path}:1: a line of more than 1,048,576 bytes")
    assert peak < 5 * 2**20


def test_a_large_element_is_not_parsed_again_for_every_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte in chunks of a kilobyte: the window doubles, so it is tried 10 times or so, not 1,000."""
    tries: list[int] = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            tries.append(len(s) - idx)
            return super().raw_decode(s, idx)

    monkeypatch.setattr(jsonfile, "DECODER", Counting())
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "t" * 2**20}]))
    with path.open("rb") as handle:
        ((origin, value),) = list_values(str(path), handle, size=1024)
    assert (origin.line, value) == (1, {"text": "t" * 2**20})
    assert len(tries) < 15
    assert sum(tries) < 5 * 2**20


def test_the_limit_of_csv_cells_is_left_alone_between_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text\n" + "a" * 200_000 + "\nb\n")
    before = csv.field_size_limit(1234)
    try:
        read = iter(RowStream(section(str(path)), "text"))
        assert len(next(read).text) == 200_000
        assert csv.field_size_limit() == 1234
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.jsonl", '\n{"text": "a"}\n \r\n\n'), ("x.csv", "\ntext\n\na\n\n"), ("x.txt", "\n\na\n\t\n")],
)
def test_blank_lines_are_counted(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    found = RowStream(section(str(path)), "text")
    assert [row.text for row in found] == ["a"]
    assert found.reader.blank == 3


# Slices are of the source's rows.


def test_a_slice_counts_the_rows_of_the_source(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", SAME, GOOD, SAME, GOOD, SAME)
    found = RowStream(section(path, rows="1:4", identical_pairs="drop"), "preference")
    assert numbers(found) == [2, 4]
    counts = found.account
    assert (counts.read, counts.used, len(counts.dropped), counts.unselected) == (5, 2, 1, 2)
    assert [drop.origin.line for drop in counts.dropped] == [3]


def test_identical_pairs_outside_of_the_slice_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", SAME, GOOD, GOOD, SAME)
    assert numbers(RowStream(section(path, rows="1:3"), "preference")) == [2, 3]
    message = refusal(RowStream(section(path, rows="1:"), "preference"))
    assert "1 of 3 pairs have the same chosen and rejected: line 4\n" in message


def test_rows_outside_of_the_slice_are_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", PAIR, PAIR, {"prompt": "p"})
    assert ':3: no "completion"' in refusal(RowStream(section(path, rows="0:1"), "conversation"))


def test_notes_are_of_rows_that_are_used(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", GOOD, SILENT, SILENT, {**SILENT, "rejected": ""})
    found = RowStream(section(path, rows="0:2", identical_pairs="drop"), "preference", allow_empty=True)
    list(found)
    assert [(origin.line, note) for origin, note in found.account.notes] == [(2, "chosen: the response is empty")]
    found = RowStream(section(path, rows="3:", identical_pairs="drop"), "preference", allow_empty=True)
    assert "all 1 pairs have the same" in refusal(found)
    assert found.account.notes == []


@pytest.mark.parametrize("rows", ["1:3", ":2", "3:", "2:99", ":"])
def test_rows_and_records_select_the_same_rows(tmp_path: Path, rows: str) -> None:
    path = write(tmp_path / "x.jsonl", *({"text": f"{number}"} for number in range(5)))
    start, _, stop = rows.partition(":")
    expected = [f"{number}" for number in range(5)][int(start) if start else None : int(stop) if stop else None]
    assert [row.text for row in load(path, want="text", rows=rows)] == expected
    assert [
        record.row["text"] for record in read_records(section(path, rows=rows), lambda record: record)[0]
    ] == expected


def test_records_say_what_selects_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", PAIR)
    with pytest.raises(DataError, match=r"rows: 3: selects nothing of 1 rows"):
        read_records(section(path, rows="3:"), str)
    with pytest.raises(DataError, match="there are no rows in it"):
        read_records(section(write(tmp_path / "y.jsonl")), str)


# What is said of the unusable.


def test_ten_lines_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    message = refusal(RowStream(section(write(tmp_path / "x.jsonl", PAIR, *["{\n"] * 5000)), "conversation"))
    assert message.endswith("also unusable: lines 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 4989 more, of 5001 rows read")


def test_unusable_names_files_unless_all_is_in_one() -> None:
    def message(read: int, *others: Origin) -> str:
        account = Account(section("data"), read=read)
        account.refuse(Origin("a", 1), DataError("a:1: oops\n  fix: x"))
        for origin in others:
            account.refuse(origin, DataError("later"))
        with pytest.raises(DataError) as caught:
            account.check()
        return str(caught.value)

    a, b = Origin("a", 2), Origin("b", 7)
    assert message(5) == "a:1: oops\n  fix: x"
    assert message(5, a).endswith("\n  also unusable: line 2, of 5 rows read")
    assert message(5, b).endswith("\n  also unusable: b:7, of 5 rows read")
    assert message(5, a, b).endswith("\n  also unusable: a:2, b:7, of 5 rows read")
    assert message(50, *[a] * 12).endswith("2, 2 and 2 more, of 50 rows read")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_accounts_of_chunks_add_up(tmp_path: Path, size: int) -> None:
    """Chunks of any size give the counts, the first error, and the places that one account of all rows gives."""
    path = write(tmp_path / "x.jsonl", PAIR, *[SAME] * 15, SILENT, *[GOOD, "{\n"] * 15, *[GOOD] * 3)
    config = section(path, rows="3:40")
    found = RowStream(config, "preference")
    found.parser.allow_empty = True
    found.parser.start(Origin(path, 2), GOOD)
    message, whole = refusal(found), found.account
    entries = list(enumerate(found.reader.entries()))
    total = Account(config)
    for start in range(0, len(entries), size):
        chunk = Account(config)
        for index, entry in entries[start : start + size]:
            chunk.parse(found.parser, index, entry)
        total.add(chunk)
    with pytest.raises(DataError) as caught:
        total.check()
    assert str(caught.value) == message
    assert total.counts((), 0) == whole.counts((), 0)
    assert total.note_counts == {"chosen: the response is empty": 1}
    assert (total.unusable, total.identical) == (whole.unusable, whole.identical)
    assert (total.identical.total, len(total.identical.origins)) == (13, 11)


def test_a_file_that_breaks_off_does_not_hide_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text"')
    write(tmp_path / "b.jsonl", {"text": "b"}, {})
    message = refusal(RowStream(section(str(tmp_path)), "text"))
    assert f"{tmp_path / 'a.json'}:1: broken JSON" in message
    assert f"also unusable: {tmp_path / 'b.jsonl'}:2, of 4 rows read" in message


def test_a_format_that_is_not_known_ends_the_reading(tmp_path: Path) -> None:
    found = RowStream(section(write(tmp_path / "x.jsonl", "{\n", {"a": 1}, *[PAIR] * 50)), "conversation")
    message = refusal(found)
    assert "x.jsonl:1: broken JSON" in message
    assert "also unusable: line 2, of 2 rows read" in message
    assert not found.parser.format


def test_a_disk_that_fails_is_said_with_the_line() -> None:
    class Failing:
        lines = iter([b"a\n", b"b\n"])

        def readline(self, size: int) -> bytes:
            del size
            for line in self.lines:
                return line
            raise OSError(5, "Input/output error")

    with pytest.raises(decoding.Break) as caught:
        list(decoding.raw_lines("x.jsonl", Failing()))  # type: ignore[arg-type]
    assert str(caught.value.error).startswith("x.jsonl:3: cannot be read from here: Input/output error\n  fix: ")


@pytest.mark.parametrize("method", ["open", "iterdir", "stat"])
def test_what_is_forbidden_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    path = write(tmp_path / "x.jsonl", PAIR)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, method, forbidden)
    with pytest.raises(DataError, match="cannot be read: Permission denied\n  fix: check"):
        open_reader(str(tmp_path) if method == "iterdir" else path, "train")


def test_a_file_that_is_gone_or_another_in_a_second_pass(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "x.jsonl", PAIR))
    found = RowStream(section(str(path)), "conversation")
    assert len(list(found)) == 1
    path.unlink()
    assert "x.jsonl: cannot be read: No such file or directory" in refusal(found)
    path.mkdir()
    assert "x.jsonl: this is a folder, not a file" in refusal(found)
