"""Leases: a pair is reserved for the rater who looks at it, so that no two raters do the same work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from trueup.data.votes.tables import leases, tallies
from trueup.data.votes.vote_types import Rater

_SLACK = 60.0  # seconds that the clock may be set back without ending leases


def live(now: float, seconds: float) -> ColumnElement[bool]:
    """Return the condition for leases that hold now: not expired, and not from a clock that was ahead."""
    return and_(leases.c.until > now, leases.c.until <= now + seconds + _SLACK)


def give(connection: Connection, rater: Rater, pair: int, shown: dict[str, Any], *, now: float, seconds: float) -> None:
    """Lease a pair to a rater, as the rater's newest lease. `shown` has left, policy and score."""
    connection.execute(delete(leases).where(leases.c.rater == rater.id, leases.c.pair == pair))
    connection.execute(insert(leases).values(rater=rater.id, pair=pair, until=now + seconds, **shown))


def newest(connection: Connection, rater: Rater, *where: ColumnElement[bool]) -> Any | None:
    """Return the row of the rater's newest lease that meets the conditions."""
    mine = select(leases).where(leases.c.rater == rater.id, *where)
    return connection.execute(mine.order_by(leases.c.id.desc()).limit(1)).one_or_none()


def of(connection: Connection, rater: Rater, pair: int) -> Any | None:
    """Return the row of the rater's lease of a pair, expired or not."""
    mine = select(leases).where(leases.c.rater == rater.id, leases.c.pair == pair)
    return connection.execute(mine).one_or_none()


def renew(connection: Connection, lease: int, until: float) -> None:
    """Extend a lease."""
    connection.execute(update(leases).where(leases.c.id == lease).values(until=until))


def end(connection: Connection, rater: Rater, now: float) -> None:
    """Expire all leases of a rater. Their rows stay: a late vote still needs how its pair was shown."""
    connection.execute(update(leases).where(leases.c.rater == rater.id, leases.c.until > now).values(until=now))


def drop(connection: Connection, voted: Sequence[tuple[int, int]]) -> None:
    """Delete the leases of these (rater, pair): the raters have voted."""
    held = (leases.c.rater == bindparam("by"), leases.c.pair == bindparam("of"))
    connection.execute(delete(leases).where(*held), [{"by": rater, "of": pair} for rater, pair in voted])


def held_pairs(connection: Connection, live: ColumnElement[bool], *, besides: Rater | None = None) -> Sequence[Any]:
    """Return the pairs that raters other than `besides` hold: rows of pair, gold, votes, seen, held (by how many)."""
    by = besides or Rater(0, "")
    looked_at = select(leases.c.pair).where(live, leases.c.rater != by.id)
    columns = (tallies.c.pair, tallies.c.gold, tallies.c.votes, tallies.c.seen, held(by, live).label("held"))
    return connection.execute(select(*columns).where(tallies.c.pair.in_(looked_at))).all()


def held(rater: Rater, live: ColumnElement[bool]) -> ScalarSelect[int]:
    """Return the subquery that counts the others who hold a pair of `tallies`."""
    others = (leases.c.pair == tallies.c.pair, leases.c.rater != rater.id, live)
    return select(func.count()).select_from(leases).where(*others).scalar_subquery()
