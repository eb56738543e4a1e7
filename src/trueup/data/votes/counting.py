"""Tables computed from the events, which make lookups fast, and the totals that are read from them.

`standing` holds the votes that were not undone; `tallies` the votes of each pair; `levels` how many pairs have how many
votes; `shares` the number of pairs of each prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from trueup.data.votes import leases
from trueup.data.votes.content import chunks, share, shift, tally
from trueup.data.votes.tables import events, levels, pairs, prompts, raters, shares, standing, tallies
from trueup.data.votes.vote_types import Rater, RaterProgress, Vote, VoteCounts

CountedVote = tuple[int, int, int, bool]
"""A vote: its event, rater, pair, and True unless it is a skip."""


def votes(connection: Connection, new: Sequence[CountedVote]) -> None:
    """Add new votes to the computed tables (`standing`, `tallies`, `levels`)."""
    rows = [{"rater": rater, "pair": pair, "vote": event, "counted": counted} for event, rater, pair, counted in new]
    connection.execute(insert(standing), rows)
    _move(connection, [(event, pair, int(counted), 1) for event, _, pair, counted in new])


def undo(connection: Connection, event: int, vote: Vote) -> None:
    """Remove a vote from the computed tables, after the undo with the number `event` took it back."""
    ballot = vote.ballot
    connection.execute(delete(standing).where(standing.c.rater == vote.rater.id, standing.c.pair == ballot.pair))
    _move(connection, [(event, ballot.pair, -int(ballot.choice != "skip"), -1)])


def rebuild(connection: Connection, key: str) -> None:
    """Recompute the tables `standing`, `tallies`, `levels` and `shares` from the stored pairs and events.

    The uncertainties of pairs are then missing: call `scoring.apply` to restore them.
    """
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
    """Fill the counts of pairs, votes and latest events into the emptied tables `shares`, `tallies` and `levels`."""
    of_prompt = select(pairs.c.prompt, func.count().label("pairs")).where(pairs.c.gold.is_(None))
    of_prompt = of_prompt.group_by(pairs.c.prompt).subquery()
    connection.execute(update(shares).where(shares.c.prompt == of_prompt.c.prompt).values(pairs=of_prompt.c.pairs))
    of_pair = select(standing.c.pair, func.sum(standing.c.counted).label("votes"), func.count().label("seen"))
    of_pair = of_pair.group_by(standing.c.pair).subquery()
    counted = update(tallies).where(tallies.c.pair == of_pair.c.pair).values(votes=of_pair.c.votes, seen=of_pair.c.seen)
    connection.execute(counted)
    last = select(events.c.pair, func.max(events.c.id).label("latest")).where(events.c.pair.is_not(None))
    last = last.group_by(events.c.pair).subquery()
    connection.execute(update(tallies).where(tallies.c.pair == last.c.pair).values(latest=last.c.latest))
    level = (tallies.c.gold, tallies.c.votes, tallies.c.seen)
    connection.execute(insert(levels).from_select([*levels.c.keys()], select(*level, func.count()).group_by(*level)))


def _move(connection: Connection, steps: Sequence[tuple[int, int, int, int]]) -> None:
    """Change the vote counts of pairs in `tallies`, and count each pair under its new level in `levels`.

    Each step is (event id, pair id, change of the votes without skips, change of the votes with skips).
    """
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
    for level_key, count in moved.items():
        shift(connection, level_key, count)


def fresh(connection: Connection, live: ColumnElement[bool]) -> int:
    """Return the number of pairs, without gold ones, that nobody has voted on or skipped and nobody has leased.

    `live` is the SQL condition for leases (temporary reservations) that have not expired.
    """
    looked_at = sum(not pair.gold and not pair.seen for pair in leases.held_pairs(connection, live))
    return _total(connection, levels.c.gold.is_(False), levels.c.seen == 0) - looked_at


def progress(connection: Connection, rater: Rater, wanted: int, live: ColumnElement[bool]) -> RaterProgress:
    """Return the progress of a rater and of the store; gold pairs count among the rater's own votes only.

    `wanted` is the number of votes that a pair needs; `live` is the SQL condition for leases that have not expired.
    """
    own = select(standing.c.counted, func.count()).where(standing.c.rater == rater.id).group_by(standing.c.counted)
    mine = {row[0]: row[1] for row in connection.execute(own)}
    judged = select(func.count()).select_from(standing).where(standing.c.rater == rater.id)
    gold = select(1).select_from(tallies).where(tallies.c.pair == standing.c.pair, tallies.c.gold.is_(True)).exists()
    open_now = _total(connection, levels.c.gold.is_(False), levels.c.votes < wanted)
    return RaterProgress(
        mine=mine.get(True, 0),
        skipped=mine.get(False, 0),
        left=open_now - _voted(connection, rater, wanted) - _taken(connection, rater, wanted, live),
        pairs=_total(connection, levels.c.gold.is_(False)),
        complete=_total(connection, levels.c.gold.is_(False), levels.c.votes >= wanted),
        prompts=_last(connection, prompts.c.id),
        checks=connection.execute(judged.where(gold)).scalar_one(),
        last=connection.execute(select(func.max(standing.c.vote)).where(standing.c.rater == rater.id)).scalar_one(),
    )


def counts(connection: Connection) -> VoteCounts:
    """Return the number of prompts, pairs, gold pairs, raters and votes in the store, and the id of its last event."""
    return VoteCounts(
        prompts=_last(connection, prompts.c.id),
        pairs=_total(connection, levels.c.gold.is_(False)),
        gold=_total(connection, levels.c.gold.is_(True)),
        raters=_last(connection, raters.c.id),
        votes=connection.execute(select(func.count()).select_from(standing)).scalar_one(),
        events=last_event(connection),
    )


def last_event(connection: Connection) -> int:
    """Return the id of the latest event (vote, undo or change of settings); 0 if there is none."""
    return _last(connection, events.c.id)


def number_of_pairs(connection: Connection) -> int:
    """Return the number of pairs in the store, gold ones included."""
    return _last(connection, pairs.c.id)


def _last(connection: Connection, column: ColumnElement[int]) -> int:
    """Return the greatest id in a column (0 if it is empty): the number of rows, as no row is ever removed; fast."""
    return connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()


def _total(connection: Connection, *where: ColumnElement[bool]) -> int:
    total = select(func.coalesce(func.sum(levels.c.pairs), 0)).where(*where)
    return connection.execute(total).scalar_one()


def _voted(connection: Connection, rater: Rater, wanted: int) -> int:
    """Return the number of pairs with fewer than `wanted` votes that this rater has voted on or skipped."""
    needs = (tallies.c.pair == standing.c.pair, tallies.c.gold.is_(False), tallies.c.votes < wanted)
    own = select(func.count()).select_from(standing).where(standing.c.rater == rater.id)
    return connection.execute(own.where(select(1).select_from(tallies).where(*needs).exists())).scalar_one()


def _taken(connection: Connection, rater: Rater, wanted: int, live: ColumnElement[bool]) -> int:
    """Return the number of pairs that this rater has not judged and whose missing votes are all reserved by others."""
    held = leases.held_pairs(connection, live, besides=rater)
    full = [pair.pair for pair in held if not pair.gold and pair.votes < wanted <= pair.votes + pair.held]
    own = select(func.count()).select_from(standing).where(standing.c.rater == rater.id, standing.c.pair.in_(full))
    return len(full) - connection.execute(own).scalar_one()
