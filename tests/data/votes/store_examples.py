"""Stores to test with, and what is checked of every one: nothing lost, doubled or mixed up, and the counts right."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from trueup.data.rendering.messages import Message
from trueup.data.votes import content, leases, settings
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, Ballot, NewPair, NewPrompt, Rater, Side, StoreSettings, Vote

DERIVED = ("standing", "tallies", "levels", "shares")


def new_prompt(number: int, **more) -> NewPrompt:
    return NewPrompt((Message("user", f"question {number}"),), **more)


def new_pair(number: int, gold: Side | None = None) -> NewPair:
    first = Answer(f"yes {number}", "one", {"temperature": 1.0})
    return NewPair(new_prompt(number), first, Answer(f"no {number}", "two", {"seed": number}), gold)


def make_store(folder: Path, pairs: int = 6, *, gold: int = 0, **wanted) -> Store:
    """A store of that many pairs, and gold ones behind them."""
    opened = Store.open(folder / "votes.db", create=True)
    opened.configure(StoreSettings(**{"gold_every": 0, **wanted}))
    opened.add_pairs(new_pair(number, "first" if number >= pairs else None) for number in range(pairs + gold))
    return opened


def with_salt(opened: Store, salt: str = "the same") -> Store:
    """The store with a secret that is known, so that its chance is."""
    with opened._database.writing() as connection:
        settings.remember(connection, "salt", salt)
        content.reorder(connection, settings.key(connection))
    return opened


def vote_on_next(opened: Store, rater: Rater, request: str, choice="first", **said) -> Vote | None:
    """Vote on the next pair."""
    shown = opened.next(rater)
    return shown and opened.vote(rater, Ballot(request, shown.pair.id, choice, **said))


def vote_on(opened: Store, rater: Rater, number: int, choice="first", **said) -> Vote:
    lease_pairs(opened, rater, number)
    return opened.vote(rater, Ballot(f"{rater.name} on {number}", number, choice, **said))


def lease_pairs(opened: Store, rater: Rater, *numbers: int, held: bool = False) -> None:
    """Give the rater these pairs; the reservations have expired, or (`held`) last for ten minutes."""
    now, seconds = (time.time(), 600.0) if held else (0.0, 1.0)
    with opened._database.writing() as connection:
        for number in numbers:
            if leases.of(connection, rater, number) is None:
                told = {"left": "first", "policy": "random", "score": None}
                leases.give(connection, rater, number, told, now=now, seconds=seconds)


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path)


def derived_rows(path: Path) -> dict[str, list[tuple]]:
    """Return the rows of the derived tables, without levels that have no pair."""
    connection = connect(path)
    told = {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in DERIVED}
    connection.close()
    told["levels"] = [row for row in told["levels"] if row[3]]
    return told


def check_store(opened: Store) -> None:
    """The file is whole, its counts are those of its events, and nobody has two votes on one pair."""
    connection = connect(opened.path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    before = derived_rows(opened.path)
    opened.rebuild()
    assert derived_rows(opened.path) == before
    votes = opened.votes()
    assert len({(said.rater, said.ballot.pair) for said in votes}) == len(votes)
    assert [said.id for said in votes] == sorted(said.id for said in votes)


def pairs_of(votes: Iterable[Vote]) -> list[int]:
    return [said.ballot.pair for said in votes]
