"""Votes as a file: which rows, whose words stand in them, that every vote is accounted for, and no file is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_votes import checked_message, make_store, new_pair, undo, vote
from trueup.config import DataConfig
from trueup.data.sources.stream import RowStream
from trueup.data.votes.rows import majority, rows
from trueup.data.votes.store import Store
from trueup.errors import DataError
from trueup.ranking.exchange import Exported, export

SAID = ["1", "2", "221", "12", "t", "b", "s", "s1", "", "tt2"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def adds_up(done: Exported, path: Path) -> Exported:
    """Both accounts hold exactly what the store does."""
    with Store.open(path) as store:
        votes = store.votes(done.event)
    assert sum(done.votes.values()) == len(votes)
    assert sum(done.pairs.values()) in (len({vote.ballot.pair for vote in votes}), len(votes))
    return done


def test_a_row_says_what_was_asked_chosen_and_said_by_whom(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "2")
    vote(path, 1, " 2s", strength=3, reasons=("clear",), note="shorter", seconds=2.5)
    export(path, tmp_path / "rows.jsonl")
    (row,) = lines(tmp_path / "rows.jsonl")
    votes = row.pop("votes")
    pair = new_pair(0)
    assert row == {
        "prompt": [{"role": "user", "content": "Hi?"}],
        "chosen": [{"role": "assistant", "content": pair.second.text}],
        "rejected": [{"role": "assistant", "content": pair.first.text}],
        "pair": 1,
        "models": {"chosen": "bad", "rejected": "good"},
        "sampling": {"chosen": {}, "rejected": {"temperature": 0.5, "seed": 0}},
        "tags": [],
        "origin": "prompts.jsonl:1",
    }
    assert [vote["choice"] for vote in votes] == ["chosen", "chosen", "skip"]
    with Store.open(path) as store:
        for vote_, told in zip(store.votes(), votes, strict=True):
            assert (told["rater"], told["at"], told["event"]) == (vote_.rater.name, vote_.at, vote_.id)
            assert told["left"] == ("chosen" if vote_.left == "second" else "rejected")
    assert {key: votes[1][key] for key in ("strength", "reasons", "note", "seconds", "policy", "score")} == {
        "strength": 3, "reasons": ["clear"], "note": "shorter", "seconds": 2.5, "policy": "random", "score": None,
    }  # fmt: skip


def test_the_majority(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", *SAID, gold="11")
    done = adds_up(export(path, tmp_path / "rows.jsonl"), path)
    assert [(row["pair"], row["models"]["chosen"]) for row in lines(tmp_path / "rows.jsonl")] == [
        (1, "good"), (2, "bad"), (3, "bad"), (8, "good"),
    ]  # fmt: skip
    assert done.rows == 4
    assert dict(done.pairs) == {"ranked": 4, "split": 1, "tie": 2, "both bad": 1, "skipped": 1, "gold": 1}
    assert dict(done.votes) == {"ranked": 7, "split": 2, "tie": 4, "both bad": 1, "skipped": 1, "gold": 2}
    told = str(done)
    assert "4 rows of 17 votes on 10 pairs" in told
    assert "10 = 4 ranked + 1 split + 2 tie + 1 both bad + 1 skipped + 1 gold" in told


def test_every_vote(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", *SAID, gold="11")
    done = adds_up(export(path, tmp_path / "rows.jsonl", votes="every"), path)
    found = [(row["pair"], row["models"]["chosen"], row["votes"][0]["rater"]) for row in lines(tmp_path / "rows.jsonl")]
    assert found == [
        (1, "good", "a"), (2, "bad", "a"), (3, "bad", "a"), (3, "bad", "b"), (3, "good", "c"),
        (4, "good", "a"), (4, "bad", "b"), (8, "good", "b"), (10, "bad", "c"),
    ]  # fmt: skip
    assert all(len(row["votes"]) == 1 for row in lines(tmp_path / "rows.jsonl"))
    assert dict(done.pairs) == {"ranked": 9, "tie": 3, "both bad": 1, "skipped": 2, "gold": 2} == dict(done.votes)


def test_gold_pairs_when_asked_for(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", gold="2")
    done = adds_up(export(path, tmp_path / "rows.jsonl", gold=True), path)
    assert [row["pair"] for row in lines(tmp_path / "rows.jsonl")] == [1, 2]
    assert dict(done.pairs) == {"ranked": 2}


@pytest.mark.parametrize(
    ("choices", "decided"),
    [
        (["first", "second", "tie"], None),
        (["first", "first", "second", "tie"], None),  # 2 of 4 are no more than half
        (["first", "first", "second"], "first"),
        (["skip", "both_bad", "skip"], "both_bad"),
        (["skip"], "skip"),
        (["tie", "tie", "second"], "tie"),
    ],
)
def test_more_than_half(choices: list[Any], decided: str | None) -> None:
    assert majority(choices) == majority(reversed(choices)) == decided


def test_verdicts_for_kto(tmp_path: Path) -> None:
    """Two rows a decided pair, and two bad ones where both are bad; a tie says of neither what it is."""
    path = make_store(tmp_path / "votes.db", "1", "b", "t", "2")
    done = adds_up(export(path, tmp_path / "rows.jsonl", form="verdicts"), path)
    found = lines(tmp_path / "rows.jsonl")
    assert [(row["pair"], row["models"]["this"], row["label"]) for row in found] == [
        (1, "good", True), (1, "bad", False), (2, "good", False), (2, "bad", False),
        (4, "good", False), (4, "bad", True),
    ]  # fmt: skip
    assert [row["votes"][0]["choice"] for row in found] == ["this", "other", "both_bad", "both_bad", "other", "this"]
    assert (done.rows, dict(done.pairs)) == (6, {"ranked": 2, "both bad": 1, "tie": 1})
    read = list(RowStream(DataConfig(path=str(tmp_path / "rows.jsonl")), "labelled"))
    assert [row.desirable for row in read] == [row["label"] for row in found]


def test_margins(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "12", strength=1)
    vote(path, 1, "  11", strength=2)
    export(path, tmp_path / "rows.jsonl", margin=True)
    assert [row["margin"] for row in lines(tmp_path / "rows.jsonl")] == [pytest.approx(5 / 3)]  # of 1, 2, 2
    with Store.open(path) as store:
        store.add_pairs([new_pair(1)])
    vote(path, 2, "1")
    before = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(DataError) as caught:
        export(path, tmp_path / "rows.jsonl", margin=True)
    assert "1 of 2 rankings have no strength, first that of pair 2" in checked_message(caught.value)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_edited_answers_are_conversations(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", "")
    vote(path, 1, " b", edit="Better than both.", edit_of="second")
    vote(path, 2, "t", edit="From nothing.")
    done = export(path, tmp_path / "rows.jsonl", edits=tmp_path / "edits.jsonl", votes="every")
    assert done.edits == 2
    found = list(RowStream(DataConfig(path=str(tmp_path / "edits.jsonl")), "conversation"))
    assert [row.response for row in found] == ["Better than both.", "From nothing."]  # type: ignore[union-attr]
    told = lines(tmp_path / "edits.jsonl")
    assert [(row["edit_of"], row["pair"], row["votes"][0]["rater"]) for row in told] == [
        (new_pair(0).second.text, 1, "b"),
        (None, 2, "a"),
    ]


def test_as_it_stood_at_an_event(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", "2")
    undo(path, "a")
    vote(path, 2, "1")
    now = adds_up(export(path, tmp_path / "now.jsonl"), path)
    then = adds_up(export(f"{path}@2", tmp_path / "then.jsonl"), path)
    assert (now.event, then.event) == (4, 2)
    assert [row["models"]["chosen"] for row in lines(tmp_path / "now.jsonl")] == ["good", "good"]
    assert [row["models"]["chosen"] for row in lines(tmp_path / "then.jsonl")] == ["good", "bad"]


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", *SAID)
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        export(path, tmp_path / name)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    with Store.open(path) as store:
        assert list(rows(store)) == lines(tmp_path / "a.jsonl")


# Files that are there.


def test_an_export_of_this_store_is_replaced(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1", "")
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / "real.jsonl")
    export(path, tmp_path / "rows.jsonl", edits=tmp_path / "edits.jsonl")
    vote(path, 2, "2", edit="x")
    export(path, tmp_path / "rows.jsonl", edits=tmp_path / "edits.jsonl")
    assert len(lines(tmp_path / "real.jsonl")) == 2
    assert (tmp_path / "rows.jsonl").is_symlink()
    assert len(lines(tmp_path / "edits.jsonl")) == 1


def changed(line: dict[str, Any], **more: Any) -> str:
    return json.dumps(line | more) + "\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: '{"prompt": "mine", "chosen": "a", "rejected": "b"}\n',
        lambda line: changed(line) + '{"prompt": "mine", "chosen": "a", "rejected": "b"}\n',
        lambda line: changed(line, chosen=[{"role": "assistant", "content": "mended by hand"}]),
        lambda line: changed(line, remark="mine"),
        lambda line: changed(line, pair=99),
        lambda line: "no JSON\n",
        lambda line: "[1]\n",
    ],
)
def test_what_did_not_come_from_the_store_is_not_lost(tmp_path: Path, spoil: Any) -> None:
    path, out = make_store(tmp_path / "votes.db", "1"), tmp_path / "rows.jsonl"
    export(path, out)
    out.write_text(spoil(lines(out)[0]))
    before = out.read_bytes()
    with pytest.raises(DataError) as caught:
        export(path, out)
    assert "--force" in checked_message(caught.value)
    assert out.read_bytes() == before
    export(path, out, force=True)
    assert len(lines(out)) == 1


def test_the_export_of_another_store_is_not_lost(tmp_path: Path) -> None:
    export(make_store(tmp_path / "one.db", "1", "1"), tmp_path / "rows.jsonl")
    with Store.open(tmp_path / "two.db", create=True) as store:
        store.add_pairs([new_pair(3)])
    vote(tmp_path / "two.db", 1, "1")
    with pytest.raises(DataError, match="not all of it came from this store"):
        export(tmp_path / "two.db", tmp_path / "rows.jsonl")


def test_neither_file_is_written_where_one_may_not_be(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1")
    (tmp_path / "edits.jsonl").write_text("mine\n")
    with pytest.raises(DataError):
        export(path, tmp_path / "rows.jsonl", edits=tmp_path / "edits.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()
    with pytest.raises(DataError, match="in one file"):
        export(path, tmp_path / "rows.jsonl", edits=tmp_path / "rows.jsonl")
    for wrong in (path, tmp_path, tmp_path / "rows.csv"):
        with pytest.raises(DataError) as caught:
            export(path, wrong, force=True)
        checked_message(caught.value)
    assert path.read_bytes().startswith(b"SQLite format 3")


def test_a_store_is_never_replaced(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1").rename(tmp_path / "votes.jsonl")
    with pytest.raises(DataError, match="is never replaced"):
        export(path, path, force=True)
    with Store.open(path) as store:
        assert len(store.votes()) == 1


def test_nothing_decided_writes_nothing(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "t", "")
    with pytest.raises(DataError) as caught:
        export(path, tmp_path / "rows.jsonl")
    assert "none of 1 pair with votes is decided" in checked_message(caught.value)
    assert not (tmp_path / "rows.jsonl").exists()
    with pytest.raises(DataError, match="nothing is there"):
        export(tmp_path / "no.db", tmp_path / "rows.jsonl")
    assert not (tmp_path / "no.db").exists()


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        export(path, tmp_path / "file" / "rows.jsonl")


def test_an_event_that_is_not_there(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", "1")
    with pytest.raises(DataError) as caught:
        export(f"{path}@2", tmp_path / "rows.jsonl")
    assert "votes.db@2: the store's last event is 1" in checked_message(caught.value)
    assert not (tmp_path / "rows.jsonl").exists()


def test_edits_without_a_decided_pair(tmp_path: Path) -> None:
    """The edits are written, and no empty file of rankings; nothing at all is refused."""
    path = make_store(tmp_path / "votes.db", "b", "b")
    out, edits = tmp_path / "rows.jsonl", tmp_path / "edits.jsonl"
    with pytest.raises(DataError) as caught:
        export(path, out, edits=edits)
    assert "none of 2 pairs with votes is decided: no row and no edited answer to write" in checked_message(
        caught.value
    )
    vote(path, 1, " b", edit="Better than both.")
    told = str(export(path, out, edits=edits))
    assert "rows.jsonl: 0 rows of 3 votes on 2 pairs, so it was not written" in told
    assert len(lines(edits)) == 1
    assert not out.exists()
    with pytest.raises(DataError):
        export(path, out)


def test_no_edits_are_said_and_no_empty_file_is_written(tmp_path: Path) -> None:
    path, edits = make_store(tmp_path / "votes.db", "1"), tmp_path / "edits.jsonl"
    told = str(export(path, tmp_path / "rows.jsonl", edits=edits))
    assert "rows.jsonl: 1 row of 1 vote\n" in told
    assert "  0 edited answers\n" in told
    assert not edits.exists()
    assert "edited" not in str(export(path, tmp_path / "rows.jsonl"))


def test_edits_of_gold_pairs_when_asked_for(tmp_path: Path) -> None:
    path, edits = make_store(tmp_path / "votes.db", "1", gold="1"), tmp_path / "edits.jsonl"
    vote(path, 2, " 1", edit="Better.", edit_of="first")
    assert export(path, tmp_path / "rows.jsonl", edits=edits).edits == 0
    assert export(path, tmp_path / "rows.jsonl", edits=edits, gold=True).edits == 1
    assert [row["gold"] for row in lines(edits)] == ["first"]
    assert export(path, tmp_path / "rows.jsonl", edits=edits, gold=True).rows == 2  # files of ours are replaced
