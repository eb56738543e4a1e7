"""Import of votes from files, together with the pairs that they are about."""

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
"""(pair, rater's name, ballot without its `pair` and `request`, time in ISO 8601 or "" for now, answer shown as A)."""

_OTHER: dict[str, Side] = {"first": "second", "second": "first"}


def add(connection: Connection, key: str, given: Sequence[ImportedVote]) -> int:
    """Add the votes that are not stored yet, with their pairs and raters, and return the number of new votes.

    A vote that was imported before and then undone is not added again. `key` is the store's secret and seed.

    Raises:
        DataError: a ballot is invalid, or its choice or strength differs from the rater's stored vote on the pair.
    """
    ids, _ = content.add_pairs(connection, key, [pair for pair, *_ in given])
    stored = {pair.id: pair for pair in content.some_pairs(connection, list(set(ids.values())))}
    by_name = {
        name: raters.find_or_add_rater(connection, raters.normalize_name(name))
        for name in dict.fromkeys(name for _, name, *_ in given)
    }
    before = votes.on_pairs(connection, [rater.id for rater in by_name.values()], stored)
    ballots = {key: vote.ballot for key, vote in before.items()}
    rows: list[dict[str, Any]] = []
    for imported in given:
        pair, rater = stored[ids[content.pair_digest(imported[0])]], by_name[imported[1]]
        ballot, time, left = _as_stored(imported, pair)
        earlier = ballots.setdefault((rater.id, pair.id), ballot)
        if _verdict(earlier) != _verdict(ballot):
            raise _contradiction(imported[0], rater, earlier, ballot)
        if earlier is ballot:
            rows.append(votes.event_of(rater, ballot, time, left))
    undone = {(vote.rater.id, vote.ballot.request) for vote in votes.requested(connection, rows)}
    rows = [row for row in rows if (row["rater"], row["request"]) not in undone]
    if rows:
        votes.enter(connection, rows)
    return len(rows)


def _as_stored(imported: ImportedVote, stored: Pair) -> tuple[Ballot, str, Side]:
    """Return the ballot, the time and the side shown as A of an imported vote, in terms of the stored pair.

    The stored pair may hold the two answers in the other order; "first" and "second" are then exchanged.
    """
    pair, _, ballot, time, left = imported
    if (stored.first.text, stored.first.model) != (pair.first.text, pair.first.model):
        ballot, left = _exchanged(ballot), _OTHER[left]
    return check_ballot(replace(ballot, pair=stored.id, request=f"import-{stored.id}")), _utc(time), left


def _verdict(ballot: Ballot) -> tuple[str, int | None]:
    return ballot.choice, ballot.strength


def _contradiction(pair: NewPair, rater: Rater, before: Ballot, ballot: Ballot) -> DataError:
    place = f"{pair.prompt.origin}: " if pair.prompt.origin else ""
    return DataError(
        f"{place}{rater.name} said {before.choice} of this pair before, now {ballot.choice}\n"
        "  fix: give the votes of different people different names, or leave one out"
    )


def _exchanged(ballot: Ballot) -> Ballot:
    """Return the ballot with "first" and "second" exchanged, for a pair that holds the answers in the other order."""
    choice = _OTHER.get(ballot.choice, ballot.choice)
    return replace(ballot, choice=choice, edit_of=ballot.edit_of and _OTHER[ballot.edit_of])


def _utc(text: str) -> str:
    if not text:
        return now_utc()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"the time {excerpt(text)} is not ISO 8601\n  fix: like 2026-01-31T12:00:00Z") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
