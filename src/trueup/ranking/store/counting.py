"""How far a rater and the store are."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

from trueup.ranking.store import leases
from trueup.ranking.store.schema import Counts, Progress, Rater
from trueup.ranking.store.tables import events, levels, pairs, prompts, raters, standing, tallies


def fresh(connection: Connection, live: ColumnElement[bool]) -> int:
    """Pairs, gold ones left out, that nobody has voted on, skipped or holds."""
    looked_at = sum(not pair.gold and not pair.seen for pair in leases.held_pairs(connection, live))
    return _total(connection, levels.c.gold.is_(False), levels.c.seen == 0) - looked_at


def progress(connection: Connection, rater: Rater, wanted: int, live: ColumnElement[bool]) -> Progress:
    """How far a rater and the store are; gold pairs count among the rater's own only."""
    own = select(standing.c.counted, func.count()).where(standing.c.rater == rater.id).group_by(standing.c.counted)
    mine = {row[0]: row[1] for row in connection.execute(own)}
    open_now = _total(connection, levels.c.gold.is_(False), levels.c.votes < wanted)
    return Progress(
        mine=mine.get(True, 0),
        skipped=mine.get(False, 0),
        left=open_now - _voted(connection, rater, wanted) - _taken(connection, rater, wanted, live),
        pairs=_total(connection, levels.c.gold.is_(False)),
        complete=_total(connection, levels.c.gold.is_(False), levels.c.votes >= wanted),
        prompts=_last(connection, prompts.c.id),
        last=connection.execute(select(func.max(standing.c.vote)).where(standing.c.rater == rater.id)).scalar_one(),
    )


def counts(connection: Connection) -> Counts:
    """How much a store holds."""
    return Counts(
        prompts=_last(connection, prompts.c.id),
        pairs=_total(connection, levels.c.gold.is_(False)),
        gold=_total(connection, levels.c.gold.is_(True)),
        raters=_last(connection, raters.c.id),
        votes=connection.execute(select(func.count()).select_from(standing)).scalar_one(),
        events=last_event(connection),
    )


def last_event(connection: Connection) -> int:
    """The last event's id; 0: there is none."""
    return _last(connection, events.c.id)


def many_pairs(connection: Connection) -> int:
    """How many pairs there are, gold ones among them."""
    return _last(connection, pairs.c.id)


def _last(connection: Connection, column: ColumnElement[int]) -> int:
    """The greatest id: as many as there are, for rows that are never removed, and found at once."""
    return connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()


def _total(connection: Connection, *where: ColumnElement[bool]) -> int:
    total = select(func.coalesce(func.sum(levels.c.pairs), 0)).where(*where)
    return connection.execute(total).scalar_one()


def _voted(connection: Connection, rater: Rater, wanted: int) -> int:
    """Pairs that still need votes, but have this rater's."""
    needs = (tallies.c.pair == standing.c.pair, tallies.c.gold.is_(False), tallies.c.votes < wanted)
    own = select(func.count()).select_from(standing).where(standing.c.rater == rater.id)
    return connection.execute(own.where(select(1).select_from(tallies).where(*needs).exists())).scalar_one()


def _taken(connection: Connection, rater: Rater, wanted: int, live: ColumnElement[bool]) -> int:
    """Pairs that still need votes, and others hold them all, without this rater's."""
    held = leases.held_pairs(connection, live, besides=rater)
    full = [pair.pair for pair in held if not pair.gold and pair.votes < wanted <= pair.votes + pair.held]
    own = select(func.count()).select_from(standing).where(standing.c.rater == rater.id, standing.c.pair.in_(full))
    return len(full) - connection.execute(own).scalar_one()
