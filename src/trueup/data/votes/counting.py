"""How far a rater and the store are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from trueup.data.votes import leases
from trueup.data.votes.content import chunks, share, shift, tally
from trueup.data.votes.tables import events, levels, pairs, prompts, raters, shares, standing, tallies
from trueup.data.votes.vote_types import Rater, RaterProgress, Vote, VoteCounts

CountedVote = tuple[int, int, int, bool]
"""A vote: its event, rater and pair, and whether it counts, which a skip does not."""


def votes(connection: Connection, new: Sequence[CountedVote]) -> None:
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


def fresh(connection: Connection, live: ColumnElement[bool]) -> int:
    """Pairs, gold ones left out, that nobody has voted on, skipped or holds."""
    looked_at = sum(not pair.gold and not pair.seen for pair in leases.held_pairs(connection, live))
    return _total(connection, levels.c.gold.is_(False), levels.c.seen == 0) - looked_at


def progress(connection: Connection, rater: Rater, wanted: int, live: ColumnElement[bool]) -> RaterProgress:
    """How far a rater and the store are; gold pairs count among the rater's own only."""
    own = select(standing.c.counted, func.count()).where(standing.c.rater == rater.id).group_by(standing.c.counted)
    mine = {row[0]: row[1] for row in connection.execute(own)}
    open_now = _total(connection, levels.c.gold.is_(False), levels.c.votes < wanted)
    return RaterProgress(
        mine=mine.get(True, 0),
        skipped=mine.get(False, 0),
        left=open_now - _voted(connection, rater, wanted) - _taken(connection, rater, wanted, live),
        pairs=_total(connection, levels.c.gold.is_(False)),
        complete=_total(connection, levels.c.gold.is_(False), levels.c.votes >= wanted),
        prompts=_last(connection, prompts.c.id),
        last=connection.execute(select(func.max(standing.c.vote)).where(standing.c.rater == rater.id)).scalar_one(),
    )


def counts(connection: Connection) -> VoteCounts:
    """How much a store holds."""
    return VoteCounts(
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


def number_of_pairs(connection: Connection) -> int:
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
