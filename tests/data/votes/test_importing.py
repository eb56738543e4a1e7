"""Votes given elsewhere: entered once, with their pairs, whichever answer is called first."""

from __future__ import annotations

import pytest

from data.votes.store_examples import check_store, make_store, new_pair, vote_on
from trueup.data.votes.vote_types import AddedCounts, Ballot, NewPair
from trueup.errors import DataError


def given(number, name="Ann", choice="first", at="2026-01-31T13:00:00+01:00", left="first", **said):
    return new_pair(number), name, Ballot("", 0, choice, **said), at, left


def test_a_vote_comes_in_with_its_pair_rater_and_time(tmp_path):
    with make_store(tmp_path, 1) as opened:
        one = given(7, strength=2, reasons=("clear",), note="n", edit="e", edit_of="second", left="second")
        assert opened.import_votes([one, given(0, "Bob", "skip", at="2026-01-31T12:00:00")]) == AddedCounts(2, 0)
        first, second = opened.votes()
        assert (first.rater.name, first.at, first.left) == ("Ann", "2026-01-31T12:00:00.000+00:00", "second")
        assert second.at == first.at  # without a zone it is UTC
        assert (first.policy, first.score) == ("", None)
        said = first.ballot
        assert (said.pair, said.choice, said.strength, said.reasons) == (2, "first", 2, ("clear",))
        assert (said.note, said.edit, said.edit_of) == ("n", "e", "second")
        assert opened.pair(2).first == new_pair(7).first
        check_store(opened)


def test_the_same_vote_is_known_however_it_came(tmp_path):
    with make_store(tmp_path, 3) as opened:
        vote_on(opened, opened.rater("Ann"), 1, "tie")
        rows = [given(0, choice="tie"), given(1), given(1), given(1, "Bob")]
        assert opened.import_votes(rows) == AddedCounts(2, 2)
        assert opened.import_votes(rows) == AddedCounts(0, 4)
        undone = opened.undo(opened.rater("Ann"), "u")
        assert undone is not None
        assert undone.ballot.pair == 2
        assert opened.import_votes(rows) == AddedCounts(0, 4)  # what was taken back stays so
        assert len(opened.votes()) == 2
        check_store(opened)


def test_a_pair_the_other_way_round_is_the_same_and_so_is_the_vote(tmp_path):
    with make_store(tmp_path, 2) as opened:
        one, name, ballot, at, left = given(0, choice="second", edit="e", edit_of="second", left="second")
        turned = NewPair(one.prompt, one.second, one.first)
        assert opened.import_votes([(turned, name, ballot, at, left)]) == AddedCounts(1, 0)
        (vote,) = opened.votes()
        assert (vote.ballot.pair, vote.ballot.choice, vote.ballot.edit_of, vote.left) == (1, "first", "first", "first")
        assert opened.import_votes([given(0, choice="first")]) == AddedCounts(0, 1)
        assert opened.import_votes([(turned, "Bob", Ballot("", 0, "tie"), at, left)]) == AddedCounts(1, 0)
        assert opened.votes()[1].ballot.choice == "tie"


def test_a_contradiction_or_fault_leaves_nothing_of_the_file(tmp_path):
    with make_store(tmp_path, 1) as opened:
        before = opened.counts()
        faults = {
            "Ann said first of this pair before, now second": [given(5), given(5, choice="second")],
            'the time "noon" is not ISO 8601': [given(5), given(6, at="noon")],
            "a strength without a preference": [given(5), given(6, choice="tie", strength=1)],
            "the rater's name is empty": [given(5), given(6, name=" ")],
        }
        for words, rows in faults.items():
            with pytest.raises(DataError, match=words):
                opened.import_votes(rows)
            assert opened.counts() == before
        check_store(opened)


def test_imported_votes_count_for_what_comes_next(tmp_path):
    with make_store(tmp_path, 2) as opened:
        ann = opened.rater("Ann")
        held = opened.next(ann)
        number = int(held.pair.first.text.split()[1])
        opened.import_votes([given(number)])
        following = opened.next(ann)
        assert following.pair != held.pair
        assert opened.progress(ann).mine == 1


def test_many_raters_and_chunks_are_counted_as_one_by_one(tmp_path):
    """Half of Bob's are there before, so that requests of one rater meet new ones of another."""
    rows = [given(number, name) for number in range(400) for name in ("Ann", "Bob")]
    with make_store(tmp_path, 100, raters_per_pair=2) as opened:
        assert opened.import_votes(row for row in rows[:200] if row[1] == "Bob") == AddedCounts(100, 0)
        assert opened.import_votes(rows) == AddedCounts(700, 100)
        told = opened.progress(opened.rater("Ann"))
        assert (told.mine, told.pairs, told.complete, told.left) == (400, 400, 400, 0)
        assert sum(said.rater.name == "Bob" for said in opened.votes()) == 400
        check_store(opened)
