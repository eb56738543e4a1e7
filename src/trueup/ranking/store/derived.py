"""What is counted from events as they are added, so that nothing has to be counted when a rater waits."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select, update

from trueup.ranking.store.content import chunks, share, shift, tally
from trueup.ranking.store.tables import events, levels, pairs, prompts, shares, standing, tallies


def vote(connection: Connection, event: int, rater: int, pair: int, counted: bool) -> None:
    """Count a vote in."""
    connection.execute(insert(standing).values(rater=rater, pair=pair, vote=event, counted=counted))
    _move(connection, event, pair, int(counted), 1)


def undo(connection: Connection, event: int, rater: int, pair: int, counted: bool) -> None:
    """Count a vote out that was taken back."""
    connection.execute(delete(standing).where(standing.c.rater == rater, standing.c.pair == pair))
    _move(connection, event, pair, -int(counted), -1)


def rebuild(connection: Connection, seed: int) -> None:
    """Make the derived tables anew from pairs and events; the uncertainties are `scoring`'s to fill in."""
    for table in (standing, tallies, levels, shares):
        connection.execute(delete(table))
    undone = select(events.c.undoes).where(events.c.undoes.is_not(None))
    stands = select(events.c.rater, events.c.pair, events.c.id, events.c.choice != "skip")
    stands = stands.where(events.c.kind == "vote", events.c.id.not_in(undone))
    connection.execute(insert(standing).from_select(["rater", "pair", "vote", "counted"], stands))
    for chunk in chunks(connection.execute(select(prompts.c.id)).scalars().all()):
        connection.execute(insert(shares), [share(seed, prompt) for prompt in chunk])
    for chunk in chunks(connection.execute(select(pairs.c.id, pairs.c.gold)).all()):
        connection.execute(insert(tallies), [tally(seed, pair, gold is not None) for pair, gold in chunk])
    _recount(connection)


def _recount(connection: Connection) -> None:
    """Fill in what can be counted from pairs, events and standing votes."""
    of_prompt = select(pairs.c.prompt, func.count().label("pairs")).where(pairs.c.gold.is_(None))
    of_prompt = of_prompt.group_by(pairs.c.prompt).subquery()
    connection.execute(update(shares).where(shares.c.prompt == of_prompt.c.prompt).values(pairs=of_prompt.c.pairs))
    said = select(standing.c.pair, func.sum(standing.c.counted).label("votes"), func.count().label("seen"))
    said = said.group_by(standing.c.pair).subquery()
    counted = update(tallies).where(tallies.c.pair == said.c.pair).values(votes=said.c.votes, seen=said.c.seen)
    connection.execute(counted)
    last = select(events.c.pair, func.max(events.c.id).label("latest")).where(events.c.pair.is_not(None))
    last = last.group_by(events.c.pair).subquery()
    connection.execute(update(tallies).where(tallies.c.pair == last.c.pair).values(latest=last.c.latest))
    level = (tallies.c.gold, tallies.c.votes, tallies.c.seen)
    connection.execute(insert(levels).from_select([*levels.c.keys()], select(*level, func.count()).group_by(*level)))


def _move(connection: Connection, event: int, pair: int, votes: int, seen: int) -> None:
    """Add to a pair's votes, and move it from its level to another."""
    query = select(tallies.c.gold, tallies.c.votes, tallies.c.seen).where(tallies.c.pair == pair)
    gold, had, saw = connection.execute(query).one()
    new = {"votes": had + votes, "seen": saw + seen, "latest": event}
    connection.execute(update(tallies).where(tallies.c.pair == pair).values(new))
    shift(connection, (gold, had, saw), -1)
    shift(connection, (gold, had + votes, saw + seen), 1)
