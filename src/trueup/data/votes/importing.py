"""Votes that were given elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from trueup.data.votes import content, raters, votes
from trueup.data.votes.ballots import check_ballot
from trueup.data.votes.database import now_utc
from trueup.data.votes.vote_types import Ballot, NewPair, Pair, Rater, Side
from trueup.errors import DataError
from trueup.system.text import excerpt

ImportedVote = tuple[NewPair, str, Ballot, str, Side]
"""A pair, the rater's name, what was said (`pair` and `request` are not read), when (ISO 8601; "": now), what was A."""

_OTHER: dict[str, Side] = {"first": "second", "second": "first"}


def add(connection: Connection, key: str, given: Sequence[ImportedVote]) -> int:
    """Enter votes that are not there. -> how many are new.

    Raises:
        DataError: a vote cannot be meant, or its rater has said something else of the pair.
    """
    ids, _ = content.add_pairs(connection, key, [pair for pair, *_ in given])
    stored = {pair.id: pair for pair in content.some_pairs(connection, list(set(ids.values())))}
    by = {
        name: raters.find_or_add_rater(connection, raters.normalize_name(name))
        for name in dict.fromkeys(name for _, name, *_ in given)
    }
    before = votes.on_pairs(connection, [rater.id for rater in by.values()], stored)
    said = {key: vote.ballot for key, vote in before.items()}
    rows: list[dict[str, Any]] = []
    for one in given:
        here, rater = stored[ids[content.pair_digest(one[0])]], by[one[1]]
        ballot, at, left = _as_stored(one, here)
        earlier = said.setdefault((rater.id, here.id), ballot)
        if _verdict(earlier) != _verdict(ballot):
            raise _contradiction(one[0], rater, earlier, ballot)
        if earlier is ballot:
            rows.append(votes.event_of(rater, ballot, at, left))
    undone = {(vote.rater.id, vote.ballot.request) for vote in votes.requested(connection, rows)}
    rows = [row for row in rows if (row["rater"], row["request"]) not in undone]
    if rows:
        votes.enter(connection, rows)
    return len(rows)


def _as_stored(given: ImportedVote, here: Pair) -> tuple[Ballot, str, Side]:
    """What was said, when and of what as A, in the sides of the pair as it is in the store."""
    pair, _, ballot, at, left = given
    if (here.first.text, here.first.model) != (pair.first.text, pair.first.model):
        ballot, left = _turned(ballot), _OTHER[left]
    return check_ballot(replace(ballot, pair=here.id, request=f"import-{here.id}")), _utc(at), left


def _verdict(ballot: Ballot) -> tuple[str, int | None]:
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
