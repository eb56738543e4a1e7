"""Who looks at which pair: a pair is kept for its rater for a while, so that no two do the work of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, ScalarSelect, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from trueup.ranking.store.schema import Rater
from trueup.ranking.store.tables import leases, tallies


def give(connection: Connection, rater: Rater, pair: int, told: dict[str, Any], *, now: float, seconds: float) -> None:
    """Keep a pair for a rater, as the newest of what the rater holds. `told`: left, policy, score."""
    connection.execute(delete(leases).where(leases.c.rater == rater.id, leases.c.pair == pair))
    connection.execute(insert(leases).values(rater=rater.id, pair=pair, until=now + seconds, **told))


def newest(connection: Connection, rater: Rater, *, live_at: float | None = None) -> Any | None:
    """The rater's newest lease, or newest live one. -> its row."""
    mine = select(leases).where(leases.c.rater == rater.id)
    if live_at is not None:
        mine = mine.where(leases.c.until > live_at)
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


def held_pairs(connection: Connection, now: float, *, besides: Rater | None = None) -> Sequence[Any]:
    """The pairs that raters hold, `besides` left out. -> rows of pair, gold, votes, seen, and by how many held."""
    by = besides or Rater(0, "")
    live = select(leases.c.pair).where(leases.c.until > now, leases.c.rater != by.id)
    columns = (tallies.c.pair, tallies.c.gold, tallies.c.votes, tallies.c.seen, held(by, now).label("held"))
    return connection.execute(select(*columns).where(tallies.c.pair.in_(live))).all()


def held(rater: Rater, now: float) -> ScalarSelect[int]:
    """How many others hold a pair of `tallies`, to be put into a query of it."""
    live = (leases.c.pair == tallies.c.pair, leases.c.rater != rater.id, leases.c.until > now)
    return select(func.count()).select_from(leases).where(*live).scalar_subquery()
