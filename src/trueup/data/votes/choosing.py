"""Which pair a rater gets next.

A pair that waits for this rater; now and then one whose answer is known; else a pair that others have begun, nearest to
done first; else a fresh one by the policy; else one that others skipped. Each of these looks at a few rows of an index,
however many pairs there are and however many the rater has voted on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from trueup.data.votes import content, counting, leases
from trueup.data.votes import settings as store_settings
from trueup.data.votes.content import draw_number, left_side
from trueup.data.votes.tables import standing, tallies
from trueup.data.votes.vote_types import PairPolicy, Rater, ShownPair, StoreSettings

SearchMarks = dict[tuple[int, int], int]
"""{(rater, votes): event}: all pairs with so many votes whose latest event is before this one have this rater's.

True for good: a rater's vote ends by an undo, which is the pair's latest event then, and so behind every mark. Kept in
memory alone: without it a search reads past all of a rater's own votes once.
"""


def choose(
    connection: Connection, rater: Rater, settings: StoreSettings, marks: SearchMarks, now: float
) -> ShownPair | None:
    """The pair a rater gets next, leased to the rater; None: there is none for this rater now."""
    until = now + settings.lease_seconds
    live = leases.live(now, settings.lease_seconds)
    waits = leases.newest(connection, rater, live)
    kept = waits or leases.newest(connection, rater)
    if kept is not None and (waits or _is_open(connection, kept.pair, rater, settings.raters_per_pair, live)):
        leases.renew(connection, kept.id, until)
        return ShownPair(content.pair_of(connection, kept.pair), kept.left, kept.policy or "random", kept.score)
    key = store_settings.key(connection)
    row = _gold(connection, rater, settings, key, live) or _open(connection, rater, settings, marks, live)
    if row is None:
        return None
    pair = content.pair_of(connection, row.pair)
    score = row.uncertainty if settings.policy == "uncertain" and not pair.gold else None
    policy: PairPolicy = "random" if score is None else "uncertain"
    left = left_side(key, pair.prompt.id, rater.id)
    told = {"left": left, "policy": policy, "score": score}
    leases.give(connection, rater, pair.id, told, now=now, seconds=settings.lease_seconds)
    return ShownPair(pair, left, policy, score)


def _gold(
    connection: Connection, rater: Rater, settings: StoreSettings, key: str, live: ColumnElement[bool]
) -> Any | None:
    """A pair whose answer is known, when one is due: about every `gold_every`-th, drawn so that nobody foresees it."""
    if not settings.gold_every:
        return None
    own = select(func.count()).select_from(standing).where(standing.c.rater == rater.id)
    if draw_number(key, "gold", rater.id, connection.execute(own).scalar_one()) % settings.gold_every:
        return None
    unseen = _candidates(rater, live).where(tallies.c.gold.is_(True), _not_by(rater))
    return connection.execute(unseen.order_by(tallies.c.position).limit(1)).one_or_none()


def _open(
    connection: Connection, rater: Rater, settings: StoreSettings, marks: SearchMarks, live: ColumnElement[bool]
) -> Any | None:
    """A pair that still needs votes: begun, fresh, or skipped by others."""
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
    """A pair with so many votes, of others (none: skips), the one first whose latest event is longest ago."""
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


def _is_open(connection: Connection, pair: int, rater: Rater, wanted: int, live: ColumnElement[bool]) -> bool:
    """Whether a pair that the rater once held may still be given to the rater."""
    query = _candidates(rater, live).add_columns(tallies.c.gold).where(tallies.c.pair == pair)
    row = connection.execute(query).one()
    return row.gold or _first_free([row], wanted) is not None


def _not_by(rater: Rater) -> Any:
    own = select(1).select_from(standing).where(standing.c.rater == rater.id, standing.c.pair == tallies.c.pair)
    return ~own.exists()
