"""Leases: time-limited reservations of a pair for the rater who looks at it, so that no two raters do the same work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from trueup.data.votes.tables import leases, tallies
from trueup.data.votes.vote_types import Rater

_SLACK = 60.0  # seconds that the clock may be set back without ending leases


def live(now: float, seconds: float) -> ColumnElement[bool]:
    """Return the SQL condition for leases that are valid at time `now`; `seconds` is the length of a lease.

    A lease is invalid once it has expired, or if it ends too far in the future (it was made while the clock was ahead).
    """
    return and_(leases.c.until > now, leases.c.until <= now + seconds + _SLACK)


def give(connection: Connection, rater: Rater, pair: int, shown: dict[str, Any], *, now: float, seconds: float) -> None:
    """Lease a pair to a rater (reserve it for `seconds`), as the rater's newest lease.

    `shown` has the keys left (the side shown as A), policy and score, which are stored with the later vote.
    """
    connection.execute(delete(leases).where(leases.c.rater == rater.id, leases.c.pair == pair))
    connection.execute(insert(leases).values(rater=rater.id, pair=pair, until=now + seconds, **shown))


def newest(connection: Connection, rater: Rater, *where: ColumnElement[bool]) -> Any | None:
    """Return the row of the rater's newest lease that meets the SQL conditions; None if there is none."""
    mine = select(leases).where(leases.c.rater == rater.id, *where)
    return connection.execute(mine.order_by(leases.c.id.desc()).limit(1)).one_or_none()


def of(connection: Connection, rater: Rater, pair: int, *where: ColumnElement[bool]) -> Any | None:
    """Return the row of the rater's lease of this pair, valid or expired, if it meets the SQL conditions `where`.

    None if there is none, e.g. because the pair was not leased to the rater.
    """
    mine = select(leases).where(leases.c.rater == rater.id, leases.c.pair == pair, *where)
    return connection.execute(mine).one_or_none()


def renew(connection: Connection, lease: int, until: float) -> None:
    """Extend the lease with the id `lease` until the given time in Unix seconds."""
    connection.execute(update(leases).where(leases.c.id == lease).values(until=until))


def end(connection: Connection, rater: Rater, now: float) -> None:
    """Expire all leases of a rater.

    Their rows are kept, because a late vote still needs to know how its pair was shown.
    """
    connection.execute(update(leases).where(leases.c.rater == rater.id, leases.c.until > now).values(until=now))


def drop(connection: Connection, voted: Sequence[tuple[int, int]]) -> None:
    """Delete the leases of the given (rater id, pair id), because these raters have now voted."""
    held = (leases.c.rater == bindparam("by"), leases.c.pair == bindparam("of"))
    connection.execute(delete(leases).where(*held), [{"by": rater, "of": pair} for rater, pair in voted])


def held_pairs(connection: Connection, live: ColumnElement[bool], *, besides: Rater | None = None) -> Sequence[Any]:
    """Return rows (pair, gold, votes, seen, held) of the pairs that are leased to raters other than `besides`.

    `votes` counts votes without skips, `seen` with skips, `held` the other raters who lease the pair; `live` is the SQL
    condition for valid leases.
    """
    by = besides or Rater(0, "")
    looked_at = select(leases.c.pair).where(live, leases.c.rater != by.id)
    columns = (tallies.c.pair, tallies.c.gold, tallies.c.votes, tallies.c.seen, held(by, live).label("held"))
    return connection.execute(select(*columns).where(tallies.c.pair.in_(looked_at))).all()


def held(rater: Rater, live: ColumnElement[bool]) -> ScalarSelect[int]:
    """Return the SQL subquery that counts the raters other than `rater` who lease the pair of each row of `tallies`."""
    others = (leases.c.pair == tallies.c.pair, leases.c.rater != rater.id, live)
    return select(func.count()).select_from(leases).where(*others).scalar_subquery()
