"""Votes and undos, stored as events that are only added, never changed.

A vote counts unless a later event undoes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, exists, select
from sqlalchemy.dialects.sqlite import insert

from trueup.data.votes import choosing, content, counting, leases
from trueup.data.votes.ballots import check_ballot, check_request
from trueup.data.votes.content import left_side
from trueup.data.votes.database import now_utc
from trueup.data.votes.settings import key
from trueup.data.votes.tables import events, raters, standing
from trueup.data.votes.vote_types import Ballot, Rater, Side, StoreSettings, Vote
from trueup.errors import DataError

_undos = events.alias("undos")


def cast(
    connection: Connection,
    rater: Rater,
    ballot: Ballot,
    settings: StoreSettings,
    now: float,
    *,
    left: Side | None = None,
) -> Vote:
    """Add a vote and return it; a ballot whose request id was sent before returns that first vote.

    `left` is the side shown as A; by default the one stored when the pair was shown to the rater.

    Raises:
        DataError: the ballot is invalid, the rater has voted on the pair already or was never shown it, or the pair
            needs no more votes.
    """
    check_request(ballot.request)
    before = _requested(connection, rater, ballot.request)
    if before is not None:
        if before.kind != "vote":
            raise DataError(f"request {ballot.request} was an undo\n  fix: a random one each time")
        return _by_id(connection, before.id)
    ballot = check_ballot(ballot)
    prompt = _prompt_of(connection, ballot.pair)
    if on_pairs(connection, [rater.id], [ballot.pair]):
        raise DataError(f"pair {ballot.pair}: {rater.name} has voted on it\n  fix: undo first")
    lease = leases.of(connection, rater, ballot.pair)
    if lease is None and not _has_event(connection, rater, ballot.pair):
        raise DataError(f"pair {ballot.pair}: was not shown to {rater.name}\n  fix: reload the page")
    if ballot.choice != "skip" and not choosing.is_open(connection, rater, ballot.pair, settings, now):
        raise DataError(
            f"pair {ballot.pair}: needs no more votes, as other raters got it while it was not reserved for "
            f"{rater.name}\n  fix: vote on the next pair"
        )
    side = left or (lease.left if lease else left_side(key(connection), prompt, rater.id))
    policy, score = (lease.policy, lease.score) if lease else ("", None)
    (vote,) = enter(connection, [event_of(rater, ballot, now_utc(), side, policy, score)])
    return vote


def event_of(
    rater: Rater, ballot: Ballot, at: str, left: Side, policy: str = "", score: float | None = None
) -> dict[str, Any]:
    """Return the row of the table `events` that stores a vote, as {column: value}."""
    columns = {name: getattr(ballot, name) for name in _BALLOT_COLUMNS} | {"reasons": list(ballot.reasons)}
    return {"at": at, "kind": "vote", "rater": rater.id, "left": left, "policy": policy, "score": score, **columns}


def enter(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Vote]:
    """Add votes, given as rows of the table `events`, and return them.

    The derived tables are updated, and the raters' leases (reservations) of these pairs end.
    """
    connection.execute(insert(events), list(rows))
    votes = requested(connection, rows)
    counting.votes(
        connection, [(vote.id, vote.rater.id, vote.ballot.pair, vote.ballot.choice != "skip") for vote in votes]
    )
    leases.drop(connection, [(vote.rater.id, vote.ballot.pair) for vote in votes])
    return votes


def undo(
    connection: Connection, rater: Rater, request: str, settings: StoreSettings, now: float, *, of: int | None = None
) -> Vote | None:
    """Undo the rater's last vote that is not undone yet, and lease its pair to the rater again if it needs votes.

    A repeated request id undoes one vote only. `of` is the id of the vote to undo; None: the last one.

    Returns:
        The vote that was undone; None if there was none.

    Raises:
        DataError: the request id was used for a vote, or the rater's last vote is not `of`.
    """
    check_request(request)
    before = _requested(connection, rater, request)
    if before is not None:
        if before.kind != "undo":
            raise DataError(f"request {request} was a vote\n  fix: a random one each time")
        return None if before.undoes is None else _by_id(connection, before.undoes)
    last = next(iter(history(connection, rater, 1)), None)
    if last is not None and of not in (None, last.id):
        change = "you have voted since" if last.id > of else "that vote was taken back before"
        raise DataError(f"{change}, in another window: press undo again")
    pair = None if last is None else last.ballot.pair
    row = {"at": now_utc(), "kind": "undo", "rater": rater.id, "request": request, "pair": pair}
    event = _add(connection, row | {"undoes": last and last.id})
    if last is not None and pair is not None:
        counting.undo(connection, event, last)
        if choosing.comes_back(connection, rater, last, settings, now):
            shown = {"left": last.left, "policy": last.policy, "score": last.score}
            leases.give(connection, rater, pair, shown, now=now, seconds=settings.lease_seconds)
    return last


def standing_votes(connection: Connection, until: int | None = None) -> list[Vote]:
    """Return the votes that were not undone as of event number `until` (None: now), oldest first."""
    later = exists().where(_undos.c.undoes == events.c.id)
    votes = _votes().order_by(events.c.id)
    if until is not None:
        votes, later = votes.where(events.c.id <= until), later.where(_undos.c.id <= until)
    return [_vote(row) for row in connection.execute(votes.where(~later))]


def history(connection: Connection, rater: Rater, limit: int) -> list[Vote]:
    """Return the newest `limit` votes of a rater that were not undone, the latest first."""
    query = _votes().join(standing, standing.c.vote == events.c.id).where(standing.c.rater == rater.id)
    return [_vote(row) for row in connection.execute(query.order_by(standing.c.vote.desc()).limit(limit))]


def on_pairs(connection: Connection, by: Iterable[int], pairs: Iterable[int]) -> dict[tuple[int, int], Vote]:
    """Return {(rater id, pair id): vote} for the given raters and pairs, without undone votes."""
    conditions = (standing.c.rater.in_(set(by)), standing.c.pair.in_(set(pairs)))
    rows = connection.execute(_votes().join(standing, standing.c.vote == events.c.id).where(*conditions))
    return {(row.rater, row.pair): _vote(row) for row in rows}


def requested(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Vote]:
    """Return the votes whose rater and request id occur in `rows`, oldest first, undone ones included."""
    wanted = {(row["rater"], row["request"]) for row in rows}
    by, requests = {rater for rater, _ in wanted}, {request for _, request in wanted}
    query = _votes().where(events.c.rater.in_(by), events.c.request.in_(requests))
    matches = sorted(connection.execute(query), key=lambda row: row.id)
    return [_vote(row) for row in matches if (row.rater, row.request) in wanted]


_BALLOT_COLUMNS = ("request", "pair", "choice", "strength", "note", "edit", "edit_of", "seconds")


def _votes() -> Select[Any]:
    return select(events, raters.c.name).join(raters, raters.c.id == events.c.rater).where(events.c.kind == "vote")


def _vote(row: Any) -> Vote:
    ballot = Ballot(**{name: getattr(row, name) for name in _BALLOT_COLUMNS}, reasons=tuple(row.reasons or ()))
    return Vote(row.id, row.at, Rater(row.rater, row.name), row.left, row.policy, row.score, ballot)


def _by_id(connection: Connection, event: int) -> Vote:
    return _vote(connection.execute(_votes().where(events.c.id == event)).one())


def _add(connection: Connection, row: dict[str, Any]) -> int:
    return connection.execute(insert(events).values(row).returning(events.c.id)).scalar_one()


def _requested(connection: Connection, rater: Rater, request: str) -> Any | None:
    same = (events.c.rater == rater.id, events.c.request == request)
    return connection.execute(select(events.c.id, events.c.kind, events.c.undoes).where(*same)).one_or_none()


def _has_event(connection: Connection, rater: Rater, pair: int) -> bool:
    """Return True if an event (vote or undo) of this rater about this pair is stored."""
    query = select(events.c.id).where(events.c.pair == pair, events.c.rater == rater.id).limit(1)
    return connection.execute(query).scalar_one_or_none() is not None


def _prompt_of(connection: Connection, pair: int) -> int:
    return content.pair_of(connection, pair).prompt.id
