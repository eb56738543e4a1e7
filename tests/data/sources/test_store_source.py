"""A store of rankings as a source: what of its votes is a row, and that votes which come later change nothing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from casekit import load, refused, section

from tiny_votes import make_store, new_pair, undo, vote
from trueup.config import DataConfig, DpoConfig, SftConfig, check_paths
from trueup.data.rendering.messages import Message, Origin, Preference
from trueup.data.sources.reader import open_reader, store_version
from trueup.data.sources.stream import RowStream, read_records
from trueup.data.tokens.build import tokenize
from trueup.data.votes.store import Store
from trueup.errors import DataError
from trueup.preflight.method import stage_for
from trueup.system.commandline import install_command
from trueup.system.files import split_event


def read(path: str | Path, **more: Any) -> tuple[list[Preference], dict[str, Any]]:
    """The rankings of a source, and their account, which adds up."""
    found = RowStream(section(str(path), **more), "preference")
    rows = list(found)
    counts = found.account.counts(found.reader.left_out, found.reader.blank)
    assert counts["read"] == counts["used"] + len(counts["dropped"]) + counts["unselected"]
    return rows, counts


# Which votes are a row.


def test_a_row_for_each_pair_that_more_than_half_decide(tmp_path: Path) -> None:
    """By hand: 1 of 1; 2 of 3; 1 of 2 is no majority; 2 of 4 neither; skips do not count; a tie is none."""
    said = ["1", "221", "12", "11t2", "s2s", "t", "tt1", "b", "s", "", "1tb"]
    rows, counts = read(make_store(tmp_path / "votes.db", *said, gold="1"))
    first = {1}  # whose `first` won
    assert [row.origin.line for row in rows if row.origin] == [1, 2, 5]
    for row in rows:
        assert row.origin
        pair = new_pair(row.origin.line - 1)
        better, worse = (pair.first, pair.second) if row.origin.line in first else (pair.second, pair.first)
        assert row.prompt == pair.prompt.messages
        assert (row.chosen, row.rejected) == tuple((Message("assistant", one.text),) for one in (better, worse))
    split = "no answer has more than half of the votes"
    assert {int(drop["at"].rpartition(":")[2]): drop["reason"] for drop in counts["dropped"]} == {
        3: split,
        4: split,
        6: "a tie",
        7: "a tie",
        8: "both answers are bad",
        9: "skipped",
        11: split,
        12: "a gold pair: a check of the raters",
    }
    assert (counts["read"], counts["used"]) == (11, 3)  # nobody voted on pair 10: it is not there yet


def test_an_undone_vote_is_none_and_an_earlier_event_has_it(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", "2")
    undo(path, "a")
    assert [row.origin for row in read(path)[0]] == [Origin(str(path), 1)]
    assert [row.origin and row.origin.line for row in read(f"{path}@2")[0]] == [1, 2]
    assert [row.origin and row.origin.line for row in read(f"{path}@1")[0]] == [1]


def test_a_slice_is_of_the_rankings(tmp_path: Path) -> None:
    rows, counts = read(make_store(tmp_path / "votes.db", "t", "1", "1", "1"), rows="1:3")
    assert [row.origin and row.origin.line for row in rows] == [3, 4]
    assert [counts[key] for key in ("read", "used", "unselected")] == [4, 2, 1]
    assert len(counts["dropped"]) == 1


def test_a_margin_where_every_ranking_has_a_strength(tmp_path: Path) -> None:
    """3 and 2 for chosen are 2.5 on average; what the third says is not for it."""
    path = make_store(tmp_path / "votes.db", "1", strength=3)
    vote(path, 1, " 12", strength=2)
    assert [row.margin for row in read(path)[0]] == [2.5]
    with Store.open(path) as store:
        store.add_pairs([new_pair(1)])
    vote(path, 2, "1")
    assert [row.margin for row in read(path)[0]] == [None, None]


def test_chosen_answers_prompts_and_records(tmp_path: Path) -> None:
    path = str(make_store(tmp_path / "votes.db", "1", "2"))
    chosen: list[Any] = list(load(path, want="conversation", use="chosen"))
    assert [row.response for row in chosen] == ["Hello.", "Five, I think."]
    assert [row.messages[0].content for row in load(path, want="prompt")] == ["Hi?", "What is two and two?"]
    first = read_records(section(path), lambda record: record)[0][0]
    assert first.row["chosen"] == [{"role": "assistant", "content": "Hello."}]


# A moment of it.


def test_votes_that_come_between_two_passes_or_inside_of_one_are_not_seen(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", "2", "", "")
    reader = open_reader(str(path), "train")
    before = list(reader.entries())
    entries = reader.entries()
    seen = [next(entries)]
    vote(path, 3, "1")
    undo(path, "a")
    undo(path, "a")
    seen += list(entries)
    assert seen == before == list(reader.entries())
    assert (reader.event, len(before), reader.done) == (2, 2, 1.0)
    assert len(list(open_reader(str(path), "train").entries())) == 1


def test_the_version_is_of_the_rows(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", "t", "")
    before = store_version(str(path))
    with Store.open(path) as store:
        store.add_pairs([new_pair(7)])
    vote(path, 1, " 1")  # the same ranking, of two raters
    assert store_version(str(path)) == before
    vote(path, 3, "2")
    assert store_version(str(path)) != before == store_version(f"{path}@3")
    assert store_version(str(tmp_path)) == store_version(str(tmp_path / "other.jsonl")) == ""


def test_a_write_ahead_log_counts(tmp_path: Path, tiny_base: str) -> None:
    """Votes lie in votes.db-wal first: a cache that went by the file's own bytes would not see them."""
    from trueup.data.rendering.renderer import Renderer
    from trueup.models.loading import load_tokenizer

    path = make_store(tmp_path / "votes.db", "1", "", "")
    config, renderer = DataConfig(path=str(path)), Renderer(load_tokenizer(tiny_base))
    with Store.open(path) as store:  # open, so that the log is not written back
        assert len(tokenize(config, ["preference"], renderer)) == 1
        vote(path, 2, "2")
        more = tokenize(config, ["preference"], renderer)
        assert (len(more), more.event) == (2, store.last_event())
        vote(path, 3, "s")  # a skip is no ranking, and is accounted for
        assert tokenize(config, ["preference"], renderer).meta["dropped"] == [{"at": f"{path}:3", "reason": "skipped"}]


def test_reading_waits_for_no_writer(tmp_path: Path) -> None:
    """Another program in the middle of a transaction, as long as it likes."""
    path = make_store(tmp_path / "votes.db", "1")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert len(read(path)[0]) == 1
        writer.execute("ROLLBACK")


def test_reading_while_another_process_votes_gives_whole_rows(tmp_path: Path) -> None:
    """A row is what its votes made it at some event; no more rows than votes before, no fewer than when it began."""
    path = make_store(tmp_path / "votes.db", "1", *[""] * 60)
    code = """
import sys
from trueup.data.votes.vote_types import Ballot
from trueup.data.votes.store import Store
with Store.open(sys.argv[1]) as store:
    rater = store.rater("a")
    while shown := store.next(rater):
        store.vote(rater, Ballot(f"r{shown.pair.id}", shown.pair.id, "first"))
"""
    voting = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        found: list[tuple[int | None, int]] = []
        while voting.poll() is None:
            reader = open_reader(str(path), "train")
            found.append((reader.event, len(list(reader.entries()))))
    finally:
        voting.wait()
    assert voting.returncode == 0
    assert all(event == rows for event, rows in found)  # an event is a vote here, and a vote is a row
    assert [event for event, _ in found] == sorted(event for event, _ in found if event)


# What is said.


def test_nobody_has_voted(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "", "")
    with pytest.raises(DataError) as caught:
        open_reader(str(path), "train")
    assert "nobody has voted on its 2 pairs yet" in refused(caught.value)
    assert f"trueup rank {path}" in str(caught.value)


def test_nothing_was_decided(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_reader(str(make_store(tmp_path / "votes.db", "t", "t", "s")), "train")
    assert "3 pairs were voted on and none decided: 2 a tie, 1 skipped" in refused(caught.value)


def test_an_event_that_is_not_there(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1")
    with pytest.raises(DataError) as caught:
        open_reader(f"{path}@2", "train")
    assert "last event is 1" in refused(caught.value)


def test_an_event_of_a_file_of_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(DataError) as caught:
        open_reader(f"{tmp_path / 'x.jsonl'}@2", "train")
    assert "leave out @2" in refused(caught.value)


def test_a_database_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    with pytest.raises(DataError, match="SQLite file of another program") as caught:
        open_reader(str(tmp_path / "x.db"), "train")
    refused(caught.value)


def test_a_store_under_any_name(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1").rename(tmp_path / "people.rankings")
    assert len(read(path)[0]) == 1


def test_without_sqlalchemy_the_extra_is_named(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1")
    code = f"""
import sys
sys.modules["sqlalchemy"] = None
from trueup.errors import MissingExtraError
from trueup.data.sources.stream import *
try:
    list(RowStream(DataConfig(path={str(path)!r}), "preference"))
except MissingExtraError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"{path}: " in said
    assert install_command("rank") in said


# In configurations.


@pytest.mark.parametrize(
    ("spec", "means"),
    [
        ("votes.db@1200", ("votes.db", 1200)),
        ("votes.db", ("votes.db", None)),
        ("votes.db@", ("votes.db@", None)),
        ("a@b/votes.db", ("a@b/votes.db", None)),
        ("@3", ("@3", None)),
        ("votes.db@1.5", ("votes.db@1.5", None)),
        ("owner/name", ("owner/name", None)),
    ],
)
def test_what_a_name_means(spec: str, means: tuple[str, int | None]) -> None:
    assert split_event(spec) == means


def test_a_file_whose_name_has_an_at(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1").rename(tmp_path / "votes@7")
    assert split_event(str(path)) == (str(path), None)
    assert len(read(path)[0]) == 1


def test_paths_are_checked(tmp_path: Path, tiny_base: str) -> None:
    make_store(tmp_path / "votes.db", "1")

    def config(path: str) -> DpoConfig:
        return DpoConfig.model_validate({"model": tiny_base, "output": str(tmp_path / "run"), "data": path})

    check_paths(config(str(tmp_path / "votes.db")))
    check_paths(config(str(tmp_path / "votes.db@1")))
    with pytest.raises(DataError, match=r"did you mean .*votes\.db"):
        check_paths(config(str(tmp_path / "vote.db@1")))
    with pytest.raises(DataError, match="no such file"):
        check_paths(config("not-there/votes.db"))  # has the form of a hub's name, and is none


def test_the_stage_a_store_is_for(tmp_path: Path, tiny_base: str) -> None:
    path = str(make_store(tmp_path / "votes.db", "1"))
    assert isinstance(stage_for(path, tiny_base, None, []), DpoConfig)
    sft = stage_for(f"{path}@1", tiny_base, "sft", ["data.use=chosen"])
    assert isinstance(sft, SftConfig)


def test_rows_are_json(tmp_path: Path) -> None:
    reader = open_reader(str(make_store(tmp_path / "votes.db", "1")), "train")
    ((origin, row),) = reader.entries()
    assert not isinstance(row, DataError)
    assert sorted(json.loads(json.dumps(row))) == ["chosen", "prompt", "rejected"]
    assert str(origin).endswith("votes.db:1")
