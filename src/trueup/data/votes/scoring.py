"""Reward model margins r(first) - r(second) of pairs, in nats, and the uncertainty that can order the pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.dialects.sqlite import insert

from trueup.data.votes import content, counting
from trueup.data.votes.settings import remember, remembered
from trueup.data.votes.tables import pairs, scores, tallies
from trueup.data.votes.vote_types import Pair
from trueup.errors import DataError


def uncertainty(margin: float) -> float:
    """Return a reward model's uncertainty about a pair, 1 - |2 sigmoid(margin) - 1|.

    It is 0 where the model is sure and 1 where it rates both answers alike.
    """
    return 1 - abs(math.tanh(margin / 2))


def score(connection: Connection, model: str, margins: Mapping[int, float]) -> None:
    """Store the margins {pair id: r(first) - r(second)} of a reward model, and use its uncertainties from now on.

    Raises:
        DataError: a margin is not a finite number, or the store has no such pair.
    """
    for pair, margin in margins.items():
        if not math.isfinite(margin):
            raise DataError(f"pair {pair}: {model} gives it the margin {margin}\n  fix: check the reward model")
    if not margins:
        return
    rows = [{"model": model, "pair": pair, "margin": margin} for pair, margin in margins.items()]
    added = insert(scores)
    key = [scores.c.model, scores.c.pair]
    connection.execute(added.on_conflict_do_update(index_elements=key, set_={"margin": added.excluded.margin}), rows)
    if remembered(connection, "scorer") == model:
        _enter(connection, margins)
    else:
        remember(connection, "scorer", model)
        apply(connection)


def apply(connection: Connection) -> None:
    """Recompute the uncertainty of every pair from the margins of the reward model that scored last."""
    connection.execute(update(tallies).values(uncertainty=None))
    last = select(scores.c.pair, scores.c.margin).where(scores.c.model == remembered(connection, "scorer"))
    _enter(connection, {row.pair: row.margin for row in connection.execute(last)})


def unscored(connection: Connection, model: str, limit: int) -> list[Pair]:
    """Return at most `limit` of the newest pairs that the reward model `model` has not scored."""
    by_model = scores.c.model == model
    done = connection.execute(select(func.count()).select_from(scores).where(by_model)).scalar_one()
    if done == counting.number_of_pairs(connection):
        return []  # without a look at each
    known = select(1).select_from(scores).where(by_model, scores.c.pair == pairs.c.id).exists()
    return content.some_pairs(connection, select(pairs.c.id).where(~known).order_by(pairs.c.id.desc()).limit(limit))


def _enter(connection: Connection, margins: Mapping[int, float]) -> None:
    if margins:
        rows = [{"of": pair, "uncertainty": uncertainty(margin)} for pair, margin in margins.items()]
        connection.execute(
            update(tallies).where(tallies.c.pair == bindparam("of")).values(uncertainty=bindparam("uncertainty")), rows
        )
