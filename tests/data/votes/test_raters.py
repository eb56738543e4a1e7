"""Raters by name, invitation and session."""

from __future__ import annotations

import time

import pytest

from data.votes.store_examples import connect, make_store
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import MOST_NAME
from trueup.errors import DataError


def test_a_name_is_one_rater(tmp_path):
    with make_store(tmp_path) as opened:
        ann = opened.rater("Zoë")
        assert opened.rater("  Zoe\u0308 ") == ann  # spaces, and the same letter in two characters
        assert opened.rater("zoë") != ann
        assert [rater.name for rater in opened.raters()] == ["Zoë", "zoë"]
        assert opened.rater("नम\u200dस").name == "नम\u200dस"  # a joiner that Hindi is written with
        assert opened.rater("x" * MOST_NAME).id == 4


@pytest.mark.parametrize("name", ["", "  ", "x" * (MOST_NAME + 1), "a\nb", "a\0", "\u202eabc", "a\u200bb", "\ud800"])
def test_a_name_that_cannot_be_read_is_refused(tmp_path, name):
    with make_store(tmp_path) as opened:
        for method in (opened.rater, opened.invite):
            with pytest.raises(DataError, match="the rater's name"):
                method(name)
        assert opened.raters() == []


def test_invitations_and_sessions_let_their_rater_in_and_nobody_else(tmp_path):
    with make_store(tmp_path) as opened:
        token, again = opened.invite("Ann"), opened.invite("Ann")
        ann, bob = opened.rater("Ann"), opened.rater("Bob")
        assert opened.rater_of(token) == opened.rater_of(again) == ann
        session, other = opened.session(ann), opened.session(bob)
        assert (opened.rater_of_session(session), opened.rater_of_session(other)) == (ann, bob)
        assert len({token, again, session, other}) == 4
        assert min(map(len, (token, session))) >= 32
        for wrong in ("", "x", token[:-1], session, "\ud800", "a\0"):
            assert opened.rater_of(wrong) is None
        for wrong in ("", token, session.swapcase()):
            assert opened.rater_of_session(wrong) is None
    with Store.open(tmp_path / "votes.db") as opened:
        assert opened.rater_of_session(session) == ann
    held = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert token.encode() not in held
    assert session.encode() not in held


def test_a_guests_session_is_nobodys_where_guests_are_not_let_in(tmp_path):
    with make_store(tmp_path) as opened:
        ann = opened.rater("Ann")
        invited, guest = opened.session(ann), opened.session(ann, guest=True)
        assert opened.rater_of_session(invited, guests=False) == opened.rater_of_session(guest) == ann
        assert opened.rater_of_session(guest, guests=False) is None


def test_a_session_ends_when_asked_and_after_thirty_days(tmp_path):
    with make_store(tmp_path) as opened:
        token, ann = opened.invite("Ann"), opened.rater("Ann")
        one, other = opened.session(ann), opened.session(ann)
        opened.end_session(one), opened.end_session(token), opened.end_session("\ud800")
        assert (opened.rater_of_session(one), opened.rater_of_session(other), opened.rater_of(token)) == (
            None,
            ann,
            ann,
        )
        days = [opened.rater_of_session(other, now=time.time() + day * 86_400) for day in (29.99, 30.01)]
        assert days == [ann, None]


def test_a_session_of_a_store_that_did_not_know_of_guests_may_be_a_guests(tmp_path):
    make_store(tmp_path).close()
    connection = connect(tmp_path / "votes.db")
    connection.execute("ALTER TABLE secrets DROP COLUMN guest")  # as the first stores are
    connection.close()
    with Store.open(tmp_path / "votes.db", read_only=True) as opened:
        assert opened.votes() == []
    with Store.open(tmp_path / "votes.db") as opened:
        session = opened.session(opened.rater("Ann"))
        with opened._database.writing() as told:
            told.exec_driver_sql("UPDATE secrets SET guest = NULL")
        assert opened.rater_of_session(session) == opened.rater("Ann")
        assert opened.rater_of_session(session, guests=False) is None
