"""How far a rater and the store are."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

from trueup.ranking.store.schema import Progress, Rater
from trueup.ranking.store.tables import leases, levels, prompts, standing, tallies


def fresh(connection: Connection, now: float) -> int:
    """Pairs, gold ones left out, that nobody has voted on, skipped or holds."""
    held = select(leases.c.pair).where(leases.c.until > now)
    looked_at = (
        select(func.count())
        .select_from(tallies)
        .where(tallies.c.pair.in_(held), tallies.c.gold.is_(False), tallies.c.seen == 0)
    )
    return _total(connection, levels.c.seen == 0) - connection.execute(looked_at).scalar_one()


def progress(connection: Connection, rater: Rater, wanted: int, now: float) -> Progress:
    """How far a rater and the store are; gold pairs count among the rater's own only."""
    own = select(standing.c.counted, func.count()).where(standing.c.rater == rater.id).group_by(standing.c.counted)
    mine = {row[0]: row[1] for row in connection.execute(own)}
    return Progress(
        mine=mine.get(True, 0),
        skipped=mine.get(False, 0),
        left=_total(connection, levels.c.votes < wanted) - _not_for(connection, rater, wanted, now),
        pairs=_total(connection),
        complete=_total(connection, levels.c.votes >= wanted),
        prompts=connection.execute(select(func.count()).select_from(prompts)).scalar_one(),
    )


def _total(connection: Connection, *where: ColumnElement[bool]) -> int:
    total = select(func.coalesce(func.sum(levels.c.pairs), 0)).where(levels.c.gold.is_(False), *where)
    return connection.execute(total).scalar_one()


def _not_for(connection: Connection, rater: Rater, wanted: int, now: float) -> int:
    """Pairs that need votes, but not this rater's: the rater has voted on them, or as many others hold them."""
    still = (tallies.c.gold.is_(False), tallies.c.votes < wanted)
    own = select(standing.c.pair).where(standing.c.rater == rater.id)
    voted = select(func.count()).select_from(standing.join(tallies, tallies.c.pair == standing.c.pair))
    voted = voted.where(standing.c.rater == rater.id, *still)
    held = (
        select(leases.c.pair)
        .join(tallies, tallies.c.pair == leases.c.pair)
        .where(leases.c.rater != rater.id, leases.c.until > now, *still, leases.c.pair.not_in(own))
        .group_by(leases.c.pair)
        .having(func.count() + func.max(tallies.c.votes) >= wanted)
    )
    taken = select(func.count()).select_from(held.subquery())
    return connection.execute(voted).scalar_one() + connection.execute(taken).scalar_one()
