"""Choice of the next pair of answers that a rater is shown.

Pairs are tried in this order: the pair that is already leased to the rater (reserved for a limited time); now and then
a gold pair (its better answer is known, which checks the rater); a pair with votes by others, the one that lacks the
fewest votes first; a pair without votes, in the order that the setting `policy` names; a pair that others skipped.
Each search is an index lookup of a few rows, however many pairs there are and however many the rater has voted on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from trueup.data.votes import content, counting, leases
from trueup.data.votes import settings as store_settings
from trueup.data.votes.content import draw_number, left_side
from trueup.data.votes.tables import events, standing, tallies
from trueup.data.votes.tables import leases as leased
from trueup.data.votes.vote_types import PairPolicy, Rater, ShownPair, StoreSettings, Vote

SearchMarks = dict[tuple[int, int], int]
"""{(rater, votes): event}: the rater has voted on all pairs with so many votes whose latest event is before this one.

This stays true: an undo takes the rater's vote back, but is itself the pair's latest event, after every mark. Kept in
memory only; without it a search first reads past all pairs that the rater has voted on.
"""


def choose(
    connection: Connection, rater: Rater, settings: StoreSettings, marks: SearchMarks, now: float
) -> ShownPair | None:
    """Return the next pair for a rater and lease it (reserve it for a time); None if there is none for this rater now.

    `marks` remembers which pairs the rater's earlier searches need not read again (see `SearchMarks`); `now` is in Unix
    seconds.
    """
    until = now + settings.lease_seconds
    live = leases.live(now, settings.lease_seconds)
    lease = leases.newest(connection, rater, live) or leases.newest(connection, rater)
    if lease is not None and is_open(connection, rater, lease.pair, settings, now):
        leases.renew(connection, lease.id, until)
        return ShownPair(content.pair_of(connection, lease.pair), lease.left, lease.policy or "random", lease.score)
    key = store_settings.key(connection)
    # Both searches, whatever comes of the first: the time of the response must not tell a gold pair.
    gold, ordinary = _gold(connection, rater, settings, key, live), _open(connection, rater, settings, marks, live)
    row = gold or ordinary
    if row is None:
        return None
    pair = content.pair_of(connection, row.pair)
    score = row.uncertainty if settings.policy == "uncertain" and not pair.gold else None
    policy: PairPolicy = "random" if score is None else "uncertain"
    left = left_side(key, pair.prompt.id, rater.id)
    shown = {"left": left, "policy": policy, "score": score}
    leases.give(connection, rater, pair.id, shown, now=now, seconds=settings.lease_seconds)
    return ShownPair(pair, left, policy, score)


def _gold(
    connection: Connection, rater: Rater, settings: StoreSettings, key: str, live: ColumnElement[bool]
) -> Any | None:
    """Return the row of a gold pair (its better answer is known) if the rater is due one; None otherwise.

    About every `gold_every`-th pair is gold, drawn with the secret `key` so that raters cannot predict it.
    """
    if not settings.gold_every:
        return None
    votes_of_rater = select(func.count()).select_from(standing).where(standing.c.rater == rater.id)
    let_go = select(leased.c.pair).where(leased.c.rater == rater.id)  # an ordinary pair would be another rater's now
    unseen = _candidates(rater, live).where(tallies.c.gold.is_(True), _not_by(rater), tallies.c.pair.not_in(let_go))
    row = connection.execute(unseen.order_by(tallies.c.position).limit(1)).one_or_none()
    number = connection.execute(votes_of_rater).scalar_one() + len(connection.execute(let_go).all())
    return None if draw_number(key, "gold", rater.id, number) % settings.gold_every else row


def _open(
    connection: Connection, rater: Rater, settings: StoreSettings, marks: SearchMarks, live: ColumnElement[bool]
) -> Any | None:
    """Return the row of a pair that still needs votes; None if there is none for this rater.

    A pair with some votes is preferred to one without, and that to one that others only skipped.
    """
    wanted = settings.raters_per_pair
    for votes in range(wanted - 1, 0, -1):
        row = _touched(connection, rater, wanted, marks, votes, live)
        if row is not None:
            return row
    order: list[Any] = [tallies.c.position]
    if settings.policy == "uncertain":
        order.insert(0, tallies.c.uncertainty.desc())  # those without a score last
    fresh = _candidates(rater, live).where(tallies.c.gold.is_(False), tallies.c.seen == 0).order_by(*order)
    with connection.execute(fresh) as rows:
        row = _first_free(rows, wanted)
    return row or _touched(connection, rater, wanted, marks, 0, live)


def _touched(
    connection: Connection, rater: Rater, wanted: int, marks: SearchMarks, votes: int, live: ColumnElement[bool]
) -> Any | None:
    """Return the row of a pair with exactly `votes` votes (0: only skips), none by this rater; None if there is none.

    Of several, the pair whose latest event is the oldest is returned.
    """
    level = (tallies.c.gold.is_(False), tallies.c.votes == votes, tallies.c.latest >= marks.get((rater.id, votes), 1))
    query = _candidates(rater, live).where(*level, _not_by(rater)).order_by(tallies.c.latest)
    with connection.execute(query) as rows:
        first = rows.fetchone()
        if first is not None:
            marks[rater.id, votes] = first.latest
            return _first_free(itertools.chain((first,), rows), wanted)
    marks[rater.id, votes] = counting.last_event(connection) + 1
    return None


def _first_free(rows: Iterable[Any], wanted: int) -> Any | None:
    return next((row for row in rows if row.votes + row.held < wanted), None)


def _candidates(rater: Rater, live: ColumnElement[bool]) -> Select:
    columns = (tallies.c.pair, tallies.c.votes, tallies.c.latest, tallies.c.uncertainty)
    return select(*columns, leases.held(rater, live).label("held"))


def is_open(connection: Connection, rater: Rater, pair: int, settings: StoreSettings, now: float) -> bool:
    """Return True if a rater may vote on a pair, without more votes on it than the setting `raters_per_pair`.

    If the pair is reserved for the rater, a vote must be missing; else more than the other raters who hold it will
    give. A gold pair needs any number of votes, but once its reservation has expired it is treated as if another rater
    had got it, if any has voted since: were it always there again, signing out and in would tell that it is gold.
    """
    live = leases.live(now, settings.lease_seconds)
    lease = leases.of(connection, rater, pair)
    reserved = leases.of(connection, rater, pair, live) is not None
    row = _tally(connection, rater, pair, live)
    if row.gold:
        return reserved or (lease is not None and _latest_vote_of_others(connection, rater) <= lease.until)
    return row.votes + (0 if reserved else row.held) < settings.raters_per_pair


def comes_back(connection: Connection, rater: Rater, vote: Vote, settings: StoreSettings, now: float) -> bool:
    """Return True if a rater may vote again on the pair of a vote that was just undone.

    After a skip the other raters may have given the pair all votes that it needs. A skipped gold pair, which never has
    them, comes back as long as the rater has ordinary pairs left, so that its return does not tell what it is.
    """
    live = leases.live(now, settings.lease_seconds)
    row = _tally(connection, rater, vote.ballot.pair, live)
    if row.gold:
        left = counting.progress(connection, rater, settings.raters_per_pair, live).left
        return vote.ballot.choice != "skip" or left > 0
    return row.votes + row.held < settings.raters_per_pair


def _tally(connection: Connection, rater: Rater, pair: int, live: ColumnElement[bool]) -> Any:
    """Return the row of a pair: its `votes`, whether it is `gold`, and by how many other raters it is `held`."""
    query = _candidates(rater, live).add_columns(tallies.c.gold).where(tallies.c.pair == pair)
    return connection.execute(query).one()


def _latest_vote_of_others(connection: Connection, rater: Rater) -> float:
    """Return the time of the latest vote or undo by another rater, in Unix seconds; -inf if there is none."""
    others = select(events.c.at).where(events.c.rater != rater.id).order_by(events.c.id.desc()).limit(1)
    at = connection.execute(others).scalar_one_or_none()
    return -math.inf if at is None else datetime.fromisoformat(at).timestamp()


def _not_by(rater: Rater) -> Any:
    vote_of_rater = (
        select(1).select_from(standing).where(standing.c.rater == rater.id, standing.c.pair == tallies.c.pair)
    )
    return ~vote_of_rater.exists()
