"""What is counted from events as they are added, so that nothing has to be counted when a rater waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from trueup.ranking.store.content import chunks, share, shift, tally
from trueup.ranking.store.schema import Vote
from trueup.ranking.store.tables import events, levels, pairs, prompts, shares, standing, tallies

Counted = tuple[int, int, int, bool]
"""A vote: its event, rater and pair, and whether it counts, which a skip does not."""


def votes(connection: Connection, new: Sequence[Counted]) -> None:
    """Count votes in."""
    rows = [{"rater": rater, "pair": pair, "vote": event, "counted": counted} for event, rater, pair, counted in new]
    connection.execute(insert(standing), rows)
    _move(connection, [(event, pair, int(counted), 1) for event, _, pair, counted in new])


def undo(connection: Connection, event: int, vote: Vote) -> None:
    """Count a vote out that the event took back."""
    said = vote.ballot
    connection.execute(delete(standing).where(standing.c.rater == vote.rater.id, standing.c.pair == said.pair))
    _move(connection, [(event, said.pair, -int(said.choice != "skip"), -1)])


def rebuild(connection: Connection, key: str) -> None:
    """Make the derived tables anew from pairs and events; the uncertainties are `scoring`'s to fill in."""
    for table in (standing, tallies, levels, shares):
        connection.execute(delete(table))
    undone = select(events.c.undoes).where(events.c.undoes.is_not(None))
    stands = select(events.c.rater, events.c.pair, events.c.id, events.c.choice != "skip")
    stands = stands.where(events.c.kind == "vote", events.c.id.not_in(undone))
    connection.execute(insert(standing).from_select(["rater", "pair", "vote", "counted"], stands))
    for chunk in chunks(connection.execute(select(prompts.c.id)).scalars().all()):
        connection.execute(insert(shares), [share(key, prompt) for prompt in chunk])
    for chunk in chunks(connection.execute(select(pairs.c.id, pairs.c.gold)).all()):
        connection.execute(insert(tallies), [tally(key, pair, gold is not None) for pair, gold in chunk])
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


def _move(connection: Connection, steps: Sequence[tuple[int, int, int, int]]) -> None:
    """Add to pairs' votes, and move the pairs from their levels to others. `steps`: event, pair, votes, seen."""
    columns = (tallies.c.pair, tallies.c.gold, tallies.c.votes, tallies.c.seen)
    rows = connection.execute(select(*columns).where(tallies.c.pair.in_({pair for _, pair, _, _ in steps}))).all()
    level = {row.pair: (row.gold, row.votes, row.seen) for row in rows}
    moved: Counter[tuple[bool, int, int]] = Counter()
    new: dict[int, dict[str, int]] = {}
    for event, pair, votes, seen in steps:
        gold, had, saw = level[pair]
        moved[level[pair]] -= 1
        level[pair] = (gold, had + votes, saw + seen)
        moved[level[pair]] += 1
        new[pair] = {"of": pair, "had": had + votes, "saw": saw + seen, "last": event}
    values = {"votes": bindparam("had"), "seen": bindparam("saw"), "latest": bindparam("last")}
    connection.execute(update(tallies).where(tallies.c.pair == bindparam("of")).values(values), list(new.values()))
    for place, many in moved.items():
        shift(connection, place, many)
