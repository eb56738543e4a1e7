"""Votes that were given elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from trueup.chat import excerpt
from trueup.errors import DataError
from trueup.ranking.store import content, raters, votes
from trueup.ranking.store.ballots import checked
from trueup.ranking.store.database import now_utc
from trueup.ranking.store.schema import Ballot, NewPair, Rater, Side

Given = tuple[NewPair, str, Ballot, str, Side]
"""A pair, the rater's name, what was said (`pair` and `request` are not read), when (ISO 8601; "": now), what was A."""

_OTHER: dict[str, Side] = {"first": "second", "second": "first"}


def add(connection: Connection, seed: int, given: Sequence[Given]) -> int:
    """Enter votes that are not there. -> how many are new.

    Raises:
        DataError: a vote cannot be meant, or its rater has said something else of the pair.
    """
    ids, _ = content.add_pairs(connection, seed, [pair for pair, *_ in given])
    stored = {pair.id: pair for pair in content.some_pairs(connection, list(set(ids.values())))}
    new = 0
    for pair, name, said, at, shown in given:
        ballot, left = said, shown
        here = stored[ids[content.pair_digest(pair)]]
        if (here.first.text, here.first.model) != (pair.first.text, pair.first.model):
            ballot, left = _turned(said), _OTHER[shown]
        rater = raters.made(connection, raters.proper(name))
        ballot = checked(replace(ballot, pair=here.id, request=f"import-{here.id}"))
        before = votes.of_pair(connection, rater, here.id)
        if before is not None and _said(before.ballot) != _said(ballot):
            raise _contradiction(pair, rater, before.ballot, ballot)
        if before is None and not votes.was_requested(connection, rater, ballot.request):
            votes.enter(connection, rater, ballot, at=_utc(at), left=left)
            new += 1
    return new


def _said(ballot: Ballot) -> tuple[str, int | None]:
    return ballot.choice, ballot.strength


def _contradiction(pair: NewPair, rater: Rater, before: Ballot, ballot: Ballot) -> DataError:
    place = f"{pair.prompt.origin}: " if pair.prompt.origin else ""
    return DataError(
        f"{place}{rater.name} said {before.choice} of this pair before, now {ballot.choice}\n"
        "  fix: give the votes of different people different names, or leave one out"
    )


def _turned(ballot: Ballot) -> Ballot:
    """What was said of a pair that is here the other way round."""
    choice = _OTHER.get(ballot.choice, ballot.choice)
    return replace(ballot, choice=choice, edit_of=ballot.edit_of and _OTHER[ballot.edit_of])


def _utc(at: str) -> str:
    if not at:
        return now_utc()
    try:
        told = datetime.fromisoformat(at)
    except ValueError:
        raise DataError(f"the time {excerpt(at)} is not ISO 8601\n  fix: like 2026-01-31T12:00:00Z") from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
