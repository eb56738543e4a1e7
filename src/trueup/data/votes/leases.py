"""Who looks at which pair: a pair is kept for its rater for a while, so that no two do the work of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from trueup.data.votes.tables import leases, tallies
from trueup.data.votes.vote_types import Rater

_SLACK = 60.0  # seconds that a clock may be set back by and nobody loses a pair


def live(now: float, seconds: float) -> ColumnElement[bool]:
    """Which leases of so many seconds hold now: not those that ran out, nor those of a clock that was fast."""
    return and_(leases.c.until > now, leases.c.until <= now + seconds + _SLACK)


def give(connection: Connection, rater: Rater, pair: int, told: dict[str, Any], *, now: float, seconds: float) -> None:
    """Keep a pair for a rater, as the newest of what the rater holds. `told`: left, policy, score."""
    connection.execute(delete(leases).where(leases.c.rater == rater.id, leases.c.pair == pair))
    connection.execute(insert(leases).values(rater=rater.id, pair=pair, until=now + seconds, **told))


def newest(connection: Connection, rater: Rater, *where: ColumnElement[bool]) -> Any | None:
    """The rater's newest lease, or newest live one. -> its row."""
    mine = select(leases).where(leases.c.rater == rater.id, *where)
    return connection.execute(mine.order_by(leases.c.id.desc()).limit(1)).one_or_none()


def of(connection: Connection, rater: Rater, pair: int) -> Any | None:
    """The rater's lease of a pair, also one that ran out."""
    mine = select(leases).where(leases.c.rater == rater.id, leases.c.pair == pair)
    return connection.execute(mine).one_or_none()


def renew(connection: Connection, lease: int, until: float) -> None:
    """Let a lease end later."""
    connection.execute(update(leases).where(leases.c.id == lease).values(until=until))


def end(connection: Connection, rater: Rater, now: float) -> None:
    """Let all that a rater holds be given to others; a late vote still finds how it was shown."""
    connection.execute(update(leases).where(leases.c.rater == rater.id, leases.c.until > now).values(until=now))


def drop(connection: Connection, voted: Sequence[tuple[int, int]]) -> None:
    """Forget the leases of raters and pairs: the raters have voted."""
    held = (leases.c.rater == bindparam("by"), leases.c.pair == bindparam("of"))
    connection.execute(delete(leases).where(*held), [{"by": rater, "of": pair} for rater, pair in voted])


def held_pairs(connection: Connection, live: ColumnElement[bool], *, besides: Rater | None = None) -> Sequence[Any]:
    """The pairs that raters hold, `besides` left out. -> rows of pair, gold, votes, seen, and by how many held."""
    by = besides or Rater(0, "")
    looked_at = select(leases.c.pair).where(live, leases.c.rater != by.id)
    columns = (tallies.c.pair, tallies.c.gold, tallies.c.votes, tallies.c.seen, held(by, live).label("held"))
    return connection.execute(select(*columns).where(tallies.c.pair.in_(looked_at))).all()


def held(rater: Rater, live: ColumnElement[bool]) -> ScalarSelect[int]:
    """How many others hold a pair of `tallies`, to be put into a query of it."""
    others = (leases.c.pair == tallies.c.pair, leases.c.rater != rater.id, live)
    return select(func.count()).select_from(leases).where(*others).scalar_subquery()
