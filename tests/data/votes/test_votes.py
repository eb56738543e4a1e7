"""Votes and undos are events: each once, none overwritten, and what stands can be asked as of any of them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from data.votes.store_examples import check_store, connect, lease_pairs, make_store, vote_on, vote_on_next
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import MOST_EDIT, MOST_NOTE, Ballot, Rater
from trueup.errors import DataError


def test_a_vote_comes_back_as_it_was_given(tmp_path):
    said = Ballot("r1", 2, "second", 3, ("correct", "my own words"), "a note\0\n", "better ✓", "first", 4.25)
    with make_store(tmp_path) as opened:
        rater = opened.rater("Ann")
        lease_pairs(opened, rater, 2)
        given = opened.vote(rater, said, left="second")
        assert (given.rater, given.left, given.ballot) == (rater, "second", said)
    with Store.open(tmp_path / "votes.db") as again:
        assert again.votes() == [given]
        assert again.history(rater, 5) == [given]
        assert again.last_event() == given.id
        check_store(again)


def test_the_same_request_is_one_vote(tmp_path):
    with make_store(tmp_path, raters_per_pair=2) as opened:
        ann, bob = opened.rater("Ann"), opened.rater("Bob")
        lease_pairs(opened, ann, 1), lease_pairs(opened, bob, 1)
        first = opened.vote(ann, Ballot("same", 1, "first"))
        assert opened.vote(ann, Ballot("same", 1, "first")) == first
        assert opened.vote(ann, Ballot("same", 3, "second")) == first  # a page that sends it wrong has not voted twice
        assert opened.vote(bob, Ballot("same", 1, "second")).id != first.id  # another person's request is another
        assert opened.undo(ann, "undo") == first
        assert opened.vote(ann, Ballot("same", 1, "first")) == first  # sent again late: still taken back
        assert [said.rater for said in opened.votes()] == [bob]
        check_store(opened)


def test_a_second_vote_on_a_pair_is_refused_until_the_first_is_taken_back(tmp_path):
    with make_store(tmp_path) as opened:
        ann = opened.rater("Ann")
        lease_pairs(opened, ann, 1)
        opened.vote(ann, Ballot("1", 1, "skip"))
        with pytest.raises(DataError, match="pair 1: Ann has voted on it\n  fix: undo first"):
            opened.vote(ann, Ballot("2", 1, "first"))
        opened.undo(ann, "3")
        assert opened.vote(ann, Ballot("4", 1, "first")).ballot.choice == "first"


def test_undo_takes_back_the_last_standing_vote_once_for_each_request(tmp_path):
    with make_store(tmp_path) as opened:
        ann, bob = opened.rater("Ann"), opened.rater("Bob")
        one, two = vote_on(opened, ann, 1), vote_on(opened, ann, 2, "tie")
        other = vote_on(opened, bob, 3)
        assert opened.undo(ann, "u1") == two
        assert opened.undo(ann, "u1") == two  # the same press, sent again
        assert opened.votes() == [one, other]
        assert opened.undo(ann, "u2") == one
        assert opened.undo(ann, "u3") is None
        vote_on_next(opened, ann, "after")
        assert opened.undo(ann, "u3") is None  # also sent again, when there is one by now
        assert len(opened.votes()) == 2
        with pytest.raises(DataError, match="was a vote"):
            opened.undo(ann, "after")
        with pytest.raises(DataError, match="was an undo"):
            opened.vote(ann, Ballot("u1", 4, "first"))
        check_store(opened)


def test_what_stood_at_any_event_can_be_asked(tmp_path):
    """1 vote, 2 vote, 3 undo of 2, 4 vote, 5 undo of 4, 6 undo of 1; event 0 are the settings of the store."""
    with make_store(tmp_path) as opened:
        start = opened.last_event()
        ann = opened.rater("Ann")
        vote_on(opened, ann, 1), vote_on(opened, ann, 2)
        opened.undo(ann, "u1")
        opened.vote(ann, Ballot("again", 2, "tie"))
        opened.undo(ann, "u2"), opened.undo(ann, "u3")
        stood = {0: [], 1: [1], 2: [1, 2], 3: [1], 4: [1, 4], 5: [1], 6: []}
        for event, votes in stood.items():
            assert [said.id - start for said in opened.votes(until=start + event)] == votes
        assert opened.votes() == []
        assert opened.votes(until=0) == []
        assert opened.last_event() == start + 6
        check_store(opened)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pair": 99}, "pair 99: not in this store"),
        ({"pair": 2**70}, "not in this store"),
        ({"pair": -1}, "not in this store"),
        ({"choice": "left"}, "one of first, second, tie, both_bad, skip"),
        ({"choice": "tie", "strength": 2}, "a strength without a preference"),
        ({"strength": 4}, "strength is 4\n  fix: one of 1"),
        ({"note": "x" * (MOST_NOTE + 1)}, "the note has 2,001 characters"),
        ({"edit": "x" * (MOST_EDIT + 1)}, "the edit has 100,001 characters"),
        ({"reasons": ("x" * 201,)}, "reasons"),
        ({"reasons": ("x",) * 21}, "reasons"),
        ({"edit_of": "third"}, "edit_of"),
        ({"seconds": float("nan")}, "seconds"),
        ({"request": ""}, "1 to 200 characters"),
        ({"request": "x" * 201}, "1 to 200 characters"),
        ({"request": "\ud800"}, "1 to 200 characters"),
    ],
)
def test_a_vote_that_cannot_be_meant_is_refused_and_leaves_nothing(tmp_path, change, words):
    with make_store(tmp_path) as opened:
        ann, before = opened.rater("Ann"), opened.last_event()
        lease_pairs(opened, ann, 1)
        with pytest.raises(DataError, match=words):
            opened.vote(ann, replace(Ballot("r", 1, "first", 1), **change))
        assert opened.last_event() == before
        assert opened.vote(ann, Ballot("r", 1, "first", 1)).ballot.pair == 1  # the request is still free


def test_half_a_surrogate_pair_in_a_note_does_not_cost_the_vote(tmp_path):
    with make_store(tmp_path) as opened:
        given = vote_on(opened, opened.rater("Ann"), 1, note="a\ud83db", edit="\udc00", reasons=("\ud800", "😀"))
        assert (given.ballot.note, given.ballot.edit, given.ballot.reasons) == ("a�b", "�", ("�", "😀"))
        assert opened.votes() == [given]


def test_a_rater_of_another_store_cannot_vote(tmp_path):
    with make_store(tmp_path) as opened:
        with pytest.raises(DataError, match="not shown to Nobody"):
            opened.vote(Rater(7, "Nobody"), Ballot("r", 1, "first"))
        with pytest.raises(DataError, match="of this store"):
            opened.next(Rater(7, "Nobody"))
        assert opened.votes() == []


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE events SET choice = 'second'",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events (id, at, kind) SELECT id, at, 'undo' FROM events WHERE kind = 'vote'",
        "INSERT OR REPLACE INTO events (at, kind, rater, request) SELECT at, 'undo', rater, request FROM events",
        "UPDATE pairs SET first = second",
        "DELETE FROM pairs",
        "UPDATE prompts SET messages = '[]'",
        "DELETE FROM prompts",
    ],
)
def test_the_file_itself_refuses_to_overwrite_what_was_said(tmp_path, deed):
    with make_store(tmp_path) as opened:
        given = vote_on(opened, opened.rater("Ann"), 1)
        other = connect(opened.path)
        with pytest.raises(sqlite3.IntegrityError, match="never overwritten"):
            other.execute(deed)
        other.close()
        assert opened.votes() == [given]
        assert len(opened.pairs()) == 6


def test_history_is_the_raters_own_last_one_first(tmp_path):
    with make_store(tmp_path) as opened:
        ann, bob = opened.rater("Ann"), opened.rater("Bob")
        mine = [vote_on(opened, ann, number) for number in (3, 1, 2)]
        vote_on(opened, bob, 4)
        assert opened.history(ann, 2) == mine[:0:-1]
        opened.undo(ann, "u")
        assert opened.history(ann, 9) == mine[1::-1]


def test_an_undo_takes_back_the_vote_that_was_meant_or_none(tmp_path):
    with make_store(tmp_path) as opened:
        ann, bob = opened.rater("Ann"), opened.rater("Bob")
        assert opened.progress(ann).last is None
        one, two = vote_on(opened, ann, 1), vote_on(opened, ann, 2)
        vote_on(opened, bob, 3)
        assert opened.progress(ann).last == two.id
        with pytest.raises(DataError, match=r"^you have voted since, in another window: press undo again"):
            opened.undo(ann, "u1", of=one.id)
        assert opened.votes()[:2] == [one, two]
        assert opened.undo(ann, "u1", of=two.id) == two  # the refused request is still free
        assert opened.undo(ann, "u1", of=two.id) == two  # sent again
        assert opened.progress(ann).last == one.id
        with pytest.raises(DataError, match="that vote was taken back before, in another window"):
            opened.undo(ann, "u2", of=two.id)
        assert opened.undo(ann, "u3", of=one.id) == one
        assert opened.undo(ann, "u4", of=one.id) is None
        check_store(opened)


def test_a_vote_on_a_pair_that_the_rater_was_not_given_is_refused(tmp_path):
    """Else whoever guesses a pair's number decides on pairs that were never drawn for them."""
    with make_store(tmp_path, gold=1) as opened:
        ann, bob = opened.rater("Ann"), opened.rater("Bob")
        pair = opened.next(bob).pair.id
        for number in (pair, 7):  # 7: a gold one
            with pytest.raises(DataError, match=f"pair {number}: was not shown to Ann\n  fix: reload the page"):
                opened.vote(ann, Ballot("r", number, "first"))
        assert opened.vote(bob, Ballot("r", pair, "first")).ballot.pair == pair
        assert opened.undo(bob, "u", now=0)
        opened.release(bob, now=1e10)
        assert opened.vote(bob, Ballot("again", pair, "tie")).ballot.choice == "tie"
        check_store(opened)
